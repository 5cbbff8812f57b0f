"""The ImageNet page: its networks exist, its masks-only training is that."""

import re

import pytest
import timm
import torch
from helpers import tiny

from benchmarks.cifar import mask_tuning
from benchmarks.common.provenance import ROOT

PAGE = ROOT / "benchmarks" / "paper" / "imagenet.md"


def test_every_network_of_the_page_exists():
    names = set(re.findall(r"--model (\S+)", PAGE.read_text()))
    assert {"resattn56", "resattn92", "resattn92_masks"} <= names
    assert all(timm.is_model(name) for name in names)


def test_only_the_masks_learn():
    model = mask_tuning.train_masks_only(tiny()).train()
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = timm.optim.create_optimizer_v2(model, opt="sgd", lr=1.0)
    model(torch.randn(4, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed and all(".mask." in name for name in changed)
    assert {name for name, value in model.named_parameters() if value.requires_grad} == {
        n for n in before if ".mask." in n
    }
    tiny().load_state_dict(model.state_dict())


def test_a_network_without_masks_is_refused():
    for model in (tiny(mask_type="none"), tiny(depths=(0, 0))):
        with pytest.raises(ValueError, match="the network has no masks"):
            mask_tuning.train_masks_only(model)


@pytest.mark.parametrize("name", ["resattn92", "resattnext92_32x4d"])
def test_registered_networks_have_the_plain_ones_state(name):
    plain, masked = (timm.create_model(n, device="meta") for n in (name, f"{name}_masks"))
    assert plain.state_dict().keys() == masked.state_dict().keys()
    learning = [n for n, value in masked.named_parameters() if value.requires_grad]
    assert learning and all(".mask." in n for n in learning)
