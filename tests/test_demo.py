import sys

import pytest
import torch

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
pytest.importorskip("tqdm")

from timm_resattn import demo
from timm_resattn.cli import main
from timm_resattn.demo import load_digits, run_demo


def test_a_third_of_each_class_is_held_out():
    images, labels, held_out_images, held_out_labels = load_digits()
    assert images.shape == (1198, 1, 32, 32) and held_out_images.shape == (599, 1, 32, 32)
    assert images.min() == 0 and images.max() == 1
    share = held_out_labels.bincount() / (labels.bincount() + held_out_labels.bincount())
    assert share.sub(1 / 3).abs().max() < 0.01
    assert torch.equal(load_digits()[2], held_out_images)


@pytest.mark.slow
def test_training_lowers_the_loss_and_writes_a_picture(tmp_path):
    from PIL import Image

    path = tmp_path / "demo.png"
    result = run_demo(epochs=2, seed=0, path=path, device="cpu")
    assert result.num_held_out == 599 and 0 <= result.accuracy <= 1
    assert result.losses[0] < 2.5 and result.losses[1] < 0.85 * result.losses[0]
    with Image.open(path) as picture:
        assert picture.width > 1000 and picture.height > 600
    assert 50_000 < path.stat().st_size < 4_000_000
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_the_default_reads_more_than_95_percent(tmp_path):
    result = run_demo(path=tmp_path / "demo.png")
    assert result.accuracy > 0.95


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(epochs=0), "epochs must be at least 1"),
        (dict(path="demo.xyz"), "suffix must be one of"),
        (dict(path="no_such_folder/demo.png"), "does not exist"),
    ],
)
def test_bad_arguments_are_refused_before_training(arguments, message, monkeypatch):
    monkeypatch.setattr(demo, "train", None)
    with pytest.raises(ValueError, match=message):
        run_demo(**arguments)


@pytest.mark.parametrize("module", ["matplotlib", "sklearn", "tqdm"])
def test_a_missing_extra_is_named(module, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["demo", "--epochs", "1", "--out", str(tmp_path / "demo.png")]) == 2
    assert 'pip install "timm-resattn[demo]"' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
