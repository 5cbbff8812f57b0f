"""Residual Attention Network.

Paper: `Residual Attention Network for Image Classification` - https://arxiv.org/abs/1704.06904 (CVPR 2017)

The ImageNet networks follow the authors' published Caffe definitions layer by layer
(https://github.com/fwang91/residual-attention-network). Deviations from them and from the paper:

* max pooling pads by one pixel, as every PyTorch network does; ``pool_mode="ceil"`` is the authors' Caffe pooling;
* stem, widths and number of poolings of the CIFAR networks are not published: they are inferred from the published
  parameter counts;
* the unit of AttentionInception-56 is not published: see `InceptionUnit`;
* depths 128 and more at ImageNet size continue Attention-92's ``(1, 2, 3)`` modules as other ports do.
"""

from collections import OrderedDict
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import count
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Set, Tuple, Union

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import (
    ClassifierHead,
    calculate_drop_path_rates,
    create_conv2d,
    get_device_dtype,
    use_reentrant_ckpt,
)
from timm.models import (
    build_model_with_cfg,
    checkpoint,
    generate_default_cfgs,
    get_pretrained_cfg,
    named_apply,
    register_model,
)
from timm.models._features import feature_take_indices
from torch import nn

from .attention import MASK_TYPES, AttentionModule
from .checkpoints import adapt_state_dict
from .checks import check_choice, check_int, check_ints, check_rate, get_norm_act
from .fold import fold_norm, refuse_training
from .mask import ATTN_ACTS, POOL_MODES, pooled_size
from .shipped import shipped_file
from .units import UNITS, InceptionUnit, PostActUnit, PreActUnit

__all__ = ["ResAttn"]  # register_model adds each entrypoint

STEM_TYPES = ("imagenet", "cifar")
POOL_TYPES = ("", "avg", "max", "avgmax", "catavgmax", "fast", "fastavg", "fastmax", "fastavgmax", "fastcatavgmax")


@contextmanager
def _keep_statistics(module: nn.Module) -> Iterator[None]:
    """Within, training leaves running statistics as they are."""
    norms: List[Any] = [m for m in module.modules() if getattr(m, "track_running_stats", False)]
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, num_batches in kept:
            norm.momentum, norm.num_batches_tracked = momentum, num_batches


def _recomputed(part: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Gradient checkpointing of one part; its norms count a batch once, not again when it is recomputed."""
    if torch.compiler.is_compiling() or use_reentrant_ckpt():
        # recent torch counts it once in compiled code by itself; reentrant checkpointing knows no context
        return checkpoint(part, x)
    return checkpoint(part, x, context_fn=lambda: (nullcontext(), _keep_statistics(part)))


def _checkpoint(blocks: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """Gradient checkpointing of each residual unit and of the masks, alone or inside an Attention Module."""
    for block in blocks:
        x = block.forward_parts(x, _recomputed) if isinstance(block, AttentionModule) else _recomputed(block, x)
    return x


class ResAttnStage(nn.Module):
    """One stage: a residual unit that sets stride and width, Attention Modules, closing residual units.

    Shape: ``(B, in_chs, H, W) -> (B, out_chs, ceil(H / stride), ceil(W / stride))``.

    Args:
        in_chs: Input channels.
        out_chs: Output channels.
        mid_chs: Channels of the units' 3x3 convolution.
        depth: Attention Modules.
        stride: Stride of the first unit.
        first_dilation: Dilation of the first unit, that of the map which it reads.
        dilation: Dilation of what follows.
        groups: Groups of the units' 3x3 convolution.
        drop_path_rates: Stochastic depth of each block; their number is that of the blocks.
        unit: Makes a residual unit from input, output and middle channels.
        module_args: What else an `AttentionModule` is built with.
    """

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        mid_chs: int,
        depth: int,
        stride: int,
        first_dilation: int,
        dilation: int,
        groups: int,
        drop_path_rates: Sequence[float],
        unit: Callable[..., nn.Module],
        module_args: Dict[str, Any],
    ) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.blocks = nn.Sequential()
        for i, rate in enumerate(drop_path_rates):
            if i == 0:
                block = unit(
                    in_chs, out_chs, mid_chs, stride, dilation=first_dilation, groups=groups, drop_path_rate=rate
                )
            elif i <= depth:
                keep = partial(unit, out_chs, out_chs, dilation=dilation, drop_path_rate=rate)
                block = AttentionModule(out_chs, keep, mid_chs, groups=groups, **module_args)
            else:
                block = unit(out_chs, out_chs, mid_chs, dilation=dilation, groups=groups, drop_path_rate=rate)
            self.blocks.add_module(str(i), block)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.grad_checkpointing and not torch.jit.is_scripting():
            return _checkpoint(self.blocks, x)
        return self.blocks(x)


class Stem(nn.Sequential):
    """First layers, by their names ``conv``, ``norm`` and ``pool``; the last two not in every network."""

    def reparameterize(self) -> None:
        """Fold the norm into the convolution."""
        refuse_training(self)
        if hasattr(self, "norm"):
            fold_norm(self, "conv", "norm")


def _create_stem(
    in_chans: int,
    stem_chs: int,
    stem_type: str,
    pool_mode: str,
    preact: bool,
    norm_layer: Callable[..., nn.Module],
    device: Any = None,
    dtype: Any = None,
) -> Stem:
    """``imagenet``: 7x7/2 conv, BN-ReLU, 3x3/2 max pool. ``cifar``: 3x3 conv, and BN-ReLU unless pre-activated."""
    dd = {"device": device, "dtype": dtype}
    stem: OrderedDict[str, nn.Module] = OrderedDict()
    if stem_type == "imagenet":
        stem["conv"] = create_conv2d(in_chans, stem_chs, 7, stride=2, **dd)
        stem["norm"] = norm_layer(stem_chs, **dd)
        stem["pool"] = POOL_MODES[pool_mode]()
    else:
        stem["conv"] = create_conv2d(in_chans, stem_chs, 3, **dd)
        if not preact:
            stem["norm"] = norm_layer(stem_chs, **dd)
    return Stem(stem)


def _min_input_size(stem_type: str, strides: Sequence[int], mask_pools: Sequence[int], pool_mode: str) -> int:
    """Least side of an image for which every mask pooling sees two pixels or more."""

    def holds(size: int) -> bool:
        if stem_type == "imagenet":
            size = (size + 1) // 2
            if size < 2:
                return False
            size = pooled_size(size, pool_mode)
        for stride, pools in zip(strides, mask_pools):
            size = mask_size = -(-size // stride)
            for _ in range(pools):
                if mask_size < 2:
                    return False
                mask_size = pooled_size(mask_size, pool_mode)
        return True

    return next(size for size in count(1) if holds(size))


def _plan_strides(num_stages: int, stem_stride: int, output_stride: int) -> Tuple[List[int], List[int]]:
    """Stride of each stage's first unit, and dilation of the map in front of each stage and behind the last."""
    strides: List[int] = []
    dilations = [1]
    reduction = stem_stride
    for stage_idx in range(num_stages):
        stride = 1 if stage_idx == 0 else 2
        dilate = reduction * stride > output_stride
        strides.append(1 if dilate else stride)
        dilations.append(dilations[-1] * stride if dilate else dilations[-1])
        reduction *= strides[-1]
    return strides, dilations


class ResAttn(nn.Module):
    """Residual Attention Network.

    Shape: image ``(B, in_chans, H, W)`` -> logits ``(B, num_classes)``, for any H and W from 32 up (the least size
    is in ``min_input_size``).

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
            pre_units: Residual units in front of each module's split, and as many behind its product (p).
            trunk_units: Residual units of each module's trunk (t).
            mask_units: Residual units behind each pooling of a mask (r).
            mask_up_units: Residual units behind each sum on a mask's way up.
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
            global_pool: Pooling in front of the classifier; ``""`` (no pooling) needs ``num_classes=0``.
            output_stride: Total stride, 8, 16 or 32: stages beyond it keep their map size and dilate by 2, 4.
            drop_rate: Dropout in front of the classifier.
            drop_path_rate: Stochastic depth: the rate of the last block's residual branches, rising linearly from 0.
            norm_layer: Norm layer, or timm's name of one.
            act_layer: Activation layer, or timm's name of one.
            zero_init_last: Let each residual unit start as its shortcut.
            device: Device of the parameters.
            dtype: Type of the parameters.

        Raises:
            ValueError: An argument is not what it may be; the message names it and the valid choices.
        """
        super().__init__()
        depths = check_ints("depths", depths, 0)
        widths = check_ints("widths", widths, 1, len(depths))
        closing_units = check_ints("closing_units", closing_units, 0, len(depths))
        mask_pools = check_ints("mask_pools", mask_pools, 0, len(depths))
        check_int("pre_units", pre_units, 0)
        check_int("trunk_units", trunk_units, 1)
        check_int("mask_units", mask_units, 1)
        check_int("mask_up_units", mask_up_units, 1)
        check_choice("attn_act", attn_act, tuple(ATTN_ACTS))
        check_choice("attn_residual", attn_residual, (True, False))
        check_choice("mask_type", mask_type, MASK_TYPES)
        check_choice("double_skip", double_skip, (True, False))
        check_choice("pool_mode", pool_mode, tuple(POOL_MODES))
        check_choice("unit_type", unit_type, tuple(UNITS))
        check_int("groups", groups, 1)
        if not isinstance(bottle_ratio, (int, float)) or not bottle_ratio > 0.0:
            raise ValueError(f"bottle_ratio must be a number greater than 0; got {bottle_ratio!r}.")
        check_choice("stem_type", stem_type, STEM_TYPES)
        check_int("stem_chs", stem_chs, 1)
        check_int("num_classes", num_classes, 0)
        check_int("in_chans", in_chans, 1)
        check_choice("global_pool", global_pool, POOL_TYPES)
        check_choice("output_stride", output_stride, (8, 16, 32))
        check_rate("drop_rate", drop_rate)
        check_rate("drop_path_rate", drop_path_rate)
        if double_skip and mask_type != "encoder_decoder":
            raise ValueError(f"double_skip=True needs mask_type='encoder_decoder'; got mask_type={mask_type!r}.")
        if mask_type != "none" and any(m > 0 and pools < 1 for m, pools in zip(depths, mask_pools)):
            raise ValueError(f"mask_pools must be at least 1 where depths is not 0; got {mask_pools} with {depths}.")
        mid_widths = tuple(int(width * bottle_ratio) for width in widths)
        if any(mid_chs < 1 or mid_chs % groups for mid_chs in mid_widths):
            raise ValueError(
                f"widths * bottle_ratio must be positive multiples of groups; got {mid_widths} with groups={groups}."
            )
        if num_classes > 0 and not global_pool:
            raise ValueError(f"global_pool='' (no pooling) needs num_classes=0; got num_classes={num_classes}.")
        norm_layer = get_norm_act(norm_layer, act_layer)

        dd: Dict[str, Any] = {"device": device, "dtype": dtype}
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        preact = UNITS[unit_type].preact

        self.stem: nn.Sequential = _create_stem(in_chans, stem_chs, stem_type, pool_mode, preact, norm_layer, **dd)
        # the stem's feature map is the one in front of the pooling
        stem_feat = "norm" if hasattr(self.stem, "norm") else "conv"
        self.stem_feat_idx = [name for name, _ in self.stem.named_children()].index(stem_feat)
        conv_stride, reduction = (2, 4) if stem_type == "imagenet" else (1, 1)
        feature_info: List[Dict[str, Any]] = [dict(num_chs=stem_chs, reduction=conv_stride, module=f"stem.{stem_feat}")]

        strides, dilations = _plan_strides(len(depths), reduction, output_stride)
        pooled = [pools if m > 0 and mask_type == "encoder_decoder" else 0 for m, pools in zip(depths, mask_pools)]
        self.min_input_size = _min_input_size(stem_type, strides, pooled, pool_mode)
        module_args: Dict[str, Any] = dict(
            preact=preact,
            pre_units=pre_units,
            trunk_units=trunk_units,
            mask_units=mask_units,
            mask_up_units=mask_up_units,
            mask_type=mask_type,
            double_skip=double_skip,
            attn_act=attn_act,
            attn_residual=attn_residual,
            pool_mode=pool_mode,
            min_input_size=self.min_input_size,
            norm_layer=norm_layer,
            **dd,
        )
        num_blocks = [1 + m + closing for m, closing in zip(depths, closing_units)]
        drop_path_rates: Any = calculate_drop_path_rates(drop_path_rate, num_blocks, stagewise=True)
        prev_chs = stem_chs
        self.stages = nn.Sequential()
        for stage_idx, chs in enumerate(widths):
            stage = ResAttnStage(
                prev_chs,
                chs,
                mid_widths[stage_idx],
                depth=depths[stage_idx],
                stride=strides[stage_idx],
                first_dilation=dilations[stage_idx],
                dilation=dilations[stage_idx + 1],
                groups=groups,
                drop_path_rates=drop_path_rates[stage_idx],
                unit=partial(UNITS[unit_type], act_layer=act_layer, norm_layer=norm_layer, **dd),
                module_args=dict(module_args, mask_pools=mask_pools[stage_idx]),
            )
            self.stages.add_module(str(stage_idx), stage)
            prev_chs = chs
            reduction *= strides[stage_idx]
            feature_info.append(dict(num_chs=chs, reduction=reduction, module=f"stages.{stage_idx}"))
        self.feature_info = feature_info

        self.num_features = prev_chs
        self.norm = norm_layer(self.num_features, **dd) if preact else nn.Identity()
        self.head = ClassifierHead(self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate, **dd)
        self.head_hidden_size = self.num_features * self.head.global_pool.feat_mult()
        self.lacks_pool = False
        self.init_weights(zero_init_last=zero_init_last)

    @torch.jit.ignore
    def init_weights(self, zero_init_last: bool = False) -> None:
        """Initialise as He et al. 2015 (fan out); ``zero_init_last`` lets each residual unit start as its shortcut."""
        named_apply(partial(_init_weights, zero_init_last=zero_init_last), self)

    @torch.jit.ignore
    def no_weight_decay(self) -> Set[str]:
        """Names of parameters without weight decay: none beyond what timm's optimisers leave out."""
        return set()

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> Dict[str, Any]:
        """Layer groups for layer decay and freezing: stages if ``coarse``, else residual units and modules."""
        return dict(
            stem=r"^stem",
            blocks=r"^stages\.(\d+)" if coarse else [(r"^stages\.(\d+)\.blocks\.(\d+)", None), (r"^norm", (99999,))],
        )

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute residual units, masks' pyramids and tails in backward, each from the map in front of it."""
        for stage in self.stages.children():
            assert isinstance(stage, ResAttnStage)
            stage.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The linear classifier."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: Optional[str] = None) -> None:
        """Replace the classifier by a fresh one.

        Args:
            num_classes: Classes; 0 removes the classifier.
            global_pool: Pooling in front of it; unchanged if None.

        Raises:
            ValueError: An argument is not what it may be. As timm asks, a classifier behind a head without pooling is
                built here and refused only in `forward_head`.
        """
        check_int("num_classes", num_classes, 0)
        if global_pool is not None:
            check_choice("global_pool", global_pool, POOL_TYPES)
        self.num_classes = num_classes
        self.head.in_features = self.num_features  # pruning changes it
        self.head.reset(num_classes, global_pool, **get_device_dtype(self))
        self.lacks_pool = num_classes > 0 and not self.head.global_pool.pool_type
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
            norm: Apply the final norm to the last stage's map.
            stop_early: Stop behind the last map asked for.
            output_fmt: Only ``"NCHW"``.
            intermediates_only: Return only the maps.

        Returns:
            The result of `forward_features` and the list of maps, or the list alone.
        """
        assert output_fmt == "NCHW", "Output shape must be NCHW."
        intermediates = []
        take_indices, max_index = feature_take_indices(len(self.stages) + 1, indices)

        feat_idx = 0
        stem_feat = x
        for i, layer in enumerate(self.stem):
            x = layer(x)
            if i == self.stem_feat_idx:
                stem_feat = x
        if feat_idx in take_indices:
            intermediates.append(stem_feat)
        last_idx = len(self.stages)
        if torch.jit.is_scripting() or not stop_early:  # TorchScript can't slice a Sequential
            stages = self.stages
        else:
            stages = self.stages[:max_index]
        for feat_idx, stage in enumerate(stages, start=1):
            x = stage(x)
            if feat_idx in take_indices:
                intermediates.append(self.norm(x) if norm and feat_idx == last_idx else x)

        if intermediates_only:
            return intermediates
        if feat_idx == last_idx:
            x = self.norm(x)
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
            self.norm = nn.Identity()  # it fits the last stage only
        self.stages = self.stages[:max_index]
        if max_index == 0:
            self.stem = self.stem[: self.stem_feat_idx + 1]
        if prune_end:
            self.num_features = self.head_hidden_size = self.feature_info[max_index]["num_chs"]
        if prune_head or prune_end:
            self.reset_classifier(0, "")
        return take_indices

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Feature map in front of the pooling: ``(B, in_chans, H, W) -> (B, num_features, H/32, W/32)``."""
        x = self.stem(x)
        x = self.stages(x)
        return self.norm(x)

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """From `forward_features` to logits, or to the pooled features if ``pre_logits``."""
        if self.lacks_pool and not pre_logits:
            raise ValueError("The classifier needs pooled features: reset_classifier(num_classes, 'avg').")
        return self.head(x, pre_logits=pre_logits) if pre_logits else self.head(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits: ``(B, in_chans, H, W) -> (B, num_classes)``."""
        x = self.forward_features(x)
        return self.forward_head(x)


def _init_weights(module: nn.Module, name: str = "", zero_init_last: bool = False) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, mean=0.0, std=0.01)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)):
        module.reset_parameters()  # for a model built on the meta device
    elif zero_init_last and isinstance(module, (InceptionUnit, PostActUnit, PreActUnit)):
        module.zero_init_last()


def checkpoint_filter_fn(state_dict: Dict[str, Any], model: ResAttn) -> Dict[str, torch.Tensor]:
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
        "origin_url": "https://github.com/fwang91/residual-attention-network",
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
    return _cfg(
        **{key: cfg[key] for key in kept if cfg.get(key) is not None},
        hf_hub_id=f"timm/{donor}",
        description=f"Trunk of timm/{donor} ({accuracy}), masks untrained: a start for fine-tuning.",
    )


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


def _create_resattn(variant: str, pretrained: bool = False, **kwargs: Any) -> ResAttn:
    out_indices = tuple(range(len(kwargs["depths"]) + 1))
    return build_model_with_cfg(
        ResAttn,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg=dict(out_indices=out_indices, flatten_sequential=True),
        **kwargs,
    )


_NEXT_ARGS = dict(unit_type="postact", groups=32, bottle_ratio=0.5)
_CIFAR_ARGS = dict(widths=(64, 128, 256), closing_units=(1, 1, 1), mask_pools=(3, 2, 1), stem_type="cifar", stem_chs=16)


@register_model
def resattn56(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-56, the authors' definition: 31.8M parameters, 6.3 GMACs."""
    model_args = dict(depths=(1, 1, 1, 0))
    return _create_resattn("resattn56", pretrained, **dict(model_args, **kwargs))


@register_model
def resattn92(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-92, the authors' definition: 52.5M parameters, 10.5 GMACs."""
    model_args = dict(depths=(1, 2, 3, 0))
    return _create_resattn("resattn92", pretrained, **dict(model_args, **kwargs))


@register_model
def resattn128(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-128 at ImageNet size."""
    model_args = dict(depths=(2, 3, 4, 0))
    return _create_resattn("resattn128", pretrained, **dict(model_args, **kwargs))


@register_model
def resattn164(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-164 at ImageNet size."""
    model_args = dict(depths=(3, 4, 5, 0))
    return _create_resattn("resattn164", pretrained, **dict(model_args, **kwargs))


@register_model
def resattn200(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-200 at ImageNet size."""
    model_args = dict(depths=(4, 5, 6, 0))
    return _create_resattn("resattn200", pretrained, **dict(model_args, **kwargs))


@register_model
def resattn236(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-236 at ImageNet size."""
    model_args = dict(depths=(5, 6, 7, 0))
    return _create_resattn("resattn236", pretrained, **dict(model_args, **kwargs))


@register_model
def resattn452(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-452 (p=2, t=4, r=3) at ImageNet size."""
    model_args = dict(depths=(5, 6, 7, 0), pre_units=2, trunk_units=4, mask_units=3)
    return _create_resattn("resattn452", pretrained, **dict(model_args, **kwargs))


@register_model
def resattnext56_32x4d(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """AttentionNeXt-56, the authors' definition: 31.3M parameters, 6.4 GMACs."""
    model_args = dict(depths=(1, 1, 1, 0), **_NEXT_ARGS)
    return _create_resattn("resattnext56_32x4d", pretrained, **dict(model_args, **kwargs))


@register_model
def resattnext92_32x4d(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """AttentionNeXt-92, the authors' definition: 52.1M parameters, 10.7 GMACs."""
    model_args = dict(depths=(1, 2, 3, 0), **_NEXT_ARGS)
    return _create_resattn("resattnext92_32x4d", pretrained, **dict(model_args, **kwargs))


@register_model
def resattn_inception56(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """AttentionInception-56: a reading of it, the authors published none; see `InceptionUnit`."""
    model_args = dict(depths=(1, 1, 1, 0), unit_type="inception", bottle_ratio=0.09375)
    return _create_resattn("resattn_inception56", pretrained, **dict(model_args, **kwargs))


@register_model
def resattn56_dskip(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-56 in pytorchcv's topology (double skip, trunk added to the mask)."""
    model_args = dict(depths=(1, 1, 1, 0), double_skip=True)
    return _create_resattn("resattn56_dskip", pretrained, **dict(model_args, **kwargs))


@register_model
def resattn92_dskip(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-92 in pytorchcv's topology (double skip, trunk added to the mask)."""
    model_args = dict(depths=(1, 2, 3, 0), double_skip=True)
    return _create_resattn("resattn92_dskip", pretrained, **dict(model_args, **kwargs))


@register_model
def resattn56_cifar(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-56 for 32x32 images."""
    model_args = dict(depths=(1, 1, 1), **_CIFAR_ARGS)
    return _create_resattn("resattn56_cifar", pretrained, **dict(model_args, **kwargs))


@register_model
def resattn92_cifar(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-92 for 32x32 images: 1.9M parameters."""
    model_args = dict(depths=(2, 2, 2), **_CIFAR_ARGS)
    return _create_resattn("resattn92_cifar", pretrained, **dict(model_args, **kwargs))


@register_model
def resattn128_cifar(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-128 for 32x32 images."""
    model_args = dict(depths=(3, 3, 3), **_CIFAR_ARGS)
    return _create_resattn("resattn128_cifar", pretrained, **dict(model_args, **kwargs))


@register_model
def resattn164_cifar(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-164 for 32x32 images."""
    model_args = dict(depths=(4, 4, 4), **_CIFAR_ARGS)
    return _create_resattn("resattn164_cifar", pretrained, **dict(model_args, **kwargs))


@register_model
def resattn236_cifar(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-236 for 32x32 images: 5.1M parameters."""
    model_args = dict(depths=(6, 6, 6), **_CIFAR_ARGS)
    return _create_resattn("resattn236_cifar", pretrained, **dict(model_args, **kwargs))


@register_model
def resattn452_cifar(pretrained: bool = False, **kwargs: Any) -> ResAttn:
    """Attention-452 (p=2, t=4, r=3) for 32x32 images."""
    model_args = dict(depths=(6, 6, 6), pre_units=2, trunk_units=4, mask_units=3, **_CIFAR_ARGS)
    return _create_resattn("resattn452_cifar", pretrained, **dict(model_args, **kwargs))
