import pytest
import timm
import torch

from timm_resattn.cli import main

TINY_KWARGS = ["depths=(1,1)", "widths=(16,32)", "closing_units=(0,1)", "mask_pools=(2,1)"]


@pytest.fixture
def checkpoint(tmp_path):
    """Arguments that load a tiny network, and an image."""
    from PIL import Image

    kwargs = dict(depths=(1, 1), widths=(16, 32), closing_units=(0, 1), mask_pools=(2, 1))
    model = timm.create_model("resattn56_cifar", **kwargs)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "weights.pth")
    Image.radial_gradient("L").save(tmp_path / "image.png")
    paths = {name: str(tmp_path / name) for name in ("image.png", "weights.pth", "masks.png")}
    options = ["--model", "resattn56_cifar", "--checkpoint", paths["weights.pth"], "--out", paths["masks.png"]]
    return [paths["image.png"], *options, "--model-kwargs", *TINY_KWARGS]


def test_masks_of_a_transplanted_trunk_are_refused(checkpoint, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    weights = torch.load(tmp_path / "weights.pth", weights_only=True)["state_dict"]
    for name in weights:
        if name.endswith("mask.tail.conv2.weight"):
            weights[name].zero_()
    torch.save(weights, tmp_path / "weights.pth")
    assert main(["masks", *checkpoint]) == 2
    assert "untrained masks" in capsys.readouterr().err
    assert not (tmp_path / "masks.png").exists()


def test_a_name_with_dollars(checkpoint, tmp_path):
    """To matplotlib what stands between two is a formula."""
    pytest.importorskip("matplotlib")
    named = (tmp_path / "image.png").rename(tmp_path / "cost_$1_$2.png")
    for figure in ([], ["--figure1"]):
        assert main(["masks", str(named), *checkpoint[1:], *figure]) == 0


def test_masks_draws_over_images(checkpoint, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    from PIL import Image

    assert main(["masks", *checkpoint]) == 0
    assert "masks of 2 Attention Modules over 1 pictures" in capsys.readouterr().out
    with Image.open(tmp_path / "masks.png") as picture:
        one_reduction = picture.width
    assert main(["masks", *checkpoint, "--img-size", "40", "--reduce", "pca", "--reduce", "channel:15"]) == 0
    with Image.open(tmp_path / "masks.png") as picture:
        assert picture.width > 1.4 * one_reduction


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--model", "resattn57"], "Unknown model (resattn57); timm-resattn list prints the names"),
        (["--model", "resnet18"], "could not create resnet18"),
        (["--checkpoint", "", "--no-pretrained"], "masks of random weights mean nothing"),
        (["--checkpoint", "", "--num-classes", "5", "--model-kwargs"], "a classifier of 5 classes is random"),
        (["--class", "10"], "--class must be from 0 to 9; got 10"),
        (["--class", "cat"], "--class must be from 0 to 9; got cat"),
        (["--figure1", "--channel", "16"], "--channel must be from 0 to 15, which all masks have; got 16"),
        (["--checkpoint", "no_such_file.pth"], "no_such_file.pth is not there"),
        (["--checkpoint", __file__], "is no file of torch.save"),
        (["--num-classes", "7"], "size mismatch for head.fc.weight"),
        (["--model-kwargs", *TINY_KWARGS, "mask_type=none"], "weights.pth: The checkpoint does not fit the model"),
        (["--img-size", "1"], "Input image too small"),
        (["--reduce", "median"], "how must be one of 'mean'"),
        (["--reduce", "channel:16", "--reduce", "mean"], "k of channel:<k> must be 0 to 15"),
        (["--out", "no_such_folder/masks.png"], "does not exist"),
        (["--out", "masks.xyz"], "suffix must be one of"),
        (["--img-size", "-3"], "--img-size must be at least 1; got -3."),
    ],
)
def test_masks_reports_one_sentence_and_writes_nothing(extra, message, checkpoint, tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    before = sorted(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    assert main(["masks", *checkpoint, *extra]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("timm-resattn masks: ")
    assert error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_masks_refuses_model_kwargs_without_a_value(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["masks", "image.png", "--model", "resattn56_cifar", "--model-kwargs", "depths"])
    assert "--model-kwargs: must be KEY=VALUE pairs; got depths" in capsys.readouterr().err


def test_masks_refuses_damaged_weights(checkpoint, tmp_path, capsys):
    weights = torch.load(tmp_path / "weights.pth", weights_only=True)["state_dict"]
    weights["norm.bias"][3] = torch.nan
    torch.save(weights, tmp_path / "weights.pth")
    assert main(["masks", *checkpoint]) == 2
    assert "norm.bias is not finite" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrap", [lambda tensors: {"net": tensors}, lambda tensors: {f"model.{k}": t for k, t in tensors.items()}]
)
def test_masks_reads_what_the_other_entrances_read(checkpoint, tmp_path, wrap):
    pytest.importorskip("matplotlib")
    weights = torch.load(tmp_path / "weights.pth", weights_only=True)["state_dict"]
    torch.save(wrap(weights), tmp_path / "weights.pth")
    assert main(["masks", *checkpoint]) == 0


def test_masks_draws_the_others_where_a_picture_cannot_be_read(checkpoint, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert main(["masks", "no_such_image.png", __file__, *checkpoint]) == 1
    printed = capsys.readouterr()
    assert "over 1 pictures" in printed.out
    first, second = printed.err.splitlines()
    assert "no_such_image.png is not there" in first and "cannot identify image file" in second


def test_masks_of_no_readable_picture(checkpoint, tmp_path, capsys):
    assert main(["masks", __file__, *checkpoint[1:]]) == 2
    assert "none of the pictures could be read" in capsys.readouterr().err
    assert not (tmp_path / "masks.png").exists()


def test_figure_1(checkpoint, tmp_path):
    pytest.importorskip("matplotlib")
    from PIL import Image

    heights = []
    for channels in ([], ["--channel", "3"], ["--channel", "3", "--channel", "5"]):
        assert main(["masks", *checkpoint, "--figure1", *channels]) == 0
        with Image.open(tmp_path / "masks.png") as picture:
            heights.append(picture.height)
    assert heights[0] == heights[1] < heights[2]


def test_the_class_is_chosen_by_name_or_number(checkpoint, tmp_path):
    pytest.importorskip("matplotlib")
    image, out = checkpoint[0], tmp_path / "masks.png"
    pictures = {}
    for target in ("frog", "6", "7"):
        argv = ["masks", image, "--model", "resattn56_cifar", "--out", str(out), "--class", target]
        assert main(argv) == 0
        pictures[target] = out.read_bytes()
    assert pictures["frog"] == pictures["6"] != pictures["7"]
