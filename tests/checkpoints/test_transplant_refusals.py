"""Donors and models of which a transplant makes no network that computes the donor's function."""

from functools import partial

import pytest
import torch
from donors import POSTACT, PREACT, WIDTHS, WIDTHS_BY_4, resnetv2, small_resnetv2
from timm.layers import GroupNormAct
from timm.models.resnet import BasicBlock, Bottleneck, ResNet

from timm_resattn import ResAttn
from timm_resattn.attention import AttentionModule
from timm_resattn.checkpoints.transplant import transplant_trunk


@pytest.mark.parametrize(
    ("donor_args", "model_args", "message"),
    [
        (dict(layers=(6, 2, 2, 2)), dict(), r"The donor has \[6, 2, 2, 2\] .* room for \[5, 5, 5, 3\]\."),
        (dict(layers=(2, 2, 2), channels=WIDTHS[:3]), dict(), r"has \[2, 2, 2\] .* room for \[5, 5, 5, 3\]"),
        (dict(basic=True), dict(), r"another network .* missing: .*stages\.3\.blocks\.1\.conv3\.weight"),
        (dict(stem_type="deep"), dict(), r"missing: stem\.conv\.weight; unexpected: stem\.conv1\.weight, "),
        (dict(preact=False), dict(), r"missing: norm\.weight, .*unexpected: stem\.norm\.weight, .*wrongly shaped: "),
        (
            dict(norm_layer=partial(GroupNormAct, num_groups=4)),
            dict(),
            "no running statistics: only batch norm",
        ),
        (dict(stem_chs=24), dict(), r"wrongly shaped: stem\.conv\.weight \(24, 3, 7, 7\) instead of \(16, 3, 7, 7\)"),
        (
            dict(),
            dict(widths=(32, 64, 128, 128)),
            r"wrongly shaped: .*stages\.3\.blocks\.1\.conv3\.weight \(256, 64, 1, 1\) instead of",
        ),
        (dict(), dict(groups=2), r"wrongly shaped: .*conv2\.weight \(8, 8, 3, 3\) instead of \(8, 4, 3, 3\)"),
        (dict(), dict(stem_type="cifar"), r"wrongly shaped: stem\.conv\.weight"),
        (dict(), dict(unit_type="postact"), r"must be 'preact' \(ResNetV2\)"),
        (dict(), dict(unit_type="inception", bottle_ratio=0.125), r"must be 'preact' \(ResNetV2\)"),
        (dict(), dict(attn_act="channel", attn_residual=False), "no neutral mask"),
        (dict(), dict(pool_mode="ceil"), "must have pool_mode='pad'"),
        (dict(), dict(act_layer="silu"), "act_layer='relu'"),
        (dict(), dict(norm_layer="groupnorm1"), "norm_layer='batchnorm2d'"),
    ],
)
def test_refuses_resnetv2(donor_args, model_args, message):
    donor = resnetv2(**donor_args).state_dict()
    with pytest.raises(ValueError, match=message):
        transplant_trunk(donor, ResAttn(**{**PREACT, **model_args}))


@pytest.mark.parametrize(
    ("donor_args", "model_args", "message"),
    [
        (dict(layers=(2, 11, 2, 2)), dict(), r"has \[2, 11, 2, 2\] .* room for \[5, 10, 6, 5\]"),
        (dict(block_args=dict(attn_layer="se")), dict(), r"unexpected: layer1\.0\.se\.fc1\.weight"),
        (
            dict(stem_type="deep", avg_down=True),
            dict(),
            r"missing: conv1\.weight, .*unexpected: conv1\.0\.weight, ",
        ),
        (
            dict(cardinality=8, base_width=16),
            dict(),
            r"wrongly shaped: layer1\.0\.conv2\.weight \(16, 2, 3, 3\) instead of \(16, 4",
        ),
        (dict(), dict(unit_type="preact"), r"must be 'postact' \(ResNet, ResNeXt\)"),
        (dict(), dict(attn_act="channel", attn_residual=False), "no neutral mask"),
        (dict(), dict(pool_mode="ceil"), "must have pool_mode='pad'"),
    ],
)
def test_refuses_resnext(donor_args, model_args, message):
    kwargs = dict(layers=(2, 3, 2, 2), channels=WIDTHS_BY_4, cardinality=4, base_width=32)
    kwargs.update(donor_args)
    with pytest.raises(ValueError, match=message):
        transplant_trunk(ResNet(Bottleneck, **kwargs).state_dict(), ResAttn(**{**POSTACT, **model_args}))


def test_refuses_basic_blocks_of_resnet():
    donor = ResNet(BasicBlock, (2, 2, 2, 2), channels=WIDTHS).state_dict()
    with pytest.raises(ValueError, match=r"missing: layer1\.0\.conv3\.weight"):
        transplant_trunk(donor, ResAttn(**POSTACT))


def test_lists_all_that_does_not_fit_at_once():
    donor = small_resnetv2().state_dict()
    donor["extra"] = donor.pop("norm.bias")
    donor.pop("head.fc.weight")
    donor["stages.2.blocks.1.conv1.weight"] = torch.zeros(())
    with pytest.raises(ValueError, match="another network") as refusal:
        transplant_trunk(donor, ResAttn(**PREACT))
    for problem in (
        "missing: norm.bias; unexpected: extra; wrongly shaped: ",
        "stages.2.blocks.1.conv1.weight () instead of (32, 128, 1, 1)",
    ):
        assert problem in str(refusal.value)


@pytest.mark.parametrize("state_dict", [{}, {"fc.weight": torch.zeros(2, 2)}])
def test_refuses_what_it_does_not_know(state_dict):
    with pytest.raises(ValueError, match="neither those of timm's ResNetV2 nor"):
        transplant_trunk(state_dict, ResAttn(**PREACT))


def test_own_weights_are_no_donor():
    model = ResAttn(**PREACT)
    assert any(isinstance(module, AttentionModule) for module in model.modules())
    with pytest.raises(ValueError, match="neither"):
        transplant_trunk(model.state_dict(), model)
