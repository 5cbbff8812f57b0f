"""Networks with a transplanted trunk whose masks alone learn: the first half of fine-tuning (benchmarks/imagenet.md).

    python train.py --device-modules timm_resattn benchmarks.cifar.mask_tuning --model resattn92_masks --pretrained ...

Importing this registers ``NAME_masks`` for each network that has a donor. Its state dict is that of ``NAME``.
"""

from typing import Any

from timm.models import register_model
from torch import nn

from timm_resattn import ResAttn, resattn
from timm_resattn.attention import AttentionModule


def train_masks_only(model: ResAttn) -> ResAttn:
    """Freeze all parameters but the masks'; norms keep following the statistics of their inputs. Returns the model.

    Raises:
        ValueError: The model has no masks.
    """
    masks = [module.mask for module in model.modules() if isinstance(module, AttentionModule) and module.mask]
    if not masks:
        raise ValueError("the network has no masks: its mask_type is 'none' or its depths are all 0.")
    model.requires_grad_(False)
    for mask in masks:
        mask.requires_grad_(True)
    return model


@register_model
def resattn92_masks(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """`resattn92` whose masks alone learn."""
    return train_masks_only(resattn.resattn92(pretrained, **kwargs))


@register_model
def resattnext92_32x4d_masks(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """`resattnext92_32x4d` whose masks alone learn."""
    return train_masks_only(resattn.resattnext92_32x4d(pretrained, **kwargs))
