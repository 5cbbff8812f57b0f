"""What writes, killed at random moments, on a full disk, where it must not write, and two at once.

The target must be the old one or a whole new one, and the next call must do its work with whatever lies there.
"""

import contextlib
import hashlib
import io
import os
import resource
import shutil
import signal
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

from benchmarks.cifar import __main__ as cifar
from benchmarks.cifar import outputs
from benchmarks.reliability import damage
from benchmarks.reliability.children import finish, in_child, killed, start
from benchmarks.reliability.tally import Tally, WrongError
from benchmarks.reliability.weights import COMMAND_ARGS
from timm_resattn.cli import main

CASES = 50
NOBODY = 65534
EPOCHS = 3
STEPS = ("exporting", "writing", "comparing")  # what export says that it does

Tell = Callable[[Any], None]


class Writer(ABC):
    """A command that writes one target into a folder.

    ``files`` are those of the target that are the same at each run; the rest holds times.
    """

    name: str
    files: tuple[str, ...]

    def __init__(self, inputs: Path) -> None:
        self.inputs = inputs
        self.weights = ["--checkpoint", str(inputs / "weights.pth"), "--num-classes", str(damage.CLASSES)]
        self.image = str(inputs / "image.png")

    @abstractmethod
    def call(self, folder: Path) -> int:
        """Run it in this process; returns the exit code."""

    def warm_up(self, folder: Path) -> None:
        """Import what it needs in this process, of which the children are copies."""
        with contextlib.redirect_stdout(io.StringIO()):
            self.call(folder)

    def work(self, folder: Path) -> Callable[[Tell], None]:
        """Run it in a child; it tells exit code and stderr."""

        def work(tell: Tell) -> None:
            said = io.StringIO()
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                try:
                    code = self.call(folder)
                except SystemExit as stop:
                    code = stop.code
            tell([code, said.getvalue()])

        return work

    def state(self, folder: Path) -> dict[str, str]:
        """The hash of each of ``files`` that is there."""
        paths = {name: folder / name for name in self.files}
        return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items() if path.exists()}

    def check_partial(self, folder: Path, whole: dict[str, str]) -> bool:
        """Whether the target is there; a `WrongError` if it is there in part."""
        found = self.state(folder)
        if found and found != whole:
            raise WrongError(f"half a target: {found} of {whole}")
        return bool(found)


class Convert(Writer):
    """``timm-resattn convert``."""

    name = "timm-resattn convert"
    files = ("out/model.safetensors", "out/config.json", "out/README.md")

    def call(self, folder: Path) -> int:
        if (folder / "out").exists():  # whole, from before: convert writes no second one
            return 0
        return main(["convert", str(self.inputs / "weights.pth"), str(folder / "out"), *COMMAND_ARGS])


class Masks(Writer):
    """``timm-resattn masks``."""

    name = "timm-resattn masks"
    files = ("masks.png",)

    def call(self, folder: Path) -> int:
        return main(["masks", self.image, *self.weights, *COMMAND_ARGS, "--out", str(folder / "masks.png")])


class Predict(Writer):
    """``timm-resattn predict``."""

    name = "timm-resattn predict"
    files = ("classes.jsonl",)

    def call(self, folder: Path) -> int:
        out = ["--json", "--out", str(folder / "classes.jsonl")]
        return main(["predict", *[self.image] * 40, *self.weights, *COMMAND_ARGS, *out])


class Export(Writer):
    """``timm-resattn export``, to a ``.pt2`` file: ONNX Runtime's threads do not go on in the children of a process."""

    name = "timm-resattn export"
    files = ("network.pt2",)

    def call(self, folder: Path) -> int:
        return main(["export", damage.MODEL, str(folder / "network.pt2"), *self.weights, *COMMAND_ARGS[2:]])


class Trainer(Writer):
    """The CIFAR trainer, with a checkpoint at the end of each epoch; a second call goes on with ``--resume``."""

    name = "benchmarks.cifar"
    files = ("run/model.safetensors", "run/ema.safetensors")

    def warm_up(self, folder: Path) -> None:
        """To the first update: autograd does not go on in the children of a process in which it has run."""
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            self.call(folder, "--max-seconds", "0")

    def call(self, folder: Path, *more: str) -> int:
        small = ["--model-kwargs", "depths=(1,0,0)", "widths=(8,8,16)", "mask_pools=(1,1,1)"]
        recipe = ["--batch-size", "16", "--prune", "0", "--crop", "0", "--cutout", "0", "--epochs", str(EPOCHS)]
        where = ["--data-dir", str(self.inputs), "--device", "cpu", "--out", str(folder / "run"), "--resume"]
        with mock.patch.object(outputs, "CHECKPOINT_SECONDS", 0.0):
            return cifar.main(["--model", damage.MODEL, *small, *recipe, *where, *more])

    def check_partial(self, folder: Path, whole: dict[str, str]) -> bool:
        """Weights are written one file after the other, so some may be missing, but none is another."""
        found = self.state(folder)
        if any(found[name] != whole[name] for name in found):
            raise WrongError(f"other weights than those of a run that was not killed: {found}")
        last = folder / "run" / "last.pt"
        if last.exists():
            torch.load(last, weights_only=True)
        return found == whole


WRITERS = (Convert, Masks, Predict, Export, Trainer)


def inputs_in(folder: Path) -> Path:
    """Weights, an image and a data set of random images."""
    folder.mkdir()
    (folder / "weights.pth").write_bytes(damage.content(damage.weights(), ".pth"))
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / "image.png")
    for split, count in (("train", 70), ("test", 30)):
        images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
        np.savez(folder / f"{split}.npz", images=images, labels=np.arange(count) % 10)
    return folder


def completes(writer: Writer, folder: Path, whole: dict[str, str]) -> None:
    """A `WrongError` unless the next call ends with the whole target."""
    told, code = in_child(writer.work(folder))
    if not told or told[0][0] != 0:
        raise WrongError(f"the next call fails: {told or code}")
    if writer.state(folder) != whole:
        raise WrongError("the next call writes something else")


def refused(told: list[Any], code: int) -> str:
    """``refused`` if the command said one sentence and had a code other than 0; ``computed`` if it had 0."""
    if not told:
        raise RuntimeError(f"no exit code, but {code}")
    if told[0][0] == 0:
        return "computed"
    lines = [line for line in told[0][1].splitlines() if line and not line.startswith(("usage:", "  "))]
    lines = [line for line in lines if line.partition(": ")[2] not in STEPS]
    if len(lines) != 1 or "Traceback" in told[0][1]:
        raise WrongError(f"not one sentence: {told[0][1]}")
    return "refused"


def try_kill(writer: Writer, folder: Path, whole: dict[str, str], delay: float, number: int) -> str:
    """Killed after a delay."""
    killed(writer.work(folder), delay, number)
    writer.check_partial(folder, whole)
    completes(writer, folder, whole)
    return "computed"


def try_full(writer: Writer, folder: Path, whole: dict[str, str], limit: int) -> str:
    """No file may be larger than a limit, which is what a full disk looks like from within."""

    def work(tell: Tell) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        writer.work(folder)(tell)

    before = sorted(path.name for path in folder.iterdir())
    outcome = refused(*in_child(work))
    writer.check_partial(folder, whole)
    temporary = {path.name for path in folder.rglob("*") if path.name.startswith(".")}
    left = temporary - {".lock"}
    if left or (
        outcome == "refused"
        and not isinstance(writer, Trainer)
        and before != sorted(path.name for path in folder.iterdir())
    ):
        raise WrongError(f"left: {left or [*folder.iterdir()]}")
    completes(writer, folder, whole)
    return outcome


def try_read_only(writer: Writer, folder: Path, whole: dict[str, str]) -> str:
    """The folder belongs to somebody else."""

    def work(tell: Tell) -> None:
        if os.geteuid() == 0:
            os.setegid(NOBODY)
            os.seteuid(NOBODY)
        writer.work(folder)(tell)

    folder.chmod(0o555)
    outcome = refused(*in_child(work))
    if [*folder.iterdir()]:
        raise WrongError(f"written: {[*folder.iterdir()]}")
    if outcome == "computed":
        raise WrongError("exit code 0, and nothing is written")
    folder.chmod(0o755)
    completes(writer, folder, whole)
    return outcome


def try_two(writer: Writer, folder: Path, whole: dict[str, str], delay: float) -> str:
    """Two at once, the second a little later: one target, and what is not written is refused."""
    first = start(writer.work(folder))
    time.sleep(delay)
    second = start(writer.work(folder))
    outcomes = {refused(*finish(*first)), refused(*finish(*second))}
    if "computed" not in outcomes:
        raise WrongError("none of two writes")
    if not writer.check_partial(folder, whole):
        raise WrongError("no target")
    completes(writer, folder, whole)
    return "computed" if outcomes == {"computed"} else "refused"


def run(tally: Tally, count: int, seed: int) -> dict[str, Any]:
    """Kill each writer so many times, and try the rest a fifth as often."""
    rng = Random(seed)
    took = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        root.chmod(0o755)  # for somebody else too
        inputs = inputs_in(root / "inputs")
        for kind in WRITERS:
            writer = kind(inputs)
            number = iter(range(10**6))

            def fresh(writer: Writer = writer, number: Any = number) -> Path:
                folder = root / f"{writer.name.split()[-1]}{next(number)}"
                folder.mkdir()
                return folder

            writer.warm_up(fresh())
            began = time.monotonic()
            told, code = in_child(writer.work(reference := fresh()))
            seconds = took[writer.name] = round(time.monotonic() - began, 3)
            whole = writer.state(reference)
            if set(whole) != set(writer.files):
                raise RuntimeError(f"{writer.name}: {told or code}")
            size = max((reference / name).stat().st_size for name in writer.files)
            tries: list[tuple[str, Callable[[Path], str], int]] = [
                (
                    "killed",
                    lambda folder, w=writer, h=whole, s=seconds: try_kill(
                        w, folder, h, rng.uniform(0, s), rng.choice([signal.SIGKILL, signal.SIGTERM])
                    ),
                    count,
                ),
                (
                    "full disk",
                    lambda folder, w=writer, h=whole, s=size: try_full(w, folder, h, rng.randrange(s)),
                    count // 5,
                ),
                ("read-only folder", lambda folder, w=writer, h=whole: try_read_only(w, folder, h), 1),
                (
                    "two at once",
                    lambda folder, w=writer, h=whole, s=seconds: try_two(w, folder, h, rng.uniform(0, s)),
                    count // 5,
                ),
            ]
            for what, attempt, times in tries:
                for _ in range(max(1, times)):
                    folder = fresh()
                    tally.try_(f"{writer.name}, {what}", what, lambda a=attempt, f=folder: a(f))
                    shutil.rmtree(folder)
    return {"seconds of a call": took}
