"""Folding: a batch norm that follows a convolution becomes part of the convolution's weights, for inference.

timm's ``reparameterize_model`` and the ``--reparam`` option of its scripts call ``reparameterize()`` of every module
that has it; the residual units, the mask's last convolutions and the stem do. A norm before a convolution, after
a sum, stays.
"""

import copy
from typing import Any

import torch
from timm.utils import reparameterize_model
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

__all__ = ["fold_norm", "folded_copy"]


@torch.no_grad()
def fold_norm(parent: nn.Module, conv: str, norm: str) -> None:
    """Fold the batch norm ``parent.norm`` into the convolution ``parent.conv`` before it, in place.

    The convolution gains a bias, the norm becomes the identity. Norms without running statistics, which depend on the
    input, and what is folded already are left as they are.

    Args:
        parent: Module that holds both.
        conv: Name of the convolution.
        norm: Name of the norm; frozen and synchronised ones count too.
    """
    conv2d: Any = getattr(parent, conv)
    batch_norm: Any = getattr(parent, norm, None)
    if getattr(batch_norm, "running_mean", None) is None:
        return
    dtype = conv2d.weight.dtype
    exact = torch.promote_types(dtype, torch.float32)  # half precision is folded in single
    mean, var = batch_norm.running_mean, batch_norm.running_var
    terms = (conv2d.weight, conv2d.bias, mean, var, batch_norm.weight, batch_norm.bias)
    exact_terms: Any = [None if term is None else term.to(exact) for term in terms]
    weight, bias, mean, var, scale, shift = exact_terms
    weight, bias = fuse_conv_bn_weights(weight, bias, mean, var, batch_norm.eps, scale, shift)
    trainable = conv2d.weight.requires_grad
    conv2d.weight = nn.Parameter(weight.to(dtype), trainable)
    conv2d.bias = nn.Parameter(bias.to(dtype), trainable)
    setattr(parent, norm, nn.Identity())


def folded_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode, without gradients, its norms folded; for ``features_only`` networks too."""
    model = copy.deepcopy(model).eval().requires_grad_(False)
    model = reparameterize_model(model, inplace=True)
    if hasattr(model, "stem_conv") and hasattr(model, "stem_norm"):  # features_only lays the stem's layers open
        fold_norm(model, "stem_conv", "stem_norm")
    return model
