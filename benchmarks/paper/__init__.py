"""The paper's tables on CIFAR, run again."""
