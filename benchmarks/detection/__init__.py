"""Detectors of torchvision on our backbones."""
