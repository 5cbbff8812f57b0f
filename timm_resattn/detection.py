"""A feature pyramid for torchvision's detectors.

backbone = timm_resattn.fpn_backbone("resattn50", pretrained=True, trainable_stages=3, norm="sync")
detector = FasterRCNN(backbone, num_classes=91, image_mean=backbone.image_mean, image_std=backbone.image_std)
"""

from typing import Any, Callable, Dict, List, Optional, Sequence

import timm
import torch
from timm.data import resolve_model_data_config
from timm.layers import convert_sync_batchnorm, freeze_batch_norm_2d
from timm.utils import freeze
from torch import nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool

from . import resattn  # noqa: F401  registers the networks

__all__ = ["FPNBackbone", "fpn_backbone"]

NORMS = ("frozen", "sync", "batch")


class FPNBackbone(nn.Module):
    """Feature maps of a network, and a feature pyramid on them.

    Shape: images ``(B, in_chans, H, W)`` -> a dictionary of maps ``(B, out_channels, H / reduction, W / reduction)``,
    named ``"0"``, ``"1"``, ... from the finest, then those of the extra blocks.

    Attributes:
        out_channels: Channels of every map.
        image_mean: Mean of the pixels that the weights were trained with; a detector normalises images by it.
        image_std: Their standard deviation.
    """

    def __init__(
        self,
        body: nn.Module,
        out_channels: int,
        extra_blocks: ExtraFPNBlock,
        norm_layer: Optional[Callable[..., nn.Module]] = None,
    ) -> None:
        """Join the two.

        Args:
            body: A network from ``timm.create_model(..., features_only=True)``.
            out_channels: Channels of every map of the pyramid.
            extra_blocks: Maps beyond the coarsest.
            norm_layer: Norm after each convolution of the pyramid.
        """
        super().__init__()
        feature_info: Any = body.feature_info
        data_config = resolve_model_data_config(body)
        self.body = body
        self.fpn = FeaturePyramidNetwork(feature_info.channels(), out_channels, extra_blocks, norm_layer)
        self.out_channels = out_channels
        self.image_mean: List[float] = list(data_config["mean"])
        self.image_std: List[float] = list(data_config["std"])

    def forward(self, x: torch.Tensor) -> Dict[str, torch.Tensor]:
        maps: Dict[str, torch.Tensor] = {}
        for i, fmap in enumerate(self.body(x)):
            maps[str(i)] = fmap
        return self.fpn(maps)


def fpn_backbone(
    name: str,
    pretrained: bool = False,
    out_indices: Sequence[int] = (1, 2, 3, 4),
    trainable_stages: Optional[int] = None,
    norm: str = "frozen",
    out_channels: int = 256,
    extra_blocks: Optional[ExtraFPNBlock] = None,
    norm_layer: Optional[Callable[..., nn.Module]] = None,
    **kwargs: Any,
) -> FPNBackbone:
    """A network with a feature pyramid, as torchvision's FasterRCNN, RetinaNet, FCOS and MaskRCNN take one.

    Torchvision's detectors normalise by ImageNet's mean and deviation unless they are told otherwise: give them the
    backbone's ``image_mean`` and ``image_std``.

    Args:
        name: A network of this package, or any of timm's that has feature maps.
        pretrained: Load its weights.
        out_indices: Feature maps that the pyramid stands on, in any order: 0 is the stem's, s the one of stage s.
        trainable_stages: How many stages train, counted from the coarsest map's; the rest is frozen with its norms.
            None trains all, the stem too.
        norm: ``"frozen"``, norms keep statistics, weight and bias, for weights that were trained; ``"sync"``,
            statistics of the batch over all processes; ``"batch"``, of the batch of each. Masks that were never
            trained, as on a transplanted trunk, have no statistics to keep: not ``"frozen"``.
        out_channels: Channels of the pyramid.
        extra_blocks: Maps beyond the coarsest: ``LastLevelMaxPool()``, if None, or ``LastLevelP6P7(256, 256)``.
        norm_layer: Norm after each convolution of the pyramid, as ``nn.BatchNorm2d``. The maps of networks with
            pre-activated units have none and may be large; the pyramid is easier to train with norms on them.
        **kwargs: Further arguments of ``timm.create_model``.

    Raises:
        ValueError: ``norm`` is none of the three, or there are not as many stages as ``trainable_stages``.
    """
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(map(repr, NORMS))}; got {norm!r}.")
    # timm lists channels in the order asked for, and maps in the network's
    indices = tuple(sorted(out_indices))
    body = timm.create_model(name, pretrained=pretrained, features_only=True, out_indices=indices, **kwargs)
    if norm == "frozen":
        body = freeze_batch_norm_2d(body)
    elif norm == "sync":
        body = convert_sync_batchnorm(body)
    if trainable_stages is not None:
        freeze(body, _layers_before(body, trainable_stages))
    extra_blocks = LastLevelMaxPool() if extra_blocks is None else extra_blocks
    return FPNBackbone(body, out_channels, extra_blocks, norm_layer)


def _layers_before(body: nn.Module, trainable_stages: int) -> List[str]:
    """Names of the layers before the last stages."""
    layers = [name for name, _ in body.named_children()]
    info: Any = body.feature_info
    coarsest = max(index % len(info) for index in info.out_indices)
    if not 0 <= trainable_stages <= coarsest:
        raise ValueError(f"trainable_stages must be from 0 to {coarsest}; got {trainable_stages}.")
    last_frozen = info.module_name(coarsest - trainable_stages)
    return layers[: layers.index(last_frozen.replace(".", "_")) + 1]
