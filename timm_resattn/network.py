"""The Residual Attention Network.

Paper: `Residual Attention Network for Image Classification` - https://arxiv.org/abs/1704.06904 (CVPR 2017)

The ImageNet networks follow the authors' published Caffe definitions layer by layer
(https://github.com/fwang91/residual-attention-network). Deviations from them and from the paper:

* max pooling pads by one pixel, as every PyTorch network does; ``pool_mode="ceil"`` is the authors' Caffe pooling;
* stem, widths and number of poolings of the CIFAR networks are not published: they are inferred from the published
  parameter counts;
* the unit of AttentionInception-56 is not published: see `InceptionUnit`;
* depths 128 and more at ImageNet size continue Attention-92's ``(1, 2, 3)`` modules as other ports do.
"""

from functools import partial
from math import gcd
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

import torch
from timm.layers import (
    ClassifierHead,
    GroupNorm,
    calculate_drop_path_rates,
    get_act_layer,
    get_device_dtype,
    get_norm_layer,
)
from timm.models import named_apply
from timm.models._features import feature_take_indices
from torch import nn

from .attention import AttentionModule
from .mask import ATTN_ACTS, POOL_MODES, LocalConvMask, MaskTail, SoftMask, check_size
from .stages import STEM_TYPES, ResAttnStage, create_stem, min_input_size, plan_strides
from .units import UNITS, InceptionUnit, PostActUnit, PreActUnit

__all__ = ["MASK_TYPES", "ResAttn"]

MASK_TYPES = ("encoder_decoder", "local_conv", "none")

torch.fx.wrap("check_size")  # of this file's calls, as in mask.py


def _group_norm(chs: int, **kwargs: Any) -> nn.Module:
    """timm's GroupNorm of 32 groups, or in narrow layers of as many as divide the channels, two or more each."""
    groups = gcd(chs, 32)
    if groups == chs > 1:  # a channel alone on a map of one pixel can't be normalised
        groups //= 2
    return GroupNorm(chs, num_groups=groups, **kwargs)


def _check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}.")


class ResAttn(nn.Module):
    """Residual Attention Network.

    Shape: image ``(B, in_chans, H, W)`` -> logits ``(B, num_classes)``, for any H and W from ``min_input_size`` up,
    which is at most 32 in the networks with a name.

    Stage s holds one residual unit (projecting; stride 1 in the first stage, else 2), ``depths[s]`` Attention Modules
    and ``closing_units[s]`` residual units. Paper symbols: p = ``pre_units``, t = ``trunk_units``,
    r = ``mask_units``, m = ``depths``.
    """

    def __init__(
        self,
        depths: Sequence[int] = (1, 1, 1, 0),
        widths: Sequence[int] = (256, 512, 1024, 2048),
        closing_units: Sequence[int] = (0, 0, 0, 2),
        mask_pools: Sequence[int] = (3, 2, 1, 0),
        pre_units: int = 1,
        trunk_units: int = 2,
        mask_units: int = 1,
        mask_up_units: int = 1,
        attn_act: str = "mixed",
        attn_residual: bool = True,
        mask_type: str = "encoder_decoder",
        double_skip: bool = False,
        pool_mode: str = "pad",
        unit_type: str = "preact",
        groups: int = 1,
        bottle_ratio: float = 0.25,
        stem_type: str = "imagenet",
        stem_chs: int = 64,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        output_stride: int = 32,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        norm_layer: Union[str, Callable[..., nn.Module]] = "batchnorm2d",
        act_layer: Union[str, Callable[..., nn.Module]] = "relu",
        zero_init_last: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        """Build the network.

        Args:
            depths: Attention Modules of each stage (m).
            widths: Output channels of each stage.
            closing_units: Residual units that close each stage.
            mask_pools: Poolings in the masks of each stage; the last stages need none where they have no modules.
            pre_units: Residual units before each module's split, and as many after its product (p).
            trunk_units: Residual units of each module's trunk (t).
            mask_units: Residual units after each pooling of a mask (r).
            mask_up_units: Residual units after each sum on a mask's way up.
            attn_act: Mask activation of logits z at position i, channel c: ``"mixed"``, ``sigmoid(z[i,c])`` (Eq. 4);
                ``"channel"``, ``z[i,c] / ||z[i,:]||`` (Eq. 5); ``"spatial"``,
                ``sigmoid((z[i,c] - mean_c) / std_c)`` (Eq. 6).
            attn_residual: Combine mask M and trunk T by attention residual learning, ``(1 + M) * T`` (Eq. 3), or, if
                false, by naive attention learning, ``M * T`` (Eq. 1).
            mask_type: ``"encoder_decoder"``, the paper's pyramid; ``"local_conv"``, three residual units of the same
                cost without any pooling (Table 4); ``"none"``, the bare trunk, a plain residual network.
            double_skip: Mask topology of pytorchcv and most other ports: every mask skip also adds the raw map, and
                the trunk's output is added to the mask's before its last convolutions.
            pool_mode: 3x3/2 max pooling of stem and masks: ``"pad"``, padding 1 (PyTorch), or ``"ceil"``, no padding
                and rounding up (the authors' Caffe).
            unit_type: Residual unit: ``"preact"``, ``"postact"`` (ResNeXt with ``groups``) or ``"inception"``.
            groups: Groups of the units' 3x3 convolution.
            bottle_ratio: Channels of the units' 3x3 convolution by the unit's output channels.
            stem_type: ``"imagenet"``, 7x7/2 convolution and max pooling, or ``"cifar"``, one 3x3 convolution.
            stem_chs: Channels of the stem.
            num_classes: Classes; 0 removes the classifier.
            in_chans: Input channels.
            global_pool: Pooling before the classifier, timm's name of it; ``""`` (no pooling) needs ``num_classes=0``.
            output_stride: Total stride, 8, 16 or 32: stages beyond it keep their map size and dilate by 2, 4.
            drop_rate: Dropout before the classifier.
            drop_path_rate: Stochastic depth: the rate of the last unit's residual branch, rising linearly from 0 over
                the units of the trunk; a mask's units have that of the last trunk unit beside them.
            norm_layer: Norm layer, or timm's name of one.
            act_layer: Activation layer, or timm's name of one.
            zero_init_last: Let each residual unit start as its shortcut.
            device: Device of the parameters.
            dtype: Type of the parameters.

        Raises:
            ValueError: An argument would build no network, or another than the one asked for.
        """
        super().__init__()
        per_stage = dict(depths=depths, widths=widths, closing_units=closing_units, mask_pools=mask_pools)
        for name, value in per_stage.items():
            if not isinstance(value, Sequence) or len(value) != len(widths):
                raise ValueError(f"{name} must be a sequence of integers, one for each stage of widths; got {value!r}.")
        _check_choice("attn_act", attn_act, tuple(ATTN_ACTS))
        _check_choice("attn_residual", attn_residual, (True, False))
        _check_choice("mask_type", mask_type, MASK_TYPES)
        _check_choice("double_skip", double_skip, (True, False))
        _check_choice("pool_mode", pool_mode, tuple(POOL_MODES))
        _check_choice("unit_type", unit_type, tuple(UNITS))
        _check_choice("stem_type", stem_type, STEM_TYPES)
        _check_choice("output_stride", output_stride, (8, 16, 32))
        if double_skip and mask_type != "encoder_decoder":
            raise ValueError(f"double_skip=True needs mask_type='encoder_decoder'; got mask_type={mask_type!r}.")
        if mask_type != "none" and any(m > 0 and pools < 1 for m, pools in zip(depths, mask_pools)):
            raise ValueError(f"mask_pools must be at least 1 where depths is not 0; got {mask_pools} with {depths}.")

        norm: Any = get_norm_layer(norm_layer)
        norm = _group_norm if norm is GroupNorm else norm
        act: Any = get_act_layer(act_layer)
        dd: Dict[str, Any] = {"device": device, "dtype": dtype}
        layers: Dict[str, Any] = dict(act_layer=act, norm_layer=norm, **dd)
        preact = UNITS[unit_type].preact
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate

        self.stem: nn.Sequential = create_stem(in_chans, stem_chs, stem_type, pool_mode, preact, **layers)
        stem_layers = [name for name, _ in self.stem.named_children()]
        stem_feat = "act" if "act" in stem_layers else "conv"
        self.stem_feat_idx = stem_layers.index(stem_feat)
        conv_stride, reduction = (2, 4) if stem_type == "imagenet" else (1, 1)
        self.feature_info: List[Dict[str, Any]] = [
            dict(num_chs=stem_chs, reduction=conv_stride, module=f"stem.{stem_feat}")
        ]

        strides, dilations = plan_strides(len(depths), reduction, output_stride)
        pooled = [pools if m > 0 and mask_type == "encoder_decoder" else 0 for m, pools in zip(depths, mask_pools)]
        self.min_input_size = min_input_size(stem_type, strides, pooled, pool_mode)
        module_units = 2 * pre_units + trunk_units
        num_units = [1 + m * module_units + closing for m, closing in zip(depths, closing_units)]
        drop_path_rates: Any = calculate_drop_path_rates(drop_path_rate, num_units, stagewise=True)
        mask_args: Dict[str, Any] = dict(
            tail=partial(MaskTail, attn_act=attn_act, preact=preact, **layers),
            mask_units=mask_units,
            mask_up_units=mask_up_units,
        )
        prev_chs = stem_chs
        self.stages = nn.Sequential()
        for stage_idx, chs in enumerate(widths):
            unit_args: Dict[str, Any] = dict(mid_chs=int(chs * bottle_ratio), groups=groups)
            mask: Optional[Callable[..., nn.Module]] = None
            if mask_type == "encoder_decoder":
                mask = partial(
                    SoftMask, double_skip=double_skip, pool_mode=pool_mode, min_input_size=self.min_input_size
                )
            elif mask_type == "local_conv":
                mask = partial(LocalConvMask, **unit_args)
            if mask is not None:
                mask = partial(mask, pools=mask_pools[stage_idx], **mask_args)
            stage = ResAttnStage(
                prev_chs,
                chs,
                depths[stage_idx],
                strides[stage_idx],
                (dilations[stage_idx], dilations[stage_idx + 1]),
                drop_path_rates[stage_idx],
                unit=partial(UNITS[unit_type], **unit_args, **layers),
                module=partial(
                    AttentionModule,
                    mask=mask,
                    pre_units=pre_units,
                    trunk_units=trunk_units,
                    attn_residual=attn_residual,
                ),
                module_units=module_units,
            )
            self.stages.append(stage)
            prev_chs = chs
            reduction *= strides[stage_idx]
            self.feature_info.append(dict(num_chs=chs, reduction=reduction, module=f"stages.{stage_idx}"))

        self.num_features = prev_chs
        self.norm = norm(prev_chs, **dd) if preact else nn.Identity()
        self.act = act() if preact else nn.Identity()
        self.head = ClassifierHead(prev_chs, num_classes, pool_type=global_pool, drop_rate=drop_rate, **dd)
        self.head_hidden_size = self.num_features * self.head.global_pool.feat_mult()
        self.init_weights(zero_init_last=zero_init_last)

    @torch.jit.ignore
    def init_weights(self, zero_init_last: bool = False) -> None:
        """Initialise as He et al. 2015 (fan out); ``zero_init_last`` lets each residual unit start as its shortcut."""
        named_apply(partial(_init_weights, zero_init_last=zero_init_last), self)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> Dict[str, Any]:
        """Layer groups for layer decay and freezing: stages if ``coarse``, else residual units and modules.

        Masks are in the last group, with the head: where a trunk is transplanted they are as fresh as the head, and
        layer decay leaves both their learning rate.
        """
        block = r"^stages\.(\d+)\.blocks\.\d+" if coarse else r"^stages\.(\d+)\.blocks\.(\d+)"
        not_mask = r"\.(?!mask\.)"  # what nothing matches is in the last group
        return dict(stem=r"^stem", blocks=[(block + not_mask, None), (r"^norm", (99999,))])

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute residual units, masks' pyramids and tails in backward, each from the map before it."""
        module: Any
        for module in self.modules():
            if hasattr(module, "grad_checkpointing"):
                module.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The linear classifier."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: Optional[str] = None) -> None:
        """Replace the classifier by a fresh one.

        Args:
            num_classes: Classes; 0 removes the classifier.
            global_pool: Pooling before it; unchanged if None.
        """
        self.num_classes = num_classes
        self.head.in_features = self.num_features  # pruning changes it
        self.head.reset(num_classes, global_pool, **get_device_dtype(self))
        self.head_hidden_size = self.num_features * self.head.global_pool.feat_mult()

    def forward_intermediates(
        self,
        x: torch.Tensor,
        indices: Optional[Union[int, List[int]]] = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Union[List[torch.Tensor], Tuple[torch.Tensor, List[torch.Tensor]]]:
        """Features together with intermediate feature maps.

        Args:
            x: Images ``(B, in_chans, H, W)``.
            indices: Which maps (0 is the stem's, s the one of stage s): the last n if an int, all if None.
            norm: Apply the final norm and activation to the last stage's map.
            stop_early: Stop after the last map asked for.
            output_fmt: Only ``"NCHW"``.
            intermediates_only: Return only the maps.

        Returns:
            The result of `forward_features` and the list of maps, or the list alone.
        """
        assert output_fmt == "NCHW", "Output shape must be NCHW."
        intermediates = []
        take_indices, max_index = feature_take_indices(len(self.stages) + 1, indices)

        feat_idx = 0
        x = check_size(x, self.min_input_size, self.min_input_size)
        for i, layer in enumerate(self.stem):
            x = layer(x)
            if i == self.stem_feat_idx and feat_idx in take_indices:
                intermediates.append(x)
        last_idx = len(self.stages)
        if torch.jit.is_scripting() or not stop_early:  # TorchScript can't slice a Sequential
            stages = self.stages
        else:
            stages = self.stages[:max_index]
        for feat_idx, stage in enumerate(stages, start=1):
            x = stage(x)
            if feat_idx in take_indices:
                intermediates.append(self.act(self.norm(x)) if norm and feat_idx == last_idx else x)

        if intermediates_only:
            return intermediates
        if feat_idx == last_idx:
            x = self.act(self.norm(x))
        return x, intermediates

    def prune_intermediate_layers(
        self,
        indices: Union[int, List[int]] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> List[int]:
        """Drop the layers that the intermediate maps ``indices`` do not need; returns their indices."""
        take_indices, max_index = feature_take_indices(len(self.stages) + 1, indices)
        prune_end = max_index < len(self.stages)
        if prune_norm or prune_end:
            self.norm = self.act = nn.Identity()  # they fit the last stage only
        self.stages = self.stages[:max_index]
        if max_index == 0:
            self.stem = self.stem[: self.stem_feat_idx + 1]
        if prune_end:
            self.num_features = self.head_hidden_size = self.feature_info[max_index]["num_chs"]
        if prune_head or prune_end:
            self.reset_classifier(0, "")
        return take_indices

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Feature map before the pooling: ``(B, in_chans, H, W) -> (B, num_features, H/32, W/32)``."""
        x = check_size(x, self.min_input_size, self.min_input_size)
        x = self.stem(x)
        x = self.stages(x)
        return self.act(self.norm(x))

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """From `forward_features` to logits, or to the pooled features if ``pre_logits``."""
        return self.head(x, pre_logits=pre_logits) if pre_logits else self.head(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits: ``(B, in_chans, H, W) -> (B, num_classes)``."""
        x = self.forward_features(x)
        return self.forward_head(x)


def _init_weights(module: Any, name: str = "", zero_init_last: bool = False) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, mean=0.0, std=0.01)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif zero_init_last and isinstance(module, (InceptionUnit, PostActUnit, PreActUnit)):
        module.zero_init_last()
    elif hasattr(module, "reset_parameters"):  # norms, for a model built on the meta device
        module.reset_parameters()
