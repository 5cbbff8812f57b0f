"""Folding: a batch norm that follows a convolution becomes part of the convolution's weights, for inference.

timm's ``reparameterize_model`` and the ``--reparam`` option of its scripts call ``reparameterize()`` of every module
that has it; the residual units, the mask's last convolutions and the stem do. A norm in front of a convolution, behind
a sum, stays.
"""

from typing import Any

import torch
from timm.layers import FrozenBatchNormAct2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

__all__ = ["fold_norm", "refuse_training"]


def refuse_training(module: nn.Module) -> None:
    """Raise a `RuntimeError` if ``module`` is in training mode, in which a batch norm is no fixed function."""
    if module.training:
        raise RuntimeError(f"reparameterize() needs {type(module).__name__} in evaluation mode: call .eval() first.")


@torch.no_grad()
def fold_norm(parent: nn.Module, conv: str, norm: str) -> None:
    """Fold the batch norm ``parent.norm`` into the convolution ``parent.conv`` in front of it, in place.

    The convolution gains a bias; of a norm-and-activation layer the activation stays, under the norm's name. Other
    norms, which depend on the input, and what is folded already are left as they are.

    Args:
        parent: Module that holds both.
        conv: Name of the convolution.
        norm: Name of what follows it.
    """
    conv2d: Any = getattr(parent, conv)
    batch_norm: Any = getattr(parent, norm)
    if not isinstance(batch_norm, (nn.modules.batchnorm._BatchNorm, FrozenBatchNormAct2d)):
        return
    mean: Any = batch_norm.running_mean
    var: Any = batch_norm.running_var
    if mean is None or var is None:
        return
    dtype = conv2d.weight.dtype
    exact = torch.promote_types(dtype, torch.float32)  # half precision is folded in single
    terms = (conv2d.weight, conv2d.bias, mean, var, batch_norm.weight, batch_norm.bias)
    exact_terms: Any = [None if term is None else term.to(exact) for term in terms]
    weight, bias, mean, var, scale, shift = exact_terms
    weight, bias = fuse_conv_bn_weights(weight, bias, mean, var, batch_norm.eps, scale, shift)
    trainable = conv2d.weight.requires_grad
    conv2d.weight = nn.Parameter(weight.to(dtype), trainable)
    conv2d.bias = nn.Parameter(bias.to(dtype), trainable)
    setattr(parent, norm, getattr(batch_norm, "act", nn.Identity()))
