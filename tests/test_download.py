"""``pretrained=True`` from local places: one clear error, and train.py's ``--pretrained-path``."""

import os

import pytest
import timm
import torch
from helpers import images, relative_error
from safetensors.torch import save_file
from test_transplant import small_resnetv2

import timm_resattn  # noqa: F401  registers the models

SMALL = dict(widths=(32, 64, 128, 256), stem_chs=16)


def load(**kwargs):
    return timm.create_model("resattn56_cifar", pretrained=True, **kwargs)


def message(**kwargs):
    with pytest.raises(RuntimeError) as error:
        load(**kwargs)
    text = str(error.value)
    assert text.startswith("The pretrained weights of resattn56_cifar could not be loaded from the ")
    assert "\n" not in text
    return text.partition("loaded from the ")[2]


def test_missing_file(tmp_path):
    file = tmp_path / "none.pth"
    assert message(pretrained_cfg_overlay=dict(file=str(file))) == f"file {file}: there is no such file."


def test_code_in_a_pickle_is_not_run(tmp_path):
    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "marker"),)

    file = tmp_path / "evil.pth"
    torch.save({"head.fc.weight": Malicious()}, file)
    text = message(pretrained_cfg_overlay=dict(file=str(file)))
    assert text.startswith(f"file {file}: it asks for code to be run (posix.mkdir) and is refused")
    assert not (tmp_path / "marker").exists()


def test_garbage_is_named_and_kept(tmp_path):
    file = tmp_path / "garbage.safetensors"
    file.write_bytes(b"garbage")
    assert message(pretrained_cfg_overlay=dict(file=str(file))).startswith(f"file {file}: ")
    assert file.exists()


def test_folder_without_weights(tmp_path):
    timm.models.save_for_hf(timm.create_model("resattn56_cifar"), tmp_path, safe_serialization=True)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(RuntimeError, match=r"^The pretrained weights of resattn56_cifar .* the folder .*: No suitable"):
        timm.create_model(f"local-dir:{tmp_path}", pretrained=True)


def test_wrong_arguments_and_weights_that_do_not_fit_are_told_as_they_are():
    tensors = timm.create_model("resattn56_cifar").state_dict()
    del tensors["norm.bias"]
    for overlay in (dict(state_dict=tensors), dict(file="none.pth")):
        with pytest.raises(ValueError, match="attn_act must be one of"):
            load(pretrained_cfg_overlay=overlay, attn_act="hard")
        with pytest.raises(TypeError, match="widthz"):
            load(pretrained_cfg_overlay=overlay, widthz=3)
    with pytest.raises(ValueError, match=r"does not fit the model: missing: norm\.bias"):
        load(pretrained_cfg_overlay=dict(state_dict=tensors))


@pytest.mark.parametrize("num_classes", [None, 10, 7])
def test_pretrained_path_of_train_py(tmp_path, num_classes):
    """What timm's train.py builds from ``--pretrained --pretrained-path donor.safetensors``."""
    donor = small_resnetv2()
    save_file(donor.state_dict(), tmp_path / "donor.safetensors")
    model = timm.create_model(
        "resattn92",
        pretrained=True,
        in_chans=3,
        num_classes=num_classes,
        drop_rate=0.0,
        drop_path_rate=None,
        drop_block_rate=None,
        global_pool=None,
        bn_momentum=None,
        bn_eps=None,
        scriptable=False,
        checkpoint_path="",
        pretrained_cfg_overlay=dict(file=str(tmp_path / "donor.safetensors"), num_classes=-1),
        **SMALL,
    ).eval()
    assert model.num_classes == (num_classes or 1000)
    x = images(64)
    with torch.inference_mode():
        assert relative_error(model.forward_features(x), donor.forward_features(x)) < 1e-5
    # the classifier is a fresh one, also with the donor's number of classes
    assert model.head.fc.weight.std().item() == pytest.approx(0.01, rel=0.2)
