"""The images of the detection benchmark, its command on a few of them, and the launcher for COCO."""

import json
import sys

import pytest
import torch
import torchvision
from safetensors.torch import load_file
from torchvision.ops import box_iou

from benchmarks.common.provenance import RESULTS
from benchmarks.detection import __main__ as command
from benchmarks.detection import coco, data, train
from benchmarks.detection.detectors import DETECTORS, NUM_CLASSES, build

pytest.importorskip("sklearn")
pytest.importorskip("skimage")


@pytest.fixture(scope="module", name="source")
def _source():
    return data.load("train")


def test_images(source):
    images, targets = data.batch(source, 40, torch.Generator().manual_seed(0))
    again, _ = data.batch(source, 40, torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(images, again, strict=True))
    labels = torch.cat([target["labels"] for target in targets])
    assert set(labels.tolist()) == set(range(1, NUM_CLASSES))
    for image, target in zip(images, targets, strict=True):
        boxes = target["boxes"]
        assert image.shape == (3, data.IMG_SIZE, data.IMG_SIZE) and image.min() >= 0 and image.max() <= 1
        assert boxes.shape == (len(target["labels"]), 4) and 1 <= len(boxes) <= data.MOST_DIGITS
        assert (boxes[:, 2:] > boxes[:, :2]).all() and boxes.min() >= 0 and boxes.max() <= data.IMG_SIZE
        overlaps = box_iou(boxes, boxes)
        assert torch.equal(overlaps, overlaps.diag().diag())


def test_a_box_holds_what_is_drawn(source):
    """A digit on a flat ground changes its box only, from side to side of it."""
    flat = data.Source(source.digits, source.classes, [torch.full((3, 200, 200), 0.6)])
    for seed in range(20):
        (image,), (target,) = data.batch(flat, 1, torch.Generator().manual_seed(seed))
        drawn = (image - 0.6).abs().amax(0) > 1e-3
        inside = torch.zeros_like(drawn)
        for left, top, right, bottom in target["boxes"].int().tolist():
            inside[top:bottom, left:right] = True
            box = drawn[top:bottom, left:right]
            assert box[0].any() and box[-1].any() and box[:, 0].any() and box[:, -1].any()
        assert not drawn[~inside].any()


def test_test_images_have_nothing_in_common_with_training_images(source):
    test = data.load("test")
    assert not set(data.PHOTOGRAPHS["train"]) & set(data.PHOTOGRAPHS["test"])
    assert len(source.digits) + len(test.digits) == 1797


@pytest.mark.parametrize("name", DETECTORS)
def test_detector_learns_one_batch(name, source):
    torch.manual_seed(0)
    detector = build(name).train()
    images, targets = data.batch(source, 2, torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(detector.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        loss = sum(detector(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_precision_of_perfect_detections(source):
    pytest.importorskip("torchmetrics")
    pytest.importorskip("pycocotools")
    _, targets = data.batch(source, 5, torch.Generator().manual_seed(0))
    found = [{**target, "scores": torch.ones(len(target["labels"]))} for target in targets]
    assert train.precision(found, targets) == {"map50": 1.0, "map": 1.0}
    found[0]["labels"] = found[0]["labels"] % 10 + 1
    assert train.precision(found, targets)["map50"] < 1


def test_a_detector_starts_from_the_classifier(tmp_path):
    path = tmp_path / "classifier.safetensors"
    found = train.train_classifier(1, 0, 10, path)
    assert 0 <= found["accuracy"] <= 1
    weights = load_file(path)
    body = build("retinanet", str(path)).backbone.body.state_dict()
    assert torch.equal(body["stages_1.blocks.0.conv1.weight"], weights["stages.1.blocks.0.conv1.weight"])
    assert not torch.equal(
        build("retinanet").backbone.body.state_dict()["stem_conv.weight"], weights["stem.conv.weight"]
    )


@pytest.mark.slow
def test_command(tmp_path):
    pytest.importorskip("pycocotools")
    options = [
        "--steps",
        "2",
        "--classifier-steps",
        "2",
        "--test-images",
        "7",
        "--jobs",
        "1",
        "--out",
        str(tmp_path),
    ]
    command.main(options)
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["configuration"]["steps"] == 2
    for by_start in record["results"].values():
        for result in by_start.values():
            assert 0 <= result["end"]["map50"] <= 1 and result["seconds"] > 0
    assert (tmp_path / "predictions.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "0"], "--steps must be at least 1; got 0"),
        (["--jobs", "-1"], "--jobs must be at least 1; got -1"),
        (["--test-images", "0", "--out", "x"], "--test-images must be at least 1; got 0"),
        (["--out", __file__], "is no folder"),
        (["--classifier-steps", "x"], "invalid int value"),
    ],
)
def test_bad_arguments(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(words)
    assert stop.value.code == 2 and message in capsys.readouterr().err.splitlines()[-1]


def test_the_record_reaches_the_bar():
    record = json.loads((RESULTS / "detection/record.json").read_text())
    results = record["results"]
    assert set(results) == set(DETECTORS)
    assert all(by_start["pretrained"]["end"]["map50"] >= 0.9 for by_start in results.values())
    seconds = [run["seconds"] for by_start in results.values() for run in by_start.values()]
    assert (record["classifier"]["seconds"] + sum(seconds)) / 2 < 15 * 60  # on two cores


def test_models_for_torchvisions_script():
    names = coco.register()
    assert coco.register() == names
    for name, trained in (("retinanet_resattn56_fpn", 5), ("fasterrcnn_resattnext50_32x4d_fpn", None)):
        model = torchvision.models.get_model(
            name, weights=None, weights_backbone=None, num_classes=91, trainable_backbone_layers=trained
        )
        assert all(p.requires_grad for p in model.parameters())
        assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in model.modules())
    with pytest.raises(ValueError, match="give --weights-backbone TAG"):
        torchvision.models.get_model("fcos_resattn56_fpn", weights="DEFAULT")


def test_launcher(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "a_module_beside_it.py").write_text("X = 3\n")
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, torchvision\nfrom a_module_beside_it import X\n"
        "print(X, sys.argv[1:], 'fcos_resattn50_fpn' in torchvision.models.list_models())\n"
    )
    coco.main([str(script), "--data-path", "x"])
    assert capsys.readouterr().out == "3 ['--data-path', 'x'] True\n"
    with pytest.raises(SystemExit) as stop:
        coco.main([str(tmp_path / "gone.py")])
    assert stop.value.code == 2 and "there is no script" in capsys.readouterr().err
