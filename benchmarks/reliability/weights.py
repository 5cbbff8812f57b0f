"""Damaged and hostile files through every entrance: nothing is run, left or lost, and what is damaged is not used.

A file is tried in a child process in a folder of its own, which must be afterwards as it was before.
"""

import contextlib
import hashlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from benchmarks.reliability import damage
from benchmarks.reliability.children import in_child, memory_of
from benchmarks.reliability.damage import CLASSES, KWARGS, MODEL, Damaged, StateDict
from benchmarks.reliability.tally import Tally, WrongError
from timm_resattn import checkpoints, shipped
from timm_resattn.checkpoints import caffe, pytorchcv
from timm_resattn.cli import main

CASES = 500
LARGEST = 512 << 20  # bytes by which reading a file of a megabyte may make the process grow
COMMAND_ARGS = ["--model", MODEL, "--model-kwargs", *(f"{key}={value}" for key, value in KWARGS.items())]


def model_of(**kwargs: Any) -> torch.nn.Module:
    """The network of the files."""
    return timm.create_model(MODEL, num_classes=CLASSES, **KWARGS, **kwargs)


def by_overlay(path: Path) -> StateDict:
    return model_of(pretrained=True, pretrained_cfg_overlay=dict(file=str(path), num_classes=CLASSES)).state_dict()


def by_checkpoint_path(path: Path) -> StateDict:
    return model_of(checkpoint_path=str(path)).state_dict()


def by_load_weights(path: Path) -> StateDict:
    model = model_of()
    checkpoints.load_weights(model, checkpoints.read_file(path))
    return model.state_dict()


class CommandError(Exception):
    """A command's exit code is not 0; what it said."""


def command(*args: str) -> None:
    """Run a command of ours; a `CommandError` of its sentence if it refuses, and an AssertionError if that is none."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main([*args])
    if code:
        error = said.getvalue()
        sentence = error.count("\n") == 1 and error.startswith(f"timm-resattn {args[0]}: ")
        assert code == 2 and sentence, (code, error)  # noqa: PT018
        raise CommandError(error)


def by_convert(path: Path) -> StateDict:
    out = path.parent / "out"
    command("convert", str(path), str(out), *COMMAND_ARGS)
    tensors = load_file(out / "model.safetensors")
    for file in out.iterdir():
        file.unlink()
    out.rmdir()
    return tensors


def image_beside(path: Path) -> Path:
    """The image of the scratch folder, in or above the file's own."""
    return next(folder / "image.png" for folder in path.parents if (folder / "image.png").exists())


def by_masks(path: Path) -> None:
    out = path.parent / "masks.png"
    image = image_beside(path)
    options = ["--checkpoint", str(path), "--num-classes", str(CLASSES), *COMMAND_ARGS]
    command("masks", str(image), *options, "--out", str(out))
    out.unlink()


def by_predict(path: Path) -> None:
    image = image_beside(path)
    command("predict", str(image), "--checkpoint", str(path), "--num-classes", str(CLASSES), *COMMAND_ARGS)


OURS: dict[str, Callable[[Path], StateDict | None]] = {
    "load_weights(read_file(...))": by_load_weights,
    "timm-resattn convert": by_convert,
    "timm-resattn masks --checkpoint": by_masks,
    "timm-resattn predict --checkpoint": by_predict,
}
TIMMS: dict[str, Callable[[Path], StateDict | None]] = {
    "create_model(pretrained_cfg_overlay=...)": by_overlay,
    "create_model(checkpoint_path=...)": by_checkpoint_path,
}
SHIPPED = "shipped weights, create_model(pretrained=True)"


def listing(folder: Path) -> dict[str, str]:
    """All that is in a folder, with the hash of each file."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file() and path.lstat().st_size and path.resolve().parent == folder.resolve()
        else oct(path.lstat().st_mode)
        for path in folder.iterdir()
    }


def verdict(file: Damaged, ours: bool, read: StateDict | None, original: StateDict) -> str:
    """Why it was wrong to read the file, or nothing."""
    if file.whole or file.same_for_all or (ours and file.same_for_ours):
        same = read is None or all(torch.equal(read[name], tensor) for name, tensor in original.items())
        return "" if same else "other weights than were written"
    return "damaged weights are used" if (file.ours_refuse if ours else file.names_refuse) else ""


def try_file(tally: Tally, file: Damaged, folder: Path, original: StateDict) -> None:
    """One file through all entrances, each outcome counted."""
    path = folder / f"weights{file.form}"
    file.make(path)
    before = listing(folder)
    entrances = {**OURS, **TIMMS}

    def work(tell: Callable[[Any], None]) -> None:
        for name, entrance in entrances.items():
            why, error = "", ""
            try:
                read, grown = memory_of(lambda entrance=entrance: entrance(path))
                why = verdict(file, name in OURS, read, original)
            except AssertionError as bad:
                tell([name, "crashed", str(bad)])
                continue
            except Exception as caught:  # of any kind: it is any content
                grown, error = 0, f"{type(caught).__name__}: {caught}"
                if file.whole and not (name in TIMMS and file.form == ".npz"):
                    why = f"refuses whole weights: {error}"
                elif name in OURS and "allocate" in error:
                    why = f"asks for the memory that a damaged file names: {error}"
                elif name in OURS and not str(caught).strip():
                    why = "refuses without a word"
            if grown > LARGEST and name in OURS:
                why = f"grows by {grown >> 20} MB"
            if listing(folder) != before:
                why = f"the folder holds {sorted(listing(folder))}, before {sorted(before)}"
            tell([name, "wrong" if why else "refused" if error else "computed", why])

    told, code = in_child(work)
    for name, outcome, why in told:
        tally.add(name, outcome, file.name + file.form, why)
    if len(told) < len(entrances):
        tally.add([*entrances][len(told)], "crashed", file.name + file.form, f"exit code {code}")


def try_shipped(tally: Tally, folder: Path, rng: Random) -> None:
    """The weights of the package with one bit, or the end, changed."""
    name = rng.choice(sorted(shipped.read_manifest()))
    data = (shipped.WEIGHTS / name).read_bytes()
    change = rng.choice([damage.truncated, damage.flipped_in_header, damage.flipped_in_data, damage.with_zeros])
    (folder / name).write_bytes(change(data, rng))
    unchanged = (folder / name).read_bytes() == data
    overlay = dict(file=str(folder / name))

    def work(tell: Callable[[Any], None]) -> None:
        with mock.patch.object(shipped, "WEIGHTS", folder):
            try:
                timm.create_model(name.partition(".")[0], pretrained=True, pretrained_cfg_overlay=overlay)
                tell(["computed" if unchanged else "wrong", "" if unchanged else "damaged weights are used"])
            except Exception as error:
                tell(["refused", str(error)])

    told, code = in_child(work)
    outcome, why = told[0] if told else ("crashed", f"exit code {code}")
    tally.add(SHIPPED, outcome, f"{change.__name__} {name}", why)


def layered(name: str, layers: dict[str, str]) -> StateDict:
    """Tensors of a network's shapes, without memory, by the names of a source's layers."""
    found = {}
    for key, tensor in timm.create_model(name, device="meta").state_dict().items():
        path, _, role = key.rpartition(".")
        found[f"{layers[path]}.{role}"] = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
    return found


def in_memory() -> dict[str, tuple[StateDict, Callable[[StateDict], Any]]]:
    """Tensors of a source, and what brings them to a network of ours."""
    roles = ("weight", "bias", "running_mean", "running_var")
    blobs = {}
    for name, tensor in layered("resattn56", caffe._layers(*caffe.MODELS["resattn56"])).items():
        layer, _, role = name.rpartition(".")
        if role in roles:
            blobs[f"{layer}:{roles.index(role)}"] = tensor
    donor = timm.create_model("resnetv2_50", device="meta").state_dict()
    target = timm.create_model("resattn50", device="meta").to_empty(device="cpu")
    deeper = timm.create_model("resattn92_cifar")
    return {
        "from_caffe": (blobs, lambda tensors: checkpoints.from_caffe(caffe.blobs_of_archive(tensors))),
        "from_pytorchcv": (
            layered("resattn56_dskip", pytorchcv.MODELS["resattn56_dskip"]), checkpoints.from_pytorchcv
        ),
        "transplant_trunk": (
            {name: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape) for name, tensor in donor.items()},
            lambda tensors: checkpoints.transplant_trunk(tensors, target),
        ),
        "deepen": (
            timm.create_model("resattn56_cifar").state_dict(), lambda tensors: checkpoints.deepen(tensors, deeper)
        ),
    }  # fmt: skip


def try_in_memory(
    tally: Tally, name: str, tensors: StateDict, convert: Callable[[StateDict], Any], rng: Random
) -> None:
    """One change of a source's names or shapes, not of stem and classifier, which timm adapts: it must be told."""
    change = rng.choice([None, *damage.BY_NAME])
    fixed = ("head.", "output.", "classifier", "stem.", "features.init_block.", "conv1:")
    spoilt = {key: tensor for key, tensor in tensors.items() if not key.startswith(fixed)}
    if change:
        change(spoilt, rng)
    spoilt |= {key: tensor for key, tensor in tensors.items() if key.startswith(fixed)}

    def check() -> str:
        try:
            found = convert(spoilt)
        except ValueError as error:
            if change is None or not str(error).strip():
                raise
            return "refused"
        if change is None:
            return "computed"
        # Caffe's norms may have leading axes of size 1
        if change is damage.shaped and shapes(found) == shapes(convert(tensors)):
            return "computed"
        raise WrongError("damaged weights are used")

    def shapes(found: Any) -> dict[str, torch.Size]:
        return {key: tensor.shape for key, tensor in found.items()}

    tally.try_(f"checkpoints.{name}", change and change.__name__, check)


def run(tally: Tally, count: int, seed: int) -> dict[str, Any]:
    """So many files through every entrance, and a tenth as many times the package's own and each converter."""
    rng = Random(seed)
    original = damage.weights()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(root / "image.png")
        whole = root / "whole.pth"
        whole.write_bytes(damage.content(original, ".pth"))
        for entrance in {**OURS, **TIMMS}.values():  # imports what the children would, each for itself
            entrance(whole)
        for i, file in enumerate(damage.files(count, rng)):
            folder = root / str(i)
            folder.mkdir()
            try_file(tally, file, folder, original)
            for path in folder.iterdir():
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        for i in range(max(1, count // 10)):
            folder = root / f"shipped{i}"
            folder.mkdir()
            try_shipped(tally, folder, rng)
            for path in folder.iterdir():
                path.unlink()
    for name, (tensors, convert) in in_memory().items():
        for _ in range(max(1, count // 10)):
            try_in_memory(tally, name, tensors, convert, rng)
    return {"files": count}
