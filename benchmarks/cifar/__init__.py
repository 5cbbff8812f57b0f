"""A trainer for CIFAR that keeps the whole set on the device, and what is measured with it."""
