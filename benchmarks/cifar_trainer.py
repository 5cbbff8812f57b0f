"""A training run on CIFAR: what decides it, its loop, its checkpoints and its result."""

import hashlib
import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from timm.utils import ModelEmaV3
from torch import nn
from tqdm import tqdm

import timm_resattn  # noqa: F401  registers the models
from benchmarks.cifar_data import (
    CLASSES,
    add_label_noise,
    cutout,
    load_cifar,
    normalize,
    pixel_mean,
    prune,
    random_crop_flip,
    split_validation,
    subtract_pixel_mean,
)
from benchmarks.cifar_recipes import (
    PIXEL_MEAN,
    RECIPES,
    Recipe,
    create_loss,
    create_mixup,
    create_optimizer,
    create_scheduler,
    learning_rates,
)
from benchmarks.files import save_atomically
from benchmarks.provenance import provenance, write_json
from benchmarks.revive import revive
from timm_resattn.deepen import deepen
from timm_resattn.files import read_file
from timm_resattn.shipped import read_manifest

CHECKPOINT_SECONDS = 60.0  # at the end of an epoch a checkpoint is written if the last one is older


@dataclass(frozen=True)
class Run:
    """What decides the outcome of a run; saved in its checkpoints and its result."""

    model: str
    recipe: Recipe
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    dataset: str = "cifar10"
    images: int | None = None
    val_images: int = 0
    label_noise: float = 0.0
    seed: int = 0
    amp: bool = True
    init: str | None = None
    revive: int = 0  # training images on which dead channels are looked for, to be revived before the first update

    def __post_init__(self) -> None:
        """Raise a `ValueError` unless seed and revive are such."""
        for name in ("seed", "revive"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be an integer of at least 0; got {getattr(self, name)}")
        if self.revive and self.init is None:
            raise ValueError(f"revive must be 0 without init: there are no channels yet to look at; got {self.revive}")

    def as_dict(self) -> dict[str, Any]:
        """All values by name, the recipe's among them, as JSON would give them back; ``init`` only if there is one."""
        values = asdict(self)
        if self.init is None:
            del values["init"], values["revive"]
        return json.loads(json.dumps({**values.pop("recipe"), **values}))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Run":
        """The run of which these are `as_dict`."""
        recipe = {f.name: values.get(f.name, f.default) for f in fields(Recipe)}  # older runs lack what came later
        return cls(recipe=Recipe(**recipe), **{key: values[key] for key in values.keys() - recipe.keys()})

    def arguments(self) -> list[str]:
        """Arguments of `benchmarks.cifar` that ask for this run, without folders and device."""
        values = self.as_dict()
        named = {
            name: [key for key in asdict(recipe) if values[key] != getattr(recipe, key)]
            for name, recipe in RECIPES.items()
        }
        recipe = min(named, key=lambda name: len(named[name]))
        changed = [
            f.name
            for f in fields(Run)
            if f.name not in ("model", "recipe", "model_kwargs") and getattr(self, f.name) != f.default
        ]
        arguments = ["--model", self.model]
        if self.model_kwargs:
            pairs = values["model_kwargs"].items()
            arguments += ["--model-kwargs", *(f"{key}={value}".replace(" ", "") for key, value in pairs)]
        arguments += ["--recipe", recipe]
        for name in changed + named[recipe]:
            flag = name.replace("_", "-")
            value = values[name]
            arguments += (
                [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
            )
        return arguments

    def create_model(self) -> nn.Module:
        """The network, initialised by the seed; raises a `ValueError` where timm or the network refuses an argument."""
        torch.manual_seed(self.seed)
        try:
            return timm.create_model(self.model, **{"num_classes": CLASSES[self.dataset], **self.model_kwargs})
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"model {self.model} with {self.model_kwargs}: {error}") from error


@dataclass
class Data:
    """Images ``(N, 3, 32, 32)`` uint8 and labels ``(N,)`` on the device, to train on and to measure the error on."""

    images: torch.Tensor
    labels: torch.Tensor
    held_out: tuple[torch.Tensor, torch.Tensor]
    held_out_name: str


def load_data(run: Run, data_dir: Path, device: torch.device) -> Data:
    """What a run reads; raises as `load_cifar` does, and a `ValueError` if there are too few images."""
    images, labels = load_cifar(data_dir, "train", run.dataset)
    if run.images is not None:
        if not 1 <= run.images <= len(labels):
            raise ValueError(f"images must be from 1 to {len(labels)}, the number of training images; got {run.images}")
        images, labels = images[: run.images], labels[: run.images]
    train, val = split_validation(len(labels), run.val_images)
    if len(train) < run.recipe.batch_size:
        raise ValueError(f"batch_size must be at most {len(train)}, the training images; got {run.recipe.batch_size}")
    if run.val_images:
        held_out, name = (images[val], labels[val]), "validation"
    else:
        held_out, name = load_cifar(data_dir, "test", run.dataset), "test"
    noisy = add_label_noise(labels[train], run.label_noise, CLASSES[run.dataset], run.seed)
    return Data(
        images[train].to(device), noisy.to(device), (held_out[0].to(device), held_out[1].to(device)), name
    )  # fmt: skip


def preparation(recipe: Recipe, train_images: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """What turns uint8 images into the network's input: by constants, or by the mean of the training images."""
    if recipe.mean == PIXEL_MEAN:
        return partial(subtract_pixel_mean, mean=pixel_mean(train_images))
    return normalize


@torch.inference_mode()
def error_percent(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, prepare: Callable = normalize, batch_size: int = 500
) -> float:
    """Share of images, in percent, that the network takes for another class; in the parameters' precision."""
    model.eval()
    wrong = torch.zeros((), dtype=torch.int64, device=images.device)
    for batch, target in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        wrong += (model(prepare(batch)).argmax(1) != target).sum()
    return 100 * wrong.item() / len(labels)


class Stopwatch:
    """Time between `start` and `stop`, summed: of the device's own clock on CUDA, where nothing waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.marks: list[tuple[Any, Any]] = []

    def _now(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def start(self) -> None:
        self.started = self._now()

    def stop(self) -> None:
        self.marks.append((self.started, self._now()))

    def seconds(self) -> float:
        """The sum; on CUDA, waits until the device has come to the last `stop`."""
        if not self.cuda:
            return sum(stop - start for start, stop in self.marks)
        torch.cuda.synchronize()
        return sum(start.elapsed_time(stop) for start, stop in self.marks) / 1000


def seed_update(seed: int, step: int) -> None:
    """Seed everything that is drawn in one update."""
    state = np.random.SeedSequence([seed, step]).generate_state(2)
    torch.manual_seed(int(state[0]))
    np.random.seed(state[1])  # noqa: NPY002  timm's Mixup draws from the global generator


class Trainer:
    """A run in progress: network, moving average, optimiser and position."""

    def __init__(self, run: Run, data: Data, device: torch.device, compile_mode: str | None = None) -> None:
        self.run, self.data, self.device = run, data, device
        recipe = run.recipe
        self.model = run.create_model().to(device, memory_format=torch.channels_last)
        ema_decay = recipe.ema_decay**recipe.ema_every
        self.ema = ModelEmaV3(self.model, decay=ema_decay, use_warmup=True) if ema_decay else None
        self.network = torch.compile(self.model, mode=compile_mode) if compile_mode else self.model
        self.optimizer = create_optimizer(recipe, self.model)
        least, most = getattr(self.model, "min_input_size", 1), data.images.shape[-1] + 2 * recipe.pad
        if recipe.crop and not least <= recipe.crop <= most:
            raise ValueError(f"crop must be 0 or from {least} to {most}, the padded image's side; got {recipe.crop}")
        count = len(data.labels)
        self.steps_per_epoch = updates_per_epoch(count, recipe.prune, recipe.batch_size)
        self.steps = recipe.epochs * self.steps_per_epoch
        self.scheduler = create_scheduler(recipe, self.optimizer, self.steps_per_epoch)
        self.criterion = create_loss(recipe)
        self.mixup = create_mixup(recipe, CLASSES[run.dataset])
        self.prepare = preparation(recipe, data.images)
        self.step = 0
        self.losses = torch.zeros(count, device=device) if recipe.prune else None  # the last one of each image
        self.chosen: tuple[torch.Tensor, torch.Tensor] | None = None  # what `choose` drew, with pruning
        self.start: dict[str, Any] | None = None  # the run whose weights this one began with
        self.sessions: list[dict[str, Any]] = []  # where each process that trained took over, and its circumstances
        self.log: list[dict[str, Any]] = []
        self.partial = dict(loss=0.0, seconds=0.0, inside=0.0)  # of the epoch under way, before the last resume

    def state_dict(self) -> dict[str, Any]:
        return {
            "run": self.run.as_dict(),
            "training_images": len(self.data.labels),
            "step": self.step,
            "log": self.log,
            "start": self.start,
            "sessions": self.sessions,
            "partial": self.partial,
            "losses": self.losses,
            "chosen": self.chosen,
            "state_dict": self.model.state_dict(),
            "state_dict_ema": self.ema.module.state_dict() if self.ema else None,
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint; raises a `ValueError` if it is of another run."""
        if state["training_images"] != len(self.data.labels):
            raise ValueError(
                f"the checkpoint is of a run on {state['training_images']} images, not on {len(self.data.labels)}"
            )
        check_same_run(state["run"], self.run, state["step"], self.steps_per_epoch)
        self.model.load_state_dict(state["state_dict"])
        if self.ema:
            self.ema.module.load_state_dict(state["state_dict_ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.log, self.partial = state["step"], state["log"], state["partial"]
        self.sessions, self.start = state["sessions"], state.get("start")
        if self.losses is not None:
            self.losses, self.chosen = state["losses"].to(self.device), state["chosen"]

    def begin_with(self, state_dict: dict[str, torch.Tensor], start: dict[str, Any]) -> None:
        """Take the weights that `read_start` read; raises a `ValueError` as `timm_resattn.deepen.deepen` does."""
        self.model.load_state_dict(deepen(state_dict, self.model))
        if self.run.revive:
            images = self.prepare(self.data.images[: self.run.revive])
            start = start | {"revived": revive(self.model, images)}
        if self.ema:
            self.ema.module.load_state_dict(self.model.state_dict())
        self.start = start

    def batch(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Augmented images and targets of one update, drawn by the generators' present state."""
        recipe = self.run.recipe
        images = random_crop_flip(self.prepare(self.data.images[index]), recipe.pad, recipe.crop)
        if recipe.cutout:
            images = cutout(images, recipe.cutout)
        labels = self.data.labels[index]
        return self.mixup(images, labels) if self.mixup else (images, labels)

    def choose(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Indices of the images of the epoch under way, in its order, and with pruning their weights."""
        epoch, first = divmod(self.step, self.steps_per_epoch)
        rng = np.random.default_rng([self.run.seed, epoch])
        if self.losses is None:
            return torch.from_numpy(rng.permutation(len(self.data.labels))).to(self.device), None
        if first == 0 or self.chosen is None:
            self.chosen = prune(self.losses, self.run.recipe.prune, rng)
        order, weights = self.chosen
        return order.to(self.device), weights.to(self.device)

    def epoch(self, should_stop: Callable[[], bool]) -> dict[str, float] | None:
        """Train to the end of the epoch under way and return its figures, or None if it was to stop before."""
        run, recipe, device = self.run, self.run.recipe, self.device
        epoch, first = divmod(self.step, self.steps_per_epoch)
        order, weights = self.choose()
        batches = order.split(recipe.batch_size)
        loss_sum = torch.zeros((), device=device)
        inside = Stopwatch(device)
        self.model.train()
        amp = torch.autocast(device.type, torch.bfloat16) if run.amp else nullcontext()
        started = time.perf_counter()
        progress = tqdm(
            range(first, self.steps_per_epoch), f"{run.model} {epoch + 1}/{recipe.epochs}", disable=None, leave=False,
            initial=first, total=self.steps_per_epoch,
        )  # fmt: skip
        for i in progress:
            if should_stop():
                break
            seed_update(run.seed, self.step)
            self.scheduler.step_update(self.step)
            images, targets = self.batch(batches[i])
            inside.start()
            with amp:
                loss = self.criterion(self.network(images), targets)
            if weights is not None:
                self.losses[batches[i]] = loss.detach()
                part = weights[i * recipe.batch_size : (i + 1) * recipe.batch_size]
                loss = (loss * part).mean() * (1 - recipe.prune)  # the weights' mean over the epoch is the inverse
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            inside.stop()
            loss_sum += loss.detach()
            self.step += 1
            if self.ema and self.step % recipe.ema_every == 0:
                self.ema.update(self.model, self.step // recipe.ema_every)
        progress.close()
        figures = {
            "loss": self.partial["loss"] + loss_sum.item(),
            "inside": self.partial["inside"] + inside.seconds(),
            "seconds": self.partial["seconds"] + time.perf_counter() - started,
        }
        if not math.isfinite(figures["loss"]):
            raise FloatingPointError(f"the loss is not finite in epoch {epoch + 1}; try a lower --lr")
        if self.step < (epoch + 1) * self.steps_per_epoch:
            self.partial = figures
            return None
        self.partial = dict.fromkeys(self.partial, 0.0)
        return {
            "epoch": epoch + 1,
            "lr": self.optimizer.param_groups[0]["lr"],
            "loss": round(figures["loss"] / self.steps_per_epoch, 4),
            "seconds": round(figures["seconds"], 2),
            "images_per_second": round(self.steps_per_epoch * recipe.batch_size / figures["seconds"], 1),
            "share_outside": round(1 - figures["inside"] / figures["seconds"], 4),
        }

    def errors(self) -> dict[str, float]:
        """Error in percent on the held-out images, of the weights and of their moving average."""
        networks = {"error": self.model} | ({"error_ema": self.ema.module} if self.ema else {})
        return {name: round(error_percent(m, *self.data.held_out, self.prepare), 4) for name, m in networks.items()}


def updates_per_epoch(images: int, prune: float, batch_size: int) -> int:
    """Whole batches in what `benchmarks.cifar_data.prune` leaves of so many images."""
    return (images - round(prune * images)) // batch_size


def check_same_run(saved: dict[str, Any], run: Run, step: int, steps_per_epoch: int) -> None:
    """Raise a `ValueError` unless ``run``, trained up to ``step``, would be where the saved one is.

    All values must be the same, but for those of the schedule, as long as the learning rates up to there are.
    """
    now, saved = run.as_dict(), Run.from_dict(saved).as_dict()
    different = [name for name in {**now, **saved} if saved.get(name) != now.get(name)]
    schedule = [name for name in ("epochs", "decay_epochs", "sched") if name in different]
    if different == schedule:
        other = Run.from_dict(saved).recipe
        if learning_rates(other, steps_per_epoch, step) == learning_rates(run.recipe, steps_per_epoch, step):
            return
    told = ", ".join(f"{name} {saved.get(name)} and not {now.get(name)}" for name in different)
    raise ValueError(f"the checkpoint is of another run: it has {told}")


def write_log(out: Path, log: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in log)
    save_atomically(out / "log.jsonl", lambda path: path.write_text(text))


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """A state dict as safetensors takes it: contiguous, on the CPU."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}


def train(
    trainer: Trainer, out: Path, should_stop: Callable[[], bool], eval_every: int = 0, stop_epoch: int = 0
) -> bool:
    """Train to the end, or, with a checkpoint, to where it is to stop; tell whether the end is reached."""

    def checkpoint() -> None:
        save_atomically(out / "last.pt", lambda path: torch.save(trainer.state_dict(), path))

    trainer.sessions.append({"from_update": trainer.step, **provenance()})
    write_log(out, trainer.log)  # drops what a killed run logged behind its last checkpoint
    saved_at = time.monotonic()
    while trainer.step < trainer.steps:
        if stop_epoch and trainer.step >= stop_epoch * trainer.steps_per_epoch:
            checkpoint()
            return False
        row = trainer.epoch(should_stop)
        if row is None:
            checkpoint()
            return False
        done = trainer.step == trainer.steps
        if done or (eval_every and row["epoch"] % eval_every == 0):
            row |= trainer.errors()
        trainer.log.append(row)
        write_log(out, trainer.log)
        print(json.dumps(row), flush=True)
        if done or time.monotonic() - saved_at > CHECKPOINT_SECONDS:
            checkpoint()
            saved_at = time.monotonic()
    return True


def command_of(run: Run) -> str:
    """The command that does it."""
    return " ".join(["python -m benchmarks.cifar", *run.arguments(), "--data-dir DIR --out OUT"])


def write_result(trainer: Trainer, out: Path) -> dict[str, Any]:
    """Write weights and ``result.json`` of a run that is at its end; returns what the latter holds."""
    save_atomically(out / "model.safetensors", lambda path: save_file(weights_of(trainer.model), path))
    if trainer.ema:
        save_atomically(out / "ema.safetensors", lambda path: save_file(weights_of(trainer.ema.module), path))
    last, seconds = trainer.log[-1], sum(row["seconds"] for row in trainer.log)
    count = len(trainer.log) * trainer.steps_per_epoch * trainer.run.recipe.batch_size
    outside = sum(row["share_outside"] * row["seconds"] for row in trainer.log) / seconds
    result = {
        "command": command_of(trainer.run),
        **{key: value for key, value in trainer.sessions[-1].items() if key != "from_update"},
        **({"start": trainer.start} if trainer.start else {}),
        "sessions": trainer.sessions,
        "device": trainer.device.type,
        "seed": trainer.run.seed,
        "schedule": trainer.run.as_dict(),
        "training_images": len(trainer.data.labels),
        "held_out": f"{trainer.data.held_out_name}, {len(trainer.data.held_out[1])} images",
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "error": last["error"],
        "error_ema": last.get("error_ema"),
        "training_seconds": round(seconds, 1),
        "images_per_second": round(count / seconds, 1),
        "share_outside": round(outside, 4),
    }
    write_json(out / "result.json", result)
    return result


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Content of a checkpoint, on the CPU; raises a `ValueError` if it can't be read or is something else."""
    state = read_file(path)
    if not {"run", "training_images", "optimizer"} <= state.keys():
        raise ValueError(f"{path} is no checkpoint of benchmarks.cifar.")
    return state


def read_start(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Weights that a run may begin with, and where they come from.

    A ``.safetensors`` file is known by its name and hash, and by its entry in the manifest if it ships with the
    package; a checkpoint by its run, its position, how long it took and what it began with.

    Raises:
        ValueError: The file can't be read or is something else.
    """
    if path.suffix == ".safetensors":
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        shipped = [entry for entry in read_manifest().values() if entry["sha256"] == digest]
        start = {"file": path.name, "sha256": digest, **({"manifest": shipped[0]} if shipped else {})}
        told = path.with_suffix(".json")  # by benchmarks.average
        origin = json.loads(told.read_text()) if told.is_file() else {}
        return read_file(path), start | ({"average": origin} if origin.get("sha256") == digest else {})
    state = read_checkpoint(path)
    return state["state_dict"], origin_of(state)


def origin_of(state: dict[str, Any]) -> dict[str, Any]:
    """Where a checkpoint's weights come from: its run, its position, how long it took and what it began with."""
    origin = {name: state.get(name) for name in ("run", "training_images", "start")}
    origin["training_seconds"] = round(sum(row["seconds"] for row in state["log"]) + state["partial"]["seconds"], 1)
    return origin | {"updates": state["step"]}
