"""Every other checkpoint gets in, or is refused with everything that is wrong with it."""

import pytest
import timm
import torch
from helpers import live_in, relative_error, tiny
from pytorchcv.model_provider import get_model

from timm_resattn.checkpoints import adapt_state_dict, from_pytorchcv, read_file, unwrap


@pytest.mark.parametrize(("name", "source"), [("resattn56_dskip", "resattnet56"), ("resattn92_dskip", "resattnet92")])
def test_dskip_is_pytorchcvs_network(name, source):
    reference = live_in(get_model(source))
    model = timm.create_model(name).eval()
    model.load_state_dict(from_pytorchcv(reference.state_dict()), strict=True)
    x = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        expected = reference(x)
        assert relative_error(model(x), expected) < 1e-5
        # the authors' topology is another function of the same weights
        authors = timm.create_model(name.removesuffix("_dskip")).eval()
        authors.load_state_dict(model.state_dict())
        assert relative_error(authors(x), expected) > 1e-3


def test_release_asset_with_other_classes():
    """The public file wraps its weights in "state_dict"; its classifier need not have 1000 classes."""
    reference = get_model("resattnet56", num_classes=11)
    model = timm.create_model("resattn56_dskip", num_classes=11, device="meta")
    adapted = adapt_state_dict({"epoch": 90, "state_dict": reference.state_dict()}, model)
    assert adapted.keys() == model.state_dict().keys()
    assert torch.equal(adapted["head.fc.weight"], reference.output.weight)


def test_from_pytorchcv_lists_everything_wrong_at_once():
    tensors = dict(get_model("resattnet56").state_dict())
    del tensors["features.stage2.unit2.middle_block.conv2.conv.weight"]
    tensors["extra.weight"] = torch.zeros(1)
    tensors["features.post_activ.bn.bias"] = torch.zeros(3)
    with pytest.raises(ValueError, match="resattn56_dskip") as error:
        from_pytorchcv(tensors)
    for part in (
        "missing: features.stage2.unit2.middle_block.conv2.conv.weight",
        "unexpected: extra.weight",
        "wrongly shaped: features.post_activ.bn.bias (3,) instead of (2048,)",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_own_weights_in_any_wrapping(prefix, wrapper):
    model = tiny()
    tensors = {prefix + name: value for name, value in model.state_dict().items()}
    checkpoint = tensors if wrapper is None else {wrapper: tensors, "epoch": 3}
    adapted = adapt_state_dict(checkpoint, tiny())
    assert all(torch.equal(adapted[name], value) for name, value in model.state_dict().items())


def test_own_weights_without_modules_are_no_donor():
    """Their names include all of a ResNetV2's."""
    args = dict(depths=(0, 0), closing_units=(2, 2), mask_type="none", stem_type="imagenet")
    model = live_in(tiny(**args))
    adapted = adapt_state_dict(model.state_dict(), tiny(**args))
    assert all(torch.equal(adapted[name], value) for name, value in model.state_dict().items())


def test_ema_weights_are_preferred():
    model, ema = tiny(), tiny()
    adapted = adapt_state_dict({"state_dict": model.state_dict(), "state_dict_ema": ema.state_dict()}, tiny())
    assert torch.equal(adapted["head.fc.weight"], ema.head.fc.weight)


def test_own_weights_that_do_not_fit_are_listed():
    tensors = dict(tiny().state_dict())
    del tensors["stages.0.blocks.1.mask.tail.conv2.weight"]
    tensors["stages.9.conv.weight"] = torch.zeros(1)
    tensors["norm.bias"] = torch.zeros(4)
    with pytest.raises(ValueError, match="does not fit the model") as error:
        adapt_state_dict(tensors, tiny())
    for part in (
        "missing: stages.0.blocks.1.mask.tail.conv2.weight",
        "unexpected: stages.9.conv.weight",
        "wrongly shaped: norm.bias (4,) instead of (32,)",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("checkpoint", [{}, {"conv.weight": torch.zeros(1)}, {"epoch": 3, "arch": "resattn56"}])
def test_strangers_are_refused(checkpoint):
    with pytest.raises(ValueError, match="The checkpoint"):
        adapt_state_dict(checkpoint, tiny())


def test_a_file_that_holds_itself_is_refused(tmp_path):
    checkpoint = {"epoch": 3}
    checkpoint["model"] = checkpoint
    torch.save(checkpoint, tmp_path / "file.pt")
    with pytest.raises(ValueError, match="holds no weights but epoch, model"):
        unwrap(read_file(tmp_path / "file.pt"))


def test_head_and_stem_may_differ(tmp_path):
    """timm adapts both: classes are dropped, channels summed."""
    path = tmp_path / "weights.safetensors"
    from safetensors.torch import save_file

    source = live_in(timm.create_model("resattn56_cifar"))
    save_file(source.state_dict(), path)
    overlay = dict(pretrained_cfg_overlay=dict(file=str(path)), pretrained=True)
    model = timm.create_model("resattn56_cifar", num_classes=3, in_chans=1, **overlay).eval()
    assert model(torch.randn(1, 1, 32, 32)).shape == (1, 3)
    assert torch.allclose(model.stem.conv.weight, source.stem.conv.weight.sum(1, keepdim=True), atol=1e-6)
    headless = timm.create_model("resattn56_cifar", num_classes=0, **overlay).eval()
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(headless(x), source.forward_head(source.forward_features(x), pre_logits=True))
    backbone = timm.create_model("resattn56_cifar", features_only=True, **overlay).eval()
    assert torch.equal(backbone(x)[-1], source.forward_intermediates(x, intermediates_only=True)[-1])


@pytest.mark.parametrize("name", [n for n in timm.list_pretrained("resattn*") if "dskip" not in n and "cifar" not in n])
def test_donors_data_configuration_is_taken_over(name):
    cfg = timm.get_pretrained_cfg(name)
    donor = timm.get_pretrained_cfg(cfg.hf_hub_id.removeprefix("timm/"))
    keys = [
        "input_size",
        "test_input_size",
        "mean",
        "std",
        "interpolation",
        "crop_pct",
        "test_crop_pct",
        "crop_mode",
        "num_classes",
        "license",
    ]
    assert [getattr(cfg, key) for key in keys] == [getattr(donor, key) for key in keys]
    assert (cfg.first_conv, cfg.classifier) == ("stem.conv", "head.fc")


@pytest.mark.parametrize("head", ["missing", "of another width", "partial"])
def test_a_classifier_that_timm_discards_is_not_required(head):
    tensors = timm.create_model("resattn56_cifar").state_dict()
    if head != "of another width":
        del tensors["head.fc.weight"]
    if head == "missing":
        del tensors["head.fc.bias"]
    kwargs = dict(pretrained=True, pretrained_cfg_overlay=dict(state_dict=tensors), global_pool="catavgmax")
    model = timm.create_model("resattn56_cifar", num_classes=7, **kwargs)
    assert torch.equal(model.stem.conv.weight, tensors["stem.conv.weight"])
    with pytest.raises(RuntimeError, match=r"head\.fc\.weight"):  # with the cfg's classes it is needed
        timm.create_model("resattn56_cifar", **kwargs)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: {"net": tensors, "acc": 95.0},
        lambda tensors: {"state_dict": {f"model.{name}": t for name, t in tensors.items()}, "callbacks": {}},
        lambda tensors: {"n_averaged": torch.tensor(3), **{f"module.{name}": t for name, t in tensors.items()}},
        lambda tensors: {"model_ema": tensors, "state_dict": tiny().state_dict()},
    ],
    ids=["net", "Lightning", "AveragedModel", "order"],
)
def test_wrappings_of_training_tools(wrap):
    model = tiny()
    adapted = adapt_state_dict(wrap(model.state_dict()), tiny())
    assert all(torch.equal(adapted[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("depth", ["56", "92"])
def test_pytorchcvs_weights_need_its_topology(depth):
    tensors = get_model(f"resattnet{depth}").state_dict()
    with pytest.raises(ValueError, match=f"which is resattn{depth}_dskip"):
        adapt_state_dict(tensors, timm.create_model(f"resattn{depth}", device="meta"))
