"""What a checkpoint tells of its network."""

import argparse

import pytest
import timm

from timm_resattn.checkpoints.training_args import trained_with

TAGGED = "resattnext50_32x4d.tv2_in1k"  # another configuration than the default tag's


def sizes(cfg):
    return cfg["input_size"], cfg["test_input_size"], cfg["interpolation"], cfg["crop_pct"]


@pytest.mark.parametrize("checkpoint", [{}, {"args": argparse.Namespace(model=TAGGED)}], ids=["asked", "trained"])
def test_a_tag_has_its_images_configuration(checkpoint):
    name = "resattnext50_32x4d" if checkpoint else TAGGED
    _, overlay = trained_with(checkpoint, "timm", name, 3)
    assert sizes(overlay) == sizes(timm.get_pretrained_cfg(TAGGED).to_dict())
    assert sizes(overlay) != sizes(timm.get_pretrained_cfg("resattnext50_32x4d").to_dict())
    assert overlay["tag"] is None


def test_a_tag_that_nobody_knows():
    args = argparse.Namespace(model="resattn56_cifar.mine")
    _, overlay = trained_with({"args": args}, "timm", "resattn56_cifar", 3)
    assert overlay["input_size"] == (3, 32, 32)


def test_a_bare_trunk_has_its_own_arguments():
    """Its names are a donor's."""
    kwargs = dict(depths=[0, 0, 0], closing_units=[5, 5, 5], act_layer="gelu")
    checkpoint = {"args": argparse.Namespace(model="resattn56_cifar", model_kwargs=kwargs, gp="max")}
    found, _ = trained_with(checkpoint, "donor", "resattn56_cifar", 3)
    assert found == dict(kwargs, global_pool="max")
    assert trained_with(checkpoint, "donor", "resattn56_cifar", 3, transplant=True)[0] == {}
    with pytest.raises(ValueError, match="one of resattn56_cifar, not of resattn92_cifar"):
        trained_with(checkpoint, "donor", "resattn92_cifar", 3)
    donor = {"args": argparse.Namespace(model="resnet50", model_kwargs=dict(act_layer="relu"), gp=None)}
    assert trained_with(donor, "donor", "resattn50_postact", 3)[0] == {}
