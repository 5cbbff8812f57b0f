"""The family's names: configurations of weights, and an entry point for each network."""

from typing import Any, Dict

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, get_pretrained_cfg, register_model
from torch import nn

from .checkpoints import adapt_state_dict
from .network import ResAttn
from .shipped import shipped_file

__all__ = []  # register_model adds each entry point


def checkpoint_filter_fn(state_dict: Dict[str, Any], model: nn.Module) -> Dict[str, torch.Tensor]:
    """Weights of a checkpoint of any known kind by this model's names: see `adapt_state_dict`."""
    return adapt_state_dict(state_dict, model)


def _cfg(url: str = "", **kwargs: Any) -> Dict[str, Any]:
    return {
        "url": url,
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "interpolation": "bilinear",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stem.conv",
        "classifier": "head.fc",
        "paper_ids": "arXiv:1704.06904",
        "paper_name": "Residual Attention Network for Image Classification",
        "license": "apache-2.0",
        **kwargs,
    }


def _cifar_cfg(**kwargs: Any) -> Dict[str, Any]:
    return _cfg(
        num_classes=10,
        input_size=(3, 32, 32),
        pool_size=(8, 8),
        crop_pct=1.0,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        **kwargs,
    )


_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def _donor_cfg(donor: str, accuracy: str) -> Dict[str, Any]:
    """Weights of a timm classifier, transplanted into the trunk: its hub repository, licence and data configuration."""
    donor_cfg = get_pretrained_cfg(donor)
    cfg = donor_cfg.to_dict() if donor_cfg is not None else {}
    data = ("input_size", "test_input_size", "pool_size", "test_pool_size", "interpolation", "crop_mode", "crop_pct")
    kept = (*data, "test_crop_pct", "mean", "std", "num_classes", "license", "origin_url")
    weights = {"hf_hub_id": f"timm/{donor}", "origin_url": f"https://huggingface.co/timm/{donor}"}
    return _cfg(
        **weights | {key: cfg[key] for key in kept if cfg.get(key) is not None},
        description=f"Trunk of timm/{donor} ({accuracy}), masks untrained: a start for fine-tuning.",
    )


def _member_cfg(donor: str, accuracy: str) -> Dict[str, Any]:
    """As `_donor_cfg`, for a network that has the donor's own trunk."""
    cfg = _donor_cfg(donor, accuracy)
    return {**cfg, "description": f"A network of this package, not one of the paper's. {cfg['description']}"}


# Accuracies of donors: timm's results/results-imagenet.csv.
default_cfgs = generate_default_cfgs(
    {
        "resattn56": _cfg(),
        "resattn92.resnetv2_50_a1h_in1k": _donor_cfg("resnetv2_50.a1h_in1k", "80.41% at 224, 81.41% at 288"),
        "resattn128.resnetv2_50_a1h_in1k": _donor_cfg("resnetv2_50.a1h_in1k", "80.41% at 224, 81.41% at 288"),
        "resattn164.resnetv2_50_a1h_in1k": _donor_cfg("resnetv2_50.a1h_in1k", "80.41% at 224, 81.41% at 288"),
        "resattn200.resnetv2_101_a1h_in1k": _donor_cfg("resnetv2_101.a1h_in1k", "82.04% at 224, 83.00% at 288"),
        "resattn236.resnetv2_101_a1h_in1k": _donor_cfg("resnetv2_101.a1h_in1k", "82.04% at 224, 83.00% at 288"),
        "resattn452": _cfg(),
        "resattnext56_32x4d": _cfg(),
        "resattnext92_32x4d.a1h_in1k": _donor_cfg("resnext50_32x4d.a1h_in1k", "81.14% at 224, 82.02% at 288"),
        "resattnext92_32x4d.fb_swsl_ig1b_ft_in1k": _donor_cfg("resnext50_32x4d.fb_swsl_ig1b_ft_in1k", "82.16% at 224"),
        "resattnext92_32x4d.tv2_in1k": _donor_cfg("resnext50_32x4d.tv2_in1k", "79.38% at 176, 81.19% at 224"),
        "resattnext92_32x4d.a1_in1k": _donor_cfg("resnext50_32x4d.a1_in1k", "80.53% at 224, 81.48% at 288"),
        "resattnext92_32x4d.a2_in1k": _donor_cfg("resnext50_32x4d.a2_in1k", "80.44% at 224, 81.30% at 288"),
        "resattnext92_32x4d.a3_in1k": _donor_cfg("resnext50_32x4d.a3_in1k", "77.73% at 160, 79.26% at 224"),
        "resattnext92_32x4d.ra_in1k": _donor_cfg("resnext50_32x4d.ra_in1k", "79.80% at 224, 80.72% at 288"),
        "resattnext92_32x4d.fb_ssl_yfcc100m_ft_in1k": _donor_cfg(
            "resnext50_32x4d.fb_ssl_yfcc100m_ft_in1k", "80.32% at 224"
        ),
        "resattnext92_32x4d.gluon_in1k": _donor_cfg("resnext50_32x4d.gluon_in1k", "79.35% at 224"),
        "resattnext92_32x4d.tv_in1k": _donor_cfg("resnext50_32x4d.tv_in1k", "77.63% at 224"),
        # ours: of each name the first tag is the best freely licensed one; those with fb_ are CC-BY-NC-4.0
        "resattn50.a1h_in1k": _member_cfg("resnetv2_50.a1h_in1k", "80.41% at 224, 81.41% at 288"),
        "resattn101.a1h_in1k": _member_cfg("resnetv2_101.a1h_in1k", "82.04% at 224, 83.00% at 288"),
        "resattn50_postact.a1_in1k": _member_cfg("resnet50.a1_in1k", "80.38% at 224, 81.24% at 288"),
        "resattn50_postact.tv2_in1k": _member_cfg("resnet50.tv2_in1k", "79.43% at 176, 80.85% at 224"),
        "resattn50_postact.fb_swsl_ig1b_ft_in1k": _member_cfg("resnet50.fb_swsl_ig1b_ft_in1k", "81.15% at 224"),
        "resattn101_postact.a1h_in1k": _member_cfg("resnet101.a1h_in1k", "81.95% at 224, 82.80% at 288"),
        "resattn101_postact.tv2_in1k": _member_cfg("resnet101.tv2_in1k", "79.91% at 176, 81.91% at 224"),
        "resattnext50_32x4d.a1h_in1k": _member_cfg("resnext50_32x4d.a1h_in1k", "81.14% at 224, 82.02% at 288"),
        "resattnext50_32x4d.tv2_in1k": _member_cfg("resnext50_32x4d.tv2_in1k", "79.38% at 176, 81.19% at 224"),
        "resattnext50_32x4d.fb_swsl_ig1b_ft_in1k": _member_cfg("resnext50_32x4d.fb_swsl_ig1b_ft_in1k", "82.16% at 224"),
        "resattnext101_32x4d.gluon_in1k": _member_cfg("resnext101_32x4d.gluon_in1k", "80.34% at 224"),
        "resattnext101_32x4d.fb_swsl_ig1b_ft_in1k": _member_cfg(
            "resnext101_32x4d.fb_swsl_ig1b_ft_in1k", "83.27% at 224"
        ),
        "resattnext101_32x8d.tv2_in1k": _member_cfg("resnext101_32x8d.tv2_in1k", "81.99% at 176, 82.83% at 224"),
        "resattnext101_32x8d.fb_swsl_ig1b_ft_in1k": _member_cfg(
            "resnext101_32x8d.fb_swsl_ig1b_ft_in1k", "84.28% at 224"
        ),
        "resattn_inception56": _cfg(input_size=(3, 299, 299), pool_size=(10, 10)),
        "resattn56_dskip.phamquiluan_in1k": _cfg(
            url="https://github.com/phamquiluan/ResidualAttentionNetwork/releases/download/v0.1.0/resattnet56.pth",
            origin_url="https://github.com/phamquiluan/ResidualAttentionNetwork",
            license=None,
            description="Trained by phamquiluan with pytorchcv's network: 77.02% top-1, 93.57% top-5 by its README. "
            "The repository states no licence; the file is fetched from there.",
        ),
        "resattn92_dskip": _cfg(),
        "resattn56_cifar.cifar10": _cifar_cfg(
            file=shipped_file("resattn56_cifar.cifar10"), label_names=_CIFAR10_CLASSES, license="apache-2.0"
        ),
        "resattn92_cifar.cifar10": _cifar_cfg(
            file=shipped_file("resattn92_cifar.cifar10"), label_names=_CIFAR10_CLASSES, license="apache-2.0"
        ),
        "resattn128_cifar": _cifar_cfg(),
        "resattn164_cifar": _cifar_cfg(),
        "resattn236_cifar": _cifar_cfg(),
        "resattn452_cifar": _cifar_cfg(),
    }
)


def _create_resattn(variant: str, pretrained: bool, model_args: Dict[str, Any], kwargs: Dict[str, Any]) -> ResAttn:
    kwargs = dict(model_args, **kwargs)
    return build_model_with_cfg(
        ResAttn,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg=dict(out_indices=tuple(range(len(kwargs["depths"]) + 1)), flatten_sequential=True),
        **kwargs,
    )


_NEXT_ARGS = dict(unit_type="postact", groups=32, bottle_ratio=0.5)
# Ours, not the paper's: a ResNet's own units, some of them in modules, so that its weights fill the trunk unit by unit.
# The modules follow the unit that begins a stage. A mask ends on a 7x7 map at 224, as the paper's do: one pooling at
# 14x14, after which it sees 267 pixels, more than the image. A second would cost 3.3M parameters a module and need
# images of 33 pixels. A mask at 7x7 costs 17M parameters and has little to pool: no module there. Three modules in a
# stage of 23 units are as many as Attention-92 has; each costs 4.3M parameters and 0.52 GMACs.
_MEMBER50_ARGS = dict(depths=(1, 1, 2, 0), closing_units=(0, 1, 1, 2), pre_units=0)
_MEMBER101_ARGS = dict(depths=(1, 1, 3, 0), closing_units=(0, 1, 16, 2), pre_units=0)
_CIFAR_ARGS = dict(widths=(64, 128, 256), closing_units=(1, 1, 1), mask_pools=(3, 2, 1), stem_type="cifar", stem_chs=16)


@register_model
def resattn56(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-56, the authors' definition: 31.8M parameters, 6.3 GMACs."""
    return _create_resattn("resattn56", pretrained, dict(depths=(1, 1, 1, 0)), kwargs)


@register_model
def resattn92(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-92, the authors' definition: 52.5M parameters, 10.5 GMACs."""
    return _create_resattn("resattn92", pretrained, dict(depths=(1, 2, 3, 0)), kwargs)


@register_model
def resattn128(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-128 at ImageNet size."""
    return _create_resattn("resattn128", pretrained, dict(depths=(2, 3, 4, 0)), kwargs)


@register_model
def resattn164(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-164 at ImageNet size."""
    return _create_resattn("resattn164", pretrained, dict(depths=(3, 4, 5, 0)), kwargs)


@register_model
def resattn200(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-200 at ImageNet size."""
    return _create_resattn("resattn200", pretrained, dict(depths=(4, 5, 6, 0)), kwargs)


@register_model
def resattn236(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-236 at ImageNet size."""
    return _create_resattn("resattn236", pretrained, dict(depths=(5, 6, 7, 0)), kwargs)


@register_model
def resattn452(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-452 (p=2, t=4, r=3) at ImageNet size."""
    return _create_resattn(
        "resattn452", pretrained, dict(depths=(5, 6, 7, 0), pre_units=2, trunk_units=4, mask_units=3), kwargs
    )


@register_model
def resattnext56_32x4d(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """AttentionNeXt-56, the authors' definition: 31.3M parameters, 6.4 GMACs."""
    return _create_resattn("resattnext56_32x4d", pretrained, dict(depths=(1, 1, 1, 0), **_NEXT_ARGS), kwargs)


@register_model
def resattnext92_32x4d(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """AttentionNeXt-92, the authors' definition: 52.1M parameters, 10.7 GMACs."""
    return _create_resattn("resattnext92_32x4d", pretrained, dict(depths=(1, 2, 3, 0), **_NEXT_ARGS), kwargs)


@register_model
def resattn50(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """ResNetV2-50 with masks, unit by unit; ours, not the paper's: 36.8M parameters, 6.4 GMACs."""
    return _create_resattn("resattn50", pretrained, _MEMBER50_ARGS, kwargs)


@register_model
def resattn101(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """ResNetV2-101 with masks, unit by unit; ours, not the paper's: 60.2M parameters, 10.6 GMACs."""
    return _create_resattn("resattn101", pretrained, _MEMBER101_ARGS, kwargs)


@register_model
def resattn50_postact(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """ResNet-50 (timm's, torchvision's) with masks, unit by unit; ours, not the paper's: 36.8M parameters, 6.4 GMACs.

    ``_postact`` is its ``unit_type``: the names without a suffix are pre-activated.
    """
    return _create_resattn("resattn50_postact", pretrained, dict(unit_type="postact", **_MEMBER50_ARGS), kwargs)


@register_model
def resattn101_postact(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """ResNet-101 with masks, unit by unit; ours, not the paper's: 60.2M parameters, 10.6 GMACs.

    For its name see `resattn50_postact`.
    """
    return _create_resattn("resattn101_postact", pretrained, dict(unit_type="postact", **_MEMBER101_ARGS), kwargs)


@register_model
def resattnext50_32x4d(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """ResNeXt-50 32x4d with masks, unit by unit; ours, not the paper's: 36.4M parameters, 6.5 GMACs."""
    return _create_resattn("resattnext50_32x4d", pretrained, dict(**_MEMBER50_ARGS, **_NEXT_ARGS), kwargs)


@register_model
def resattnext101_32x4d(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """ResNeXt-101 32x4d with masks, unit by unit; ours, not the paper's: 59.9M parameters, 10.8 GMACs."""
    return _create_resattn("resattnext101_32x4d", pretrained, dict(**_MEMBER101_ARGS, **_NEXT_ARGS), kwargs)


@register_model
def resattnext101_32x8d(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """ResNeXt-101 32x8d with masks, unit by unit; ours, not the paper's: 114.3M parameters, 20.0 GMACs at 224."""
    return _create_resattn(
        "resattnext101_32x8d", pretrained, dict(**_MEMBER101_ARGS, **dict(_NEXT_ARGS, bottle_ratio=1.0)), kwargs
    )


@register_model
def resattn_inception56(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """AttentionInception-56: a reading of it, the authors published none; see `InceptionUnit`."""
    return _create_resattn(
        "resattn_inception56",
        pretrained,
        dict(depths=(1, 1, 1, 0), unit_type="inception", bottle_ratio=0.09375),
        kwargs,
    )


@register_model
def resattn56_dskip(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-56 in pytorchcv's topology (double skip, trunk added to the mask)."""
    return _create_resattn("resattn56_dskip", pretrained, dict(depths=(1, 1, 1, 0), double_skip=True), kwargs)


@register_model
def resattn92_dskip(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-92 in pytorchcv's topology (double skip, trunk added to the mask)."""
    return _create_resattn("resattn92_dskip", pretrained, dict(depths=(1, 2, 3, 0), double_skip=True), kwargs)


@register_model
def resattn56_cifar(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-56 for 32x32 images."""
    return _create_resattn("resattn56_cifar", pretrained, dict(depths=(1, 1, 1), **_CIFAR_ARGS), kwargs)


@register_model
def resattn92_cifar(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-92 for 32x32 images: 1.8M parameters."""
    return _create_resattn("resattn92_cifar", pretrained, dict(depths=(2, 2, 2), **_CIFAR_ARGS), kwargs)


@register_model
def resattn128_cifar(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-128 for 32x32 images."""
    return _create_resattn("resattn128_cifar", pretrained, dict(depths=(3, 3, 3), **_CIFAR_ARGS), kwargs)


@register_model
def resattn164_cifar(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-164 for 32x32 images."""
    return _create_resattn("resattn164_cifar", pretrained, dict(depths=(4, 4, 4), **_CIFAR_ARGS), kwargs)


@register_model
def resattn236_cifar(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-236 for 32x32 images: 5.1M parameters."""
    return _create_resattn("resattn236_cifar", pretrained, dict(depths=(6, 6, 6), **_CIFAR_ARGS), kwargs)


@register_model
def resattn452_cifar(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-452 (p=2, t=4, r=3) for 32x32 images."""
    return _create_resattn(
        "resattn452_cifar",
        pretrained,
        dict(depths=(6, 6, 6), pre_units=2, trunk_units=4, mask_units=3, **_CIFAR_ARGS),
        kwargs,
    )
