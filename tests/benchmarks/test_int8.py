"""The accuracy of int8: what is compared, and what the command refuses."""

import pytest
import torch
from helpers import fine_tuned, random_cifar

from benchmarks.int8 import __main__ as int8
from timm_resattn import capture_masks


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data-dir", "DATA", "--images", "9"], "give --out DIR"),
        (["--data-dir", "NOWHERE", "--out", "OUT"], "holds neither train.npz nor"),
        ([], "--data-dir"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(int8, "require", lambda package: None)
    random_cifar(tmp_path, 4, 4)
    places = {"DATA": tmp_path, "NOWHERE": tmp_path / "nowhere", "OUT": tmp_path / "out"}
    with pytest.raises(SystemExit) as stop:
        int8.main([str(places.get(word, word)) for word in words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_each_runtime_is_compared_with_the_network(monkeypatch):
    """In bfloat16, and of three that are right, wrong by a tenth, and always of the first class, by their logits."""
    model, images = fine_tuned(), torch.randn(100, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(images)
    labels = logits.argmax(1)
    tenth = (0.1 * logits.norm() / (logits - logits.mean(0)).norm()).item()
    first = torch.eye(5)[0]
    monkeypatch.setattr(int8, "onnx_of", lambda model, shape: b"")
    monkeypatch.setattr(int8, "quantized", lambda exported, pictures: b"int8")
    monkeypatch.setattr(int8, "run_onnx", lambda exported, threads: model)
    others = {(): lambda x: 1.1 * model(x), 2: lambda x: first.expand(len(x), 5)}
    monkeypatch.setattr(int8, "in_openvino", lambda exported, dtype, batches=(): others[len(batches) or ()])
    rows = int8.rows_of("tiny", model, images, images, labels)
    assert [row["runtime"] for row in rows] == list(int8.RUNTIMES)
    assert all(row["top1"] == 100 for row in rows)
    assert all(row["same_class"] == row["top1_reduced"] for row in rows)
    half, *others = rows
    assert half["relative_error"] > 0 and half["top1_reduced"] > 50
    assert [row["relative_error"] for row in others[:2]] == pytest.approx([0, tenth], rel=1e-4)
    share = 100 * (labels == 0).double().mean().item()
    assert [row["same_class"] for row in others] == pytest.approx([100, 100, share])
    cells = int8.table([{name: str(row[name]) for name in int8.FIELDS} for row in rows]).splitlines()[4].split(" | ")
    assert cells[1:] == ["OpenVINO, the same file", "100.00", "100.00", "100.00", f"{100 * tenth:.1f}% |"]


def test_the_masks_of_the_network_at_224_are_not_constant():
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model = int8.transplanted(images)
    with capture_masks(model) as masks, torch.no_grad():
        model(images)
    assert all(mask.flatten(2).std(2).mean() > 0.01 for mask in masks.values())
