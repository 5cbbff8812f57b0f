"""Deepening: the deeper network computes the shallower one's function, and all of it can be trained."""

import copy
import re

import pytest
import timm
import torch
from helpers import images, live_in, lived_in, relative_error, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

import timm_resattn  # noqa: F401  registers the models
from timm_resattn.checkpoints import deepen

OPTIONS = [
    dict(),
    dict(attn_residual=False),
    dict(attn_act="channel"),
    dict(attn_act="spatial"),
    dict(unit_type="postact"),
    dict(unit_type="postact", attn_residual=False, groups=4),
    dict(mask_type="local_conv"),
    dict(mask_type="none"),
    dict(double_skip=True),
    dict(pre_units=0, trunk_units=1),
    dict(pre_units=2, mask_units=2),
    dict(closing_units=(2, 0)),
    dict(stem_type="imagenet"),
    dict(num_classes=0),
]


def deepened(shallow, **kwargs):
    """The network of these arguments with the function of ``shallow``, in double precision."""
    torch.manual_seed(1)
    deep = tiny(**kwargs).double().eval()
    deep.load_state_dict(deepen(shallow.state_dict(), deep))
    return deep


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("depths", [(2, 3), (1, 2), (3, 1)])
def test_the_function_stays(options, depths):
    torch.manual_seed(0)
    shallow = lived_in(tiny(**options)).double()
    deep = deepened(shallow, **{**options, "depths": depths})
    for size in (64, 45):
        x = images(size).double()
        wanted = shallow(x)
        assert wanted.std(0).max() > 1e-3 * wanted.abs().max()  # it tells images apart
        assert relative_error(deep(x), wanted) < 1e-12


@settings(deadline=None, max_examples=30)
@given(
    before=st.tuples(*[st.integers(0, 2)] * 3),
    more=st.tuples(*[st.integers(0, 2)] * 3),
    closing=st.tuples(*[st.integers(0, 2)] * 3),
    unit_type=st.sampled_from(["preact", "postact"]),
)
def test_any_depths(before, more, closing, unit_type):
    options = dict(widths=(8, 16, 32), mask_pools=(1, 1, 1), closing_units=closing, unit_type=unit_type)
    shallow = live_in(tiny(**options, depths=before)).double()
    deep = deepened(shallow, **options, depths=[a + b for a, b in zip(before, more, strict=True)])
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert relative_error(deep(x), shallow(x)) < 1e-12


def test_the_cifar_networks():
    shallow = live_in(timm.create_model("resattn56_cifar"))
    deep = timm.create_model("resattn92_cifar").eval()
    deep.load_state_dict(deepen(shallow.state_dict(), deep))
    x = torch.randn(2, 3, 32, 32)
    assert relative_error(deep(x), shallow(x)) < 1e-4


def test_as_many_modules_are_the_network_itself():
    shallow = live_in(tiny())
    new = deepen(shallow.state_dict(), tiny())
    assert list(new) == list(shallow.state_dict())
    assert all(torch.equal(new[name], tensor) for name, tensor in shallow.state_dict().items())


def test_batch_statistics_give_the_same_function():
    torch.manual_seed(0)
    shallow = live_in(tiny()).double()
    deep = deepened(shallow, depths=(2, 2))
    x = torch.randn(8, 3, 32, 32, dtype=torch.float64)
    # the norms' epsilon is told by the running variances, which differ from the batch's
    assert relative_error(deep.train()(x), shallow.train()(x)) < 1e-3


def test_all_of_it_trains():
    torch.manual_seed(0)
    shallow = live_in(tiny())
    deep = deepened(shallow, depths=(2, 2)).float().train()
    optimizer = torch.optim.SGD(deep.parameters(), lr=0.1)
    x, y = torch.randn(8, 3, 32, 32), torch.arange(8) % 5
    for step in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(deep(x), y).backward()
        for stage in deep.stages:
            moving = [name for name, p in stage.blocks[2].named_parameters() if p.grad.abs().max() > 0]
            if step:
                assert len(moving) == len(list(stage.blocks[2].parameters()))
            else:
                assert {name.split(".", 2)[-1] for name in moving} == {"conv3.weight", "conv2.weight"}
        optimizer.step()


def test_nothing_is_modified():
    shallow, deep = live_in(tiny()), tiny(depths=(2, 2))
    before = copy.deepcopy(shallow.state_dict()), copy.deepcopy(deep.state_dict())
    deepen(shallow.state_dict(), deep)
    for network, state in zip((shallow, deep), before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


TOO_MANY = (
    "Stage 0 has 2 blocks, 1 of them Attention Modules, and must not have fewer modules than it had; "
    "the weights have 3 blocks there."
)


@pytest.mark.parametrize(
    ("shallow", "deep", "message"),
    [
        (dict(depths=(2, 1)), dict(), TOO_MANY),
        (dict(closing_units=(1, 1)), dict(), TOO_MANY),
        (
            dict(num_classes=7),
            dict(depths=(2, 1)),
            "wrongly shaped: head.fc.weight (7, 32) instead of (5, 32), head.fc.bias",
        ),
        (dict(mask_type="none"), dict(depths=(2, 1)), "missing: stages.0.blocks.1.mask"),
        (dict(), dict(depths=(2, 1), mask_type="none"), "unexpected: stages.0.blocks.1.mask"),
        (dict(), dict(norm_layer="groupnorm1"), "must have units of type 'preact' or 'postact' with norm_layer="),
        (dict(), dict(unit_type="inception"), "must have units of type 'preact' or 'postact' with norm_layer="),
    ],
)
def test_other_networks_are_refused(shallow, deep, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        deepen(tiny(**shallow).state_dict(), tiny(**deep))


def test_modules_in_front_of_a_stage_without_projection_are_refused():
    shallow, deep = tiny(), tiny(depths=(2, 1))
    for network in (shallow, deep):
        network.stages[1].blocks[0].downsample = None
    with pytest.raises(ValueError, match="Stage 1 must begin with a projection"):
        deepen(shallow.state_dict(), deep)
