"""The formulas of the soft mask and of its combination with the trunk."""

import math

import pytest
import torch
from helpers import TINY_ARGS, relative_error, tiny
from torch import nn

from timm_resattn.mask import ATTN_ACTS, POOL_MODES, SoftMask, pooled_size

Z = torch.tensor([[[[3.0, 0.0]], [[4.0, -2.0]]]])  # one image, two channels, a 1x2 map


def test_mixed_is_the_sigmoid():
    expected = [[1 / (1 + math.exp(-3)), 0.5], [1 / (1 + math.exp(-4)), 1 / (1 + math.exp(2))]]
    assert torch.allclose(ATTN_ACTS["mixed"]()(Z)[0, :, 0], torch.tensor(expected))


def test_channel_is_a_unit_vector_at_each_position():
    # ||(3, 4)|| = 5 and ||(0, -2)|| = 2; no sigmoid, so it can be negative
    assert torch.allclose(ATTN_ACTS["channel"]()(Z)[0, :, 0], torch.tensor([[0.6, 0.0], [0.8, -1.0]]))


def test_spatial_is_a_sigmoid_of_the_standardised_map():
    # each channel's two positions standardise to +1 and -1
    high, low = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1))
    expected = torch.tensor([[high, low], [high, low]])
    assert torch.allclose(ATTN_ACTS["spatial"]()(Z)[0, :, 0], expected, atol=1e-5)


def test_spatial_of_a_constant_map_is_one_half():
    out = ATTN_ACTS["spatial"]()(torch.full((2, 3, 1, 1), 7.0))
    assert torch.equal(out, torch.full((2, 3, 1, 1), 0.5))


@pytest.mark.parametrize("attn_act", ATTN_ACTS)
def test_activations_have_finite_gradients_at_zero(attn_act):
    z = torch.zeros(1, 4, 3, 3, requires_grad=True)
    ATTN_ACTS[attn_act]()(z).square().sum().backward()
    assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize("pool_mode", POOL_MODES)
@pytest.mark.parametrize("size", range(2, 40))
def test_pooled_size(pool_mode, size):
    assert POOL_MODES[pool_mode]()(torch.zeros(1, 1, size, size)).shape[-1] == pooled_size(size, pool_mode)


class _Record(nn.Module):
    """A unit that marks its place: adds a constant and remembers the map that it saw."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def forward(self, x):
        self.seen.append(tuple(x.shape[-2:]))
        return x + 1.0


@pytest.mark.parametrize(
    ("pools", "mask_units", "double_skip", "expected"),
    [
        # x = 0; D1 = r; lowest level D1 + 1
        (1, 1, False, 2),
        (1, 3, False, 4),
        # D1 = 1, D2 = 2, bottom 3, skip D1 + 1 = 2, sum 5, unit 6; the double skip adds D1 again
        (2, 1, False, 6),
        (2, 1, True, 7),
        # D1..D3 = 1, 2, 3, bottom 4, skip2 3 -> 7 + 1 = 8, skip1 2 -> 10 + 1
        (3, 1, False, 11),
    ],
)
def test_pyramid_adds_up(pools, mask_units, double_skip, expected):
    seen = []
    mask = SoftMask(2, lambda: _Record(seen), pools=pools, mask_units=mask_units, double_skip=double_skip)
    y = mask.pyramid(torch.zeros(1, 2, 16, 24))
    assert torch.allclose(y, torch.full_like(y, expected))
    levels = [(16 >> k, 24 >> k) for k in range(1, pools + 1)]
    assert set(seen) == set(levels)
    assert seen.count(levels[-1]) == mask_units + 1  # r + 1 units on the lowest level


def test_units_of_the_three_masks():
    """8, 5 and 2 units in the masks of stages 1, 2, 3 (the authors' definitions)."""
    counts = []
    for pools in (3, 2, 1):
        seen = []
        SoftMask(1, lambda seen=seen: _Record(seen), pools=pools).pyramid(torch.zeros(1, 1, 32, 32))
        counts.append(len(seen))
    assert counts == [8, 5, 2]


def _module(**kwargs):
    return tiny(**kwargs).eval().stages[0].blocks[1]


def _trunk(module, x):
    return module.trunk(module.pre(x))


@pytest.mark.parametrize("attn_act", ATTN_ACTS)
@pytest.mark.parametrize("attn_residual", [True, False])
def test_module_combines_mask_and_trunk(attn_act, attn_residual):
    module = _module(attn_act=attn_act, attn_residual=attn_residual)
    x = torch.randn(2, 16, 13, 9)
    trunk = _trunk(module, x)
    mask = module.mask(module.pre(x), trunk)
    assert mask.shape == trunk.shape
    h = (1 + mask) * trunk if attn_residual else mask * trunk
    assert torch.allclose(module(x), module.post(h), atol=1e-5)
    if attn_act != "channel":
        assert mask.min() >= 0 and mask.max() <= 1


@pytest.mark.parametrize("attn_residual", [True, False])
def test_mask_held_at_zero(attn_residual):
    """ARL then is the trunk alone; NAL is nothing at all."""
    module = _module(attn_residual=attn_residual)
    x = torch.randn(2, 16, 12, 12)
    module.mask.register_forward_hook(lambda m, args, out: torch.zeros_like(out))
    trunk = _trunk(module, x)
    expected = module.post(trunk if attn_residual else torch.zeros_like(trunk))
    assert torch.equal(module(x), expected)


def test_mask_filters_the_trunks_gradient():
    """Eq. 2: dH/dT = M under naive attention learning, 1 + M under attention residual learning."""
    for attn_residual in (True, False):
        module = _module(attn_residual=attn_residual)
        module.post = nn.Identity()
        kept = {}

        def keep(m, args, out, kept=kept):
            kept["trunk"] = out.detach().requires_grad_()
            return kept["trunk"]

        module.trunk.register_forward_hook(keep)
        module.mask.register_forward_hook(lambda m, args, out, kept=kept: kept.setdefault("mask", out.detach()))
        module(torch.randn(1, 16, 12, 12)).sum().backward()
        expected = kept["mask"] + 1 if attn_residual else kept["mask"]
        assert torch.allclose(kept["trunk"].grad, expected)


def test_mask_reads_the_split_not_the_trunk():
    module = _module()
    x = torch.randn(1, 16, 12, 12)
    before = []
    module.mask.register_forward_hook(lambda m, args, out: before.append(out))
    module(x)
    nn.init.normal_(module.trunk[0].conv3.weight)
    module(x)
    assert torch.equal(before[0], before[1])


def test_double_skip_adds_the_trunk_to_the_mask():
    module = _module(double_skip=True)
    x1, trunk = torch.randn(1, 16, 12, 12), torch.randn(1, 16, 12, 12)
    assert torch.allclose(module.mask(x1, trunk), module.mask.tail(module.mask.pyramid(x1) + trunk))


def _conv_weights(module):
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize(
    "unit_args", [dict(), dict(unit_type="postact", groups=32, bottle_ratio=0.5), dict(unit_type="inception")]
)
def test_local_conv_mask_costs_what_the_pyramid_costs(unit_args):
    """Table 4's control: three units without pooling and, within the width's granularity, the same cost."""
    args = dict(widths=(256, 512), **unit_args)
    for stage, pools in enumerate(TINY_ARGS["mask_pools"]):
        pyramid = tiny(device="meta", **args).stages[stage].blocks[1].mask.pyramid
        local = tiny(device="meta", mask_type="local_conv", **args).stages[stage].blocks[1].mask.units
        assert len(local) == 3
        per_unit = _conv_weights(pyramid.up[0])
        units = {1: [2], 2: [3, 2]}[pools]
        macs = per_unit * sum(n / 4**level for level, n in enumerate(units, start=1))
        # half a step of the width: one channel, or one group of the 32 with groups
        assert _conv_weights(local) == pytest.approx(macs, rel=0.07)


def test_no_mask_is_the_bare_residual_network():
    model = tiny(mask_type="none")
    assert not [name for name, _ in model.named_parameters() if "mask" in name]
    module = model.eval().stages[0].blocks[1]
    x = torch.randn(1, 16, 8, 8)
    assert relative_error(module(x), module.post(module.trunk(module.pre(x)))) == 0
