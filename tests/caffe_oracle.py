"""Functional reference of the four published Residual Attention Networks, used as a test oracle.

Source: the authors' published layer definitions of Attention-56, Attention-92, AttentionNeXt-56 and
AttentionNeXt-92 (Wang et al., "Residual Attention Network for Image Classification", CVPR 2017,
arXiv:1704.06904), written down again as plain calls of `torch.nn.functional`. It shares no code with the
package and imports nothing from it, so agreement of the two is evidence for both.

Blobs go by the authors' layer names: a convolution has [weight], with weight (out, in / groups, kh, kw);
a batch normalisation has [scale, shift, mean, variance], each (channels,); the classifier has
[weight, bias], (1000, 2048) and (1000,). A layer `X/bn` normalises the tensor named `X`.
Images are (N, 3, H, W), masks have the shape of their trunk features, logits are (N, 1000).

`Attention-*` are pre-activation networks. `AttentionNeXt-*` are post-activation, with 3x3 convolutions in
32 groups, twice the inner width, and BN after the third convolution and the projection of a unit.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Blobs = dict[str, list[Tensor]]
Layers = dict[str, tuple[str, tuple[int, ...]]]

MODULES = {  # Attention Modules in stages A, B, C
    "Attention-56": (1, 1, 1),
    "Attention-92": (1, 2, 3),
    "AttentionNeXt-56": (1, 1, 1),
    "AttentionNeXt-92": (1, 2, 3),
}
STAGES = (("A", 256, 3), ("B", 512, 2), ("C", 1024, 1))  # letter, width, poolings in the mask


def is_next(name: str) -> bool:
    return name.startswith("AttentionNeXt")


def conv(b: Blobs, name: str, x: Tensor, stride: int = 1, padding: int = 0, groups: int = 1) -> Tensor:
    (weight,) = b[name]
    return F.conv2d(x, weight, None, stride, padding, 1, groups)


def bn(b: Blobs, name: str, x: Tensor) -> Tensor:
    scale, shift, mean, variance = b[name]
    return F.batch_norm(x, mean, variance, scale, shift, training=False, eps=1e-5)


def bn_relu(b: Blobs, name: str, x: Tensor) -> Tensor:
    return F.relu(bn(b, name, x))


def pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 2, padding=0, ceil_mode=True)


def interp(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=True)


def unit_pre(b: Blobs, name: str, source: str, x: Tensor, stride: int = 1, project: bool = False) -> Tensor:
    """Pre-activation residual unit on x, the tensor that the authors call `source`."""
    h = bn_relu(b, f"{source}/bn", x)
    shortcut = conv(b, f"{name}/branch2/conv1_1x1", h, stride) if project else x
    h = conv(b, f"{name}/branch1/conv1_1x1", h)
    h = bn_relu(b, f"{name}/branch1/conv1_1x1/bn", h)
    h = conv(b, f"{name}/branch1/conv2_3x3", h, stride, padding=1)
    h = bn_relu(b, f"{name}/branch1/conv2_3x3/bn", h)
    h = conv(b, f"{name}/branch1/conv3_1x1", h)
    return shortcut + h


def unit_next(b: Blobs, name: str, source: str, x: Tensor, stride: int = 1, project: bool = False) -> Tensor:
    """Post-activation ResNeXt unit on x; `source` is unused, as there is no BN before the unit."""
    shortcut = x
    if project:
        shortcut = conv(b, f"{name}/branch2/conv1_1x1", x, stride)
        shortcut = bn(b, f"{name}/branch2/conv1_1x1/bn", shortcut)
    h = conv(b, f"{name}/branch1/conv1_1x1", x)
    h = bn_relu(b, f"{name}/branch1/conv1_1x1/bn", h)
    h = conv(b, f"{name}/branch1/conv2_3x3", h, stride, padding=1, groups=32)
    h = bn_relu(b, f"{name}/branch1/conv2_3x3/bn", h)
    h = conv(b, f"{name}/branch1/conv3_1x1", h)
    h = bn(b, f"{name}/branch1/conv3_1x1/bn", h)
    return F.relu(shortcut + h)


def soft_mask(b: Blobs, name: str, x: Tensor, trunk: Tensor, poolings: int, post: bool) -> Tensor:
    """Mask of module `name` in [0, 1]; x is the output of the module's first unit."""
    unit = unit_next if post else unit_pre
    down, up = (f"{name}/down", f"{name}/up") if post else (f"{name}/down_sample", f"{name}/up_sample")
    levels, y = {}, x
    for k in range(1, poolings + 1):
        y = unit(b, f"{down}/res{k}_1", f"{down}/pool{k}_3x3_s2", pool(y))
        levels[k] = y
    y = unit(b, f"{down}/res{poolings}_2", f"{down}/res{poolings}_1", y)
    for k in range(poolings - 1, 0, -1):
        skip = unit(b, f"{name}/skip/res{k}", f"{down}/res{k}_1", levels[k])
        y = skip + interp(y, like=levels[k])
        y = unit(b, f"{up}/res{k}_1", f"{up}{k}", y)
    y = interp(y, like=trunk)
    if not post:
        y = bn_relu(b, f"{up}/interp_1/bn", y)
    y = conv(b, f"{name}/linear_1", y)
    y = bn_relu(b, f"{name}/linear_1/bn", y)
    y = conv(b, f"{name}/linear_2", y)
    return torch.sigmoid(y)


def module(b: Blobs, name: str, source: str, x: Tensor, poolings: int, post: bool, capture: dict) -> Tensor:
    """Attention Module on x, the tensor that the authors call `source`."""
    unit = unit_next if post else unit_pre
    first = unit(b, f"{name}/trunk/res1", source, x)
    trunk = unit(b, f"{name}/trunk/res2", f"{name}/trunk/res1", first)
    trunk = unit(b, f"{name}/trunk/res3", f"{name}/trunk/res2", trunk)
    mask = soft_mask(b, f"{name}/mask", first, trunk, poolings, post)
    out = unit(b, name, f"{name}/fusion", trunk * mask + trunk)
    capture[f"{name}/mask"], capture[name] = mask, out
    return out


def caffe_forward(name: str, blobs: Blobs, x: Tensor, capture: dict[str, Tensor] | None = None) -> Tensor:
    """Logits (N, 1000) of network `name` in evaluation mode, computed in the dtype and device of x.

    `capture` receives, under the authors' names: the pooled stem `pool1_3x3_s2`, each mask
    (`AttentionA_1/mask`) and module output (`AttentionA_1`; the last one of a letter is the output of its
    stage), the last unit `post_res_4_3` and, pre-activation only, `post_res_4_3/bn` (after the ReLU), and
    the globally averaged features `ave_pool` (N, 2048).
    """
    post = is_next(name)
    unit = unit_next if post else unit_pre
    capture = {} if capture is None else capture
    b = {layer: [blob.to(x) for blob in values] for layer, values in blobs.items()}

    x = conv(b, "conv1", x, stride=2, padding=3)
    x = bn_relu(b, "conv1/bn", x)
    x = capture["pool1_3x3_s2"] = pool(x)
    source = "pool1_3x3_s2"
    for stage, (letter, _, poolings) in enumerate(STAGES, start=1):
        x = unit(b, f"pre_res_{stage}", source, x, stride=1 if stage == 1 else 2, project=True)
        source = f"pre_res_{stage}"
        for index in range(1, MODULES[name][stage - 1] + 1):
            x = module(b, f"Attention{letter}_{index}", source, x, poolings, post, capture)
            source = f"Attention{letter}_{index}"
    x = unit(b, "post_res_4_1", source, x, stride=2, project=True)
    x = unit(b, "post_res_4_2", "post_res_4_1", x)
    x = capture["post_res_4_3"] = unit(b, "post_res_4_3", "post_res_4_2", x)
    if not post:
        x = capture["post_res_4_3/bn"] = bn_relu(b, "post_res_4_3/bn", x)
    x = capture["ave_pool"] = x.mean((2, 3))
    return F.linear(x, *b["classifier"])


def unit_layers(name: str, source: str, cin: int, cout: int, post: bool, project: bool = False) -> Layers:
    inner, groups = (cout // 2, 32) if post else (cout // 4, 1)
    layers: Layers = {} if post else {f"{source}/bn": ("bn", (cin,))}
    layers[f"{name}/branch1/conv1_1x1"] = ("conv", (inner, cin, 1, 1))
    layers[f"{name}/branch1/conv1_1x1/bn"] = ("bn", (inner,))
    layers[f"{name}/branch1/conv2_3x3"] = ("conv", (inner, inner // groups, 3, 3))
    layers[f"{name}/branch1/conv2_3x3/bn"] = ("bn", (inner,))
    layers[f"{name}/branch1/conv3_1x1"] = ("conv", (cout, inner, 1, 1))
    if post:
        layers[f"{name}/branch1/conv3_1x1/bn"] = ("bn", (cout,))
    if project:
        layers[f"{name}/branch2/conv1_1x1"] = ("conv", (cout, cin, 1, 1))
    if project and post:
        layers[f"{name}/branch2/conv1_1x1/bn"] = ("bn", (cout,))
    return layers


def module_layers(name: str, source: str, c: int, poolings: int, post: bool) -> Layers:
    mask = f"{name}/mask"
    down, up = (f"{mask}/down", f"{mask}/up") if post else (f"{mask}/down_sample", f"{mask}/up_sample")
    units = [(f"{name}/trunk/res1", source)]
    units += [(f"{name}/trunk/res{k}", f"{name}/trunk/res{k - 1}") for k in (2, 3)]
    units += [(f"{down}/res{k}_1", f"{down}/pool{k}_3x3_s2") for k in range(1, poolings + 1)]
    units += [(f"{down}/res{poolings}_2", f"{down}/res{poolings}_1")]
    for k in range(poolings - 1, 0, -1):
        units += [(f"{mask}/skip/res{k}", f"{down}/res{k}_1"), (f"{up}/res{k}_1", f"{up}{k}")]
    layers: Layers = {}
    for unit, unit_source in units:
        layers |= unit_layers(unit, unit_source, c, c, post)
    if not post:
        layers[f"{up}/interp_1/bn"] = ("bn", (c,))
    layers[f"{mask}/linear_1"] = ("conv", (c, c, 1, 1))
    layers[f"{mask}/linear_1/bn"] = ("bn", (c,))
    layers[f"{mask}/linear_2"] = ("conv", (c, c, 1, 1))
    return layers | unit_layers(name, f"{name}/fusion", c, c, post)


def caffe_layers(name: str) -> Layers:
    """Layers with blobs in the authors' order: name -> ("conv" | "bn" | "fc", shape of the first blob)."""
    post = is_next(name)
    layers: Layers = {"conv1": ("conv", (64, 3, 7, 7)), "conv1/bn": ("bn", (64,))}
    source, width = "pool1_3x3_s2", 64
    for stage, (letter, c, poolings) in enumerate(STAGES, start=1):
        layers |= unit_layers(f"pre_res_{stage}", source, width, c, post, project=True)
        source, width = f"pre_res_{stage}", c
        for index in range(1, MODULES[name][stage - 1] + 1):
            layers |= module_layers(f"Attention{letter}_{index}", source, c, poolings, post)
            source = f"Attention{letter}_{index}"
    layers |= unit_layers("post_res_4_1", source, width, 2048, post, project=True)
    layers |= unit_layers("post_res_4_2", "post_res_4_1", 2048, 2048, post)
    layers |= unit_layers("post_res_4_3", "post_res_4_2", 2048, 2048, post)
    if not post:
        layers["post_res_4_3/bn"] = ("bn", (2048,))
    layers["classifier"] = ("fc", (1000, 2048))
    return layers


def random_blobs(name: str, seed: int) -> Blobs:
    """Random weights and BN statistics that keep activations, masks and logits in a useful range.

    Filters have zero sum: otherwise the positive mean of rectified inputs piles up with depth and drowns the
    part that depends on the image. Residual branches are small against their shortcuts, so that rounding
    does not grow with depth: in float32 the logits keep a relative error of a few 1e-6.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(shape: tuple[int, ...], std: float) -> Tensor:
        return torch.randn(shape, generator=generator) * std

    def uniform(shape: tuple[int, ...], low: float, high: float) -> Tensor:
        return torch.rand(shape, generator=generator) * (high - low) + low

    blobs: Blobs = {}
    for layer, (kind, shape) in caffe_layers(name).items():
        if kind == "bn":
            low, high = 0.4, 0.65
            if layer.endswith(("conv1/bn", "branch1/conv1_1x1/bn", "branch1/conv2_3x3/bn")):
                low, high = 0.8, 1.2
            elif layer.endswith("branch1/conv3_1x1/bn"):
                low, high = 0.1, 0.25
            scale, shift = uniform(shape, low, high), normal(shape, 0.1)
            blobs[layer] = [scale, shift, normal(shape, 0.1), uniform(shape, 0.5, 2.0)]
            continue
        weight = normal(shape, math.sqrt(3 / math.prod(shape[1:])))
        weight -= weight.flatten(1).mean(1).view(-1, *[1] * (len(shape) - 1))
        if layer.endswith("branch1/conv3_1x1") and not is_next(name):
            weight *= 0.4  # no BN follows, so the weight sets the size of the residual branch
        blobs[layer] = [weight, normal(shape[:1], 0.1)] if kind == "fc" else [weight]
    return blobs
