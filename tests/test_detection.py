"""The feature pyramid for torchvision's detectors: `tests/libraries/test_torchvision.py` puts it under them."""

import pytest
import timm
import torch
from helpers import live_in
from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from timm_resattn import fpn_backbone

# four stages, as the ImageNet networks have them
SMALL = dict(depths=(1, 1, 1, 0), widths=(16, 24, 32, 40), closing_units=(0, 0, 0, 1), stem_chs=8)
X = torch.randn(2, 3, 70, 93, generator=torch.Generator().manual_seed(3))


def small(name="resattn56", **kwargs):
    return fpn_backbone(name, out_channels=8, **{**SMALL, **kwargs})


def trained_layers(backbone):
    return [name for name, layer in backbone.body.named_children() if any(p.requires_grad for p in layer.parameters())]


@pytest.mark.parametrize("norm", ["frozen", "sync", "batch"])
def test_maps(norm):
    backbone = small(norm=norm).train()
    maps = backbone(X)
    assert [(name, tuple(fmap.shape)) for name, fmap in maps.items()] == [
        ("0", (2, 8, 18, 24)),
        ("1", (2, 8, 9, 12)),
        ("2", (2, 8, 5, 6)),
        ("3", (2, 8, 3, 3)),
        ("pool", (2, 8, 2, 2)),
    ]
    sum(fmap.square().mean() for fmap in maps.values()).backward()
    assert all(p.grad.abs().max() > 0 for p in backbone.parameters())


@pytest.mark.parametrize("out_indices", [(2, 4, 3), [4, 2, 3], (-1, -3, -2)])
def test_indices_are_sorted(out_indices):
    torch.manual_seed(0)
    expected = small(out_indices=(2, 3, 4))
    torch.manual_seed(0)
    backbone = small(out_indices=out_indices, trainable_stages=2)
    assert trained_layers(backbone) == ["stages_2", "stages_3"]
    for fmap, other in zip(backbone(X).values(), expected(X).values(), strict=True):
        assert torch.equal(fmap, other)


def test_extra_blocks():
    maps = small(out_indices=(2, 3, 4), extra_blocks=LastLevelP6P7(8, 8))(X)
    assert list(maps) == ["0", "1", "2", "p6", "p7"]


def test_norms_in_the_pyramid():
    pyramid = small(norm="frozen", norm_layer=nn.BatchNorm2d).fpn
    assert sum(isinstance(m, nn.BatchNorm2d) for m in pyramid.modules()) == 8


STAGES = ["stages_0", "stages_1", "stages_2", "stages_3"]


@pytest.mark.parametrize("norm", ["frozen", "batch"])
@pytest.mark.parametrize(
    ("out_indices", "trainable", "trained"),
    [
        ((1, 2, 3, 4), 0, []),
        ((1, 2, 3, 4), 1, STAGES[3:]),
        ((1, 2, 3, 4), 4, STAGES),
        ((1, 2), 1, STAGES[1:2]),
        ((1, 2, 3, 4), None, ["stem_conv", "stem_norm", *STAGES]),
    ],
)
def test_frozen_stages(out_indices, trainable, trained, norm):
    backbone = small(out_indices=out_indices, trainable_stages=trainable, norm=norm).train()
    assert trained_layers(backbone) == [name for name in trained if norm == "batch" or name != "stem_norm"]
    kept = {name: value.clone() for name, value in backbone.body.state_dict().items()}
    backbone(X)
    changed = {
        name.partition(".")[0] for name, value in backbone.body.state_dict().items() if (value != kept[name]).any()
    }
    assert changed == (set(trained) - {"stem_conv"} if norm == "batch" else set())


@pytest.mark.parametrize("trainable", [-1, 5])
def test_too_many_stages(trainable):
    with pytest.raises(ValueError, match=f"must be from 0 to 4; got {trainable}"):
        small(trainable_stages=trainable)


def test_unknown_norm():
    with pytest.raises(ValueError, match="norm must be one of 'frozen', 'sync', 'batch'; got 'group'"):
        small(norm="group")


def test_norms():
    assert not [m for m in small(norm="frozen").modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    norms = [m for m in small(norm="sync").modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert {type(norm) for norm in norms} == {nn.SyncBatchNorm}
    partly = small(trainable_stages=2, norm="sync").body
    assert any(isinstance(m, FrozenBatchNorm2d) for m in partly["stages_1"].modules())
    assert any(isinstance(m, nn.SyncBatchNorm) for m in partly["stages_2"].modules())


def test_weights_and_their_normalisation():
    """The maps are those of the classifier, and the detector is told what pixels it was trained with."""
    backbone = fpn_backbone("resattn56_cifar", pretrained=True, out_indices=(1, 2, 3)).eval()
    classifier = timm.create_model("resattn56_cifar", pretrained=True).eval()
    maps = classifier.forward_intermediates(X, indices=(1, 2, 3), intermediates_only=True)
    for fmap, expected in zip(backbone.body(X), maps, strict=True):
        assert torch.allclose(fmap, expected, rtol=1e-4, atol=1e-4)
    assert (backbone.image_mean, backbone.image_std) == ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616])


def test_it_scripts():
    backbone = live_in(small())
    with torch.no_grad():
        for fmap, expected in zip(torch.jit.script(backbone)(X).values(), backbone(X).values(), strict=True):
            assert torch.allclose(fmap, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnetv2_50", "convnext_atto"])
def test_other_networks_of_timm(name):
    out_indices = (0, 1, 2, 3) if name == "convnext_atto" else (1, 2, 3, 4)
    detector = RetinaNet(fpn_backbone(name, out_indices=out_indices, trainable_stages=2, out_channels=8), 3)
    targets = [{"boxes": torch.tensor([[5.0, 5.0, 40.0, 30.0]]), "labels": torch.tensor([1])}] * 2
    sum(detector(list(X), targets).values()).backward()
