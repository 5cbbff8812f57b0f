"""Shipping: weights rescaled and checked, cards of the pretrained names."""
