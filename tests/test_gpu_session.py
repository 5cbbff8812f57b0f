"""Files to and from a GPU machine arrive whole."""

import json
import random
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

gpu_session = pytest.importorskip("benchmarks.gpu_session")

# what the packed set's unpacker does, in small
UNPACKER = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
packed, out = Path(sys.argv[1]), Path(sys.argv[2])
for split in ("train", "test"):
    images = np.concatenate([np.asarray(Image.open(s)) for s in sorted(packed.glob(f"{split}_*.png"))])
    np.savez(out / f"{split}.npz", images=images.reshape(-1, 32, 32, 3), labels=np.load(packed / f"{split}_labels.npy"))
"""


@pytest.fixture
def strips(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "strips"
    (folder / "cifar10").mkdir(parents=True)
    for split, count in (("train", 6), ("test", 2)):
        for i in range(count):
            strip = rng.integers(0, 256, (5 * 32, 32, 3), np.uint8)
            Image.fromarray(strip).save(folder / "cifar10" / f"{split}_{i:03}.png")
        np.save(folder / "cifar10" / f"{split}_labels.npy", np.arange(5 * count) % 10)
    (folder / gpu_session.UNPACKER).write_text(UNPACKER)
    return folder


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_parts_make_the_data(strips, tmp_path, order):
    parts = gpu_session.pack(strips, tmp_path / ".gpu")
    sizes = [sum(file.stat().st_size for file in part.rglob("*.png")) for part in parts]
    assert min(sizes) > 0.3 * sum(sizes)
    data = tmp_path / "data"
    assert [gpu_session.unpack(parts[i], data) for i in order] == [False, True]
    with np.load(data / "train.npz") as arrays:
        assert arrays["images"].shape == (30, 32, 32, 3) and len(arrays["labels"]) == 30
    shutil.rmtree(data)
    gpu_session.pack(strips, tmp_path / ".gpu")  # once more over the old parts
    assert [gpu_session.unpack(parts[i], data) for i in order] == [False, True]


def run_in(folder, finished, size=1000, seed=0):
    folder.mkdir(parents=True)
    content = random.Random(seed).randbytes(size)
    (folder / "last.pt").write_bytes(content)
    (folder / "log.jsonl").write_text("{}\n")
    (folder / "last.pt.part").touch()
    if finished:
        (folder / "result.json").write_text("{}")
        (folder / "ema.safetensors").write_bytes(content)
    return content


def test_runs_come_back_as_they_were(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_session, "PIECE_BYTES", 999)
    done = run_in(tmp_path / "runs" / "done", finished=True)
    going = run_in(tmp_path / "runs" / "paper" / "going", finished=False, seed=1)
    pieces = gpu_session.keep(tmp_path / "runs", tmp_path / "out")
    assert len(pieces) > 2 and all(piece.stat().st_size <= 999 for piece in pieces)
    names = gpu_session.restore(tmp_path / "out", tmp_path / "back")
    assert set(names) == {
        "done/result.json", "done/log.jsonl", "done/ema.safetensors", "paper/going/last.pt", "paper/going/log.jsonl",
    }  # fmt: skip
    assert (tmp_path / "back" / "done" / "ema.safetensors").read_bytes() == done
    assert (tmp_path / "back" / "paper" / "going" / "last.pt").read_bytes() == going
    lost = pieces[1].read_bytes()
    for spoiled in (lost[:-1], lost[:500] + bytes(10) + lost[510:]):
        pieces[1].write_bytes(spoiled)
        with pytest.raises(ValueError, match="holds no whole set of pieces"):
            gpu_session.restore(tmp_path / "out", tmp_path / "none")
    pieces[1].unlink()
    with pytest.raises(ValueError, match="holds no whole set of pieces"):
        gpu_session.restore(tmp_path / "out", tmp_path / "again")


def test_more_than_may_come_back_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_session, "MOST_BYTES", 500)
    run_in(tmp_path / "runs" / "going", finished=False)
    with pytest.raises(SystemExit, match="2"):
        gpu_session.main(["keep", str(tmp_path / "runs"), str(tmp_path / "out")])
    assert "keep fewer" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_epochs_that_fit(tmp_path, capsys):
    rows = [{"images_per_second": 10.0}, {"images_per_second": 20_000.0}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert gpu_session.main(["epochs", str(tmp_path / "log.jsonl"), "500"]) == 0
    assert capsys.readouterr().out == "200\n"
    assert gpu_session.epochs(tmp_path / "log.jsonl", 0.1) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pack", "nowhere"], "STRIPS must hold cifar10/ and unpack_cifar.py; nowhere does not"),
        (["restore", "nowhere", "x"], "nowhere holds no whole set of pieces"),
        (["epochs", "nowhere", "3"], "No such file"),
        (["unpack", "nowhere", "x"], "No such file"),
    ],
)
def test_bad_folders_are_one_sentence(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        gpu_session.main(arguments)
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_the_unpacker_runs_with_this_python(strips, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(gpu_session.subprocess, "run", lambda command, check: seen.append(command))
    for part in gpu_session.pack(strips, tmp_path / ".gpu"):
        gpu_session.unpack(part, tmp_path / "data")
    assert [command[0] for command in seen] == [sys.executable]
