"""The ImageNet page: its hours follow from what was measured, its networks exist, its masks-only training is that."""

import re

import pytest
import timm
import torch
from helpers import tiny

imagenet = pytest.importorskip("benchmarks.imagenet")
mask_tuning = pytest.importorskip("benchmarks.mask_tuning")


def row(network, rate, **changes):
    values = dict(network=network, dtype="autocast", img_size="224", status="ok", images_per_second=str(rate))
    return values | changes


def test_gpu_hours():
    assert imagenet.gpu_hours(1, imagenet.TRAIN_IMAGES / 3600) == pytest.approx(1.0)
    assert imagenet.gpu_hours(300, 1000.0) == pytest.approx(106.76, abs=0.01)


def test_hours_come_from_a_measurement_or_are_not_given():
    nothing = imagenet.as_markdown([])
    assert "No training throughput has been measured on a GPU yet." in nothing and not re.search(r"\d", nothing)
    others = [
        row("resattn56", 9e9, dtype="float32"),
        row("resattn56", 9e9, img_size="448"),
        row("resattn56", 9e9, status="failed"),
    ]
    assert imagenet.as_markdown([*others, row("resattnet56", 9e9)]) == nothing
    text = imagenet.as_markdown([*others, row("resattn56", 500.0), row("resattn56", 1000.0)])
    assert "| `resattn56` | 1000 | 38 / 107 / 214 |" in text and "resattn92" not in text


def test_the_page_is_in_step():
    from benchmarks.readme import with_block

    text = imagenet.PAGE.read_text()
    block = imagenet.as_markdown(imagenet.read_csv(imagenet.THROUGHPUT))
    assert with_block(text, imagenet.COMMAND, block) == text, f"run {imagenet.COMMAND}"


def test_every_network_of_the_page_exists():
    names = set(re.findall(r"--model (\S+)", imagenet.PAGE.read_text()))
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
