"""Small donors of trunks that several test files share."""

import torch
from helpers import lived_in
from timm.layers import BatchNormAct2d, create_conv2d
from timm.models.resnet import Bottleneck, ResNet
from timm.models.resnetv2 import ResNetV2
from torch import nn

WIDTHS = (32, 64, 128, 256)
WIDTHS_BY_4 = (8, 16, 32, 64)


def resnetv2(layers=(2, 2, 2, 2), channels=WIDTHS, stem_chs=16, **kwargs):
    layer_args = dict(norm_layer=BatchNormAct2d, conv_layer=create_conv2d, num_classes=10)
    return ResNetV2(layers=layers, channels=channels, stem_chs=stem_chs, **{**layer_args, **kwargs})


def small_resnetv2(**kwargs):
    torch.manual_seed(1)
    return lived_in(resnetv2(**kwargs), in_chans=kwargs.get("in_chans", 3))


def cifar_resnetv2(layers=(3, 2, 4)):
    torch.manual_seed(2)
    donor = resnetv2(layers, channels=(64, 128, 256))
    donor.stem = nn.Sequential()
    donor.stem.add_module("conv", create_conv2d(3, 16, 3))
    return lived_in(donor, size=32)


def small_resnext(layers=(2, 3, 2, 2), channels=WIDTHS_BY_4, **kwargs):
    torch.manual_seed(3)
    kwargs = dict(dict(cardinality=4, base_width=32, zero_init_last=False), **kwargs)
    return lived_in(
        ResNet(Bottleneck, layers, channels=channels, num_classes=10, **kwargs),
        in_chans=kwargs.get("in_chans", 3),
    )


# models whose trunks those donors fill
PREACT = dict(widths=WIDTHS, stem_chs=16, num_classes=10)
POSTACT = dict(widths=WIDTHS, unit_type="postact", groups=4, bottle_ratio=0.5, num_classes=10)
POSTACT.update(depths=(1, 2, 1, 1), closing_units=(0, 1, 1, 0), mask_pools=(3, 2, 1, 1))
CIFAR = dict(widths=(64, 128, 256), stem_chs=16, stem_type="cifar", num_classes=10)
CIFAR.update(depths=(1, 1, 1), closing_units=(1, 1, 1), mask_pools=(3, 2, 1))
