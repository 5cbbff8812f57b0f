"""Norms are plain layers: what replaces them by class leaves the function as it is, and any norm of timm's fits."""

import copy
import re

import pytest
import timm
import torch
from helpers import live_in, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import freeze_batch_norm_2d
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from timm_resattn.mask import ATTN_ACTS

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def _torch_sync(model):
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def _lightning_sync(model):
    plugins = pytest.importorskip("lightning.pytorch.plugins.layer_sync")
    return plugins.TorchSyncBatchNorm().apply(model)


def _torchvision_frozen(model):
    """Detectors' way: by class."""
    for parent in list(model.modules()):
        for name, norm in parent.named_children():
            if isinstance(norm, nn.BatchNorm2d):
                frozen = FrozenBatchNorm2d(norm.num_features, norm.eps)
                frozen.load_state_dict(norm.state_dict())
                setattr(parent, name, frozen)
    return model


def _detr_frozen(model):
    detr = pytest.importorskip("transformers.models.detr.modeling_detr")
    with torch.no_grad():
        detr.replace_batch_norm(model)
    return model


TOOLS = [_torch_sync, _lightning_sync, freeze_batch_norm_2d, _torchvision_frozen, _detr_frozen]


@pytest.fixture(scope="module", name="shipped")
def _shipped():
    return timm.create_model("resattn56_cifar", pretrained=True).eval()


@pytest.mark.parametrize("tool", TOOLS)
def test_logits_stay_when_norms_are_replaced(shipped, tool):
    model = tool(copy.deepcopy(shipped)).eval()
    assert not any(type(module) is nn.BatchNorm2d for module in model.modules())
    with torch.no_grad():
        assert torch.allclose(model(X), shipped(X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("feature_cls", ["list", "dict", "hook", "fx", "getter"])
@pytest.mark.parametrize("unit_type", ["preact", "postact"])
def test_stem_map_is_the_activated_one(unit_type, feature_cls):
    kwargs = dict(unit_type=unit_type, stem_type="imagenet", depths=(1,), widths=(16,), closing_units=(1,))
    kwargs.update(mask_pools=(1,), stem_chs=8)
    backbone = timm.create_model("resattn56", features_only=True, feature_cls=feature_cls, **kwargs)
    live_in(backbone)
    model = timm.create_model("resattn56", **kwargs).eval()
    missing = model.load_state_dict(_nested(backbone.state_dict()), strict=False).missing_keys
    assert not any(key.startswith("stem") for key in missing)
    with torch.no_grad():
        maps = backbone(X)
        fmap = next(iter(maps.values())) if isinstance(maps, dict) else maps[0]
        expected = model.stem.act(model.stem.norm(model.stem.conv(X)))
        assert expected.min() == 0 and torch.allclose(fmap, expected, atol=1e-6)
        assert torch.allclose(model.forward_intermediates(X, intermediates_only=True)[0], expected, atol=1e-6)


def _nested(state_dict):
    """Names of the network, from those of whichever wrapper of timm's around it."""
    keys = (
        re.sub(r"^(model|graph_module)\.", "", key).replace("stem_", "stem.").replace("stages_", "stages.")
        for key in state_dict
    )
    return dict(zip(keys, state_dict.values(), strict=True))


@pytest.mark.parametrize("unit_type", ["preact", "postact"])
def test_pruning_keeps_norm_and_activation_only_after_the_last_stage(unit_type):
    model = live_in(tiny(unit_type=unit_type))
    last = model.stages(model.stem(X))
    expected = model.forward_features(X)
    whole, shorter = copy.deepcopy(model), copy.deepcopy(model)
    whole.prune_intermediate_layers([2])
    normed = whole.forward_intermediates(X, indices=[2], norm=True, intermediates_only=True)[0]
    assert torch.equal(normed, expected) and torch.equal(whole(X), expected)
    assert torch.equal(whole.forward_intermediates(X, indices=[2], intermediates_only=True)[0], last)
    shorter.prune_intermediate_layers([1])
    assert isinstance(shorter.norm, nn.Identity) and isinstance(shorter.act, nn.Identity)
    assert torch.equal(shorter(X), model.stages[0](model.stem(X)))


NORMS = ("batchnorm2d", "groupnorm", "groupnorm1", "layernorm2d", "layernorm2dfp32", "rmsnorm2d", "simplenorm2d")


@pytest.mark.parametrize("unit_type", ["preact", "postact", "inception"])
@pytest.mark.parametrize("norm_layer", NORMS)
def test_every_norm_trains(norm_layer, unit_type):
    model = tiny(norm_layer=norm_layer, unit_type=unit_type).train()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    losses = []
    for _ in range(2):
        loss = nn.functional.cross_entropy(model(X), torch.tensor([1, 3]))
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad.abs().max() > 0 for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]


@pytest.mark.parametrize("norm_layer", NORMS)
def test_every_norm_comes_to_life_from_meta(norm_layer):
    model = tiny(norm_layer=norm_layer, device="meta").to_empty(device="cpu")
    for tensor in model.state_dict().values():
        tensor.fill_(77)
    model.init_weights()
    assert not any((tensor == 77).any() for tensor in model.state_dict().values())


@settings(max_examples=25, deadline=None)
@given(
    widths=st.tuples(*[st.sampled_from([8, 12, 20, 24, 32, 40])] * 2),
    stem_chs=st.sampled_from([1, 2, 3, 8, 12]),
    unit_type=st.sampled_from(["preact", "postact", "inception"]),
    batch=st.integers(1, 2),
)
def test_group_norm_in_narrow_networks_down_to_one_pixel(widths, stem_chs, unit_type, batch):
    model = tiny(widths=widths, stem_chs=stem_chs, unit_type=unit_type, norm_layer="groupnorm")
    size = model.min_input_size  # the lowest maps of the masks have one pixel
    for train in (True, False):
        assert model.train(train)(torch.randn(batch, 3, size, size)).isfinite().all()


def test_group_norm_has_groups_of_two_or_more():
    model = tiny(widths=(64, 384), norm_layer="groupnorm")
    norms = [module for module in model.modules() if isinstance(module, nn.GroupNorm)]
    assert {(norm.num_channels, norm.num_groups) for norm in norms} == {(16, 8), (64, 32), (96, 32), (384, 32), (8, 4)}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("attn_act", ["channel", "spatial"])
@settings(max_examples=30, deadline=None)
@given(scale=st.sampled_from([0.0, 1e-6, 1e-4, 1.0, 300.0, 6e4]), seed=st.integers(0, 99))
def test_mask_activations_in_half_precision(attn_act, dtype, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    z = (scale * (2 * torch.rand(2, 7, 5, 3, generator=generator) - 1)).to(dtype).requires_grad_()
    mask = ATTN_ACTS[attn_act]()(z)
    assert mask.dtype == dtype and mask.isfinite().all()
    if scale >= 1:  # the gradient goes with 1 / scale, out of float16's range for the smallest logits
        mask.sum().backward()
        assert z.grad.isfinite().all()
    exact = ATTN_ACTS[attn_act]()(z.detach().double())
    assert torch.allclose(mask.double(), exact, atol=torch.finfo(dtype).eps)
    if attn_act == "channel" and scale > 0:
        length = mask.double().norm(dim=1)
        assert torch.allclose(length, torch.ones_like(length), atol=2 * torch.finfo(dtype).eps)
