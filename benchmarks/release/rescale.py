"""Weights that ship are rescaled: pooled features of size 1, the logits equal bit for bit.

A fresh classifier learns slowly from small features. The last norm's weight and bias are multiplied by s and the
classifier's weight is divided by it; s is a power of two, so that no digit is rounded.
"""

import torch
from torch import nn

__all__ = ["rescale"]


@torch.no_grad()
def rescale(model: nn.Module, images: torch.Tensor) -> float:
    """Bring the root mean square of the pooled features of ``images`` near 1, in place.

    Args:
        model: A pre-activation network with a classifier: its features are the ReLU of its last norm.
        images: Normalised images ``(B, C, H, W)`` as the network will see them.

    Returns:
        The factor s, a power of two; with it the root mean square is between 0.71 and 1.42.
    """
    model.eval()
    features = model.forward_head(model.forward_features(images), pre_logits=True)
    scale = 2.0 ** -torch.log2(features.square().mean().sqrt()).round().item()
    model.norm.weight *= scale
    model.norm.bias *= scale
    model.head.fc.weight /= scale
    return scale
