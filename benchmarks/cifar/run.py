"""What decides a training run: network, recipe, data and seed."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from benchmarks.cifar.data import (
    CLASSES,
    add_label_noise,
    left_out,
    load_cifar,
    normalize,
    pixel_mean,
    split_validation,
    subtract_pixel_mean,
)
from benchmarks.cifar.recipe import PIXEL_MEAN, RECIPES, Recipe, learning_rates
from timm_resattn import train_masks_only

OPTIONAL = ("init", "train_only")


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
    train_only: str | None = None

    def __post_init__(self) -> None:
        """Raise a `ValueError` if the seed is negative, which no generator takes."""
        if self.seed < 0:
            raise ValueError(f"seed must be an integer of at least 0; got {self.seed}")

    def as_dict(self) -> dict[str, Any]:
        """All values by name, the recipe's among them, as JSON would give them back; `OPTIONAL` ones where given."""
        values = {name: value for name, value in asdict(self).items() if value is not None or name not in OPTIONAL}
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
            model = timm.create_model(self.model, **{"num_classes": CLASSES[self.dataset], **self.model_kwargs})
            return train_masks_only(model) if self.train_only else model
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


def updates_per_epoch(images: int, prune: float, batch_size: int) -> int:
    """Whole batches in what `benchmarks.cifar.data.prune` leaves of so many images."""
    return (images - left_out(images, prune)) // batch_size


def check_same_run(saved: dict[str, Any], run: Run, step: int, steps_per_epoch: int) -> None:
    """Raise a `ValueError` unless ``run``, trained up to ``step``, would be where the saved one is.

    All values must be the same, but for those of the schedule, as long as the learning rates and crops up to there are.
    """
    now, saved = run.as_dict(), Run.from_dict(saved).as_dict()
    different = [name for name in {**now, **saved} if saved.get(name) != now.get(name)]
    if set(different) <= {"epochs", "decay_epochs", "sched"}:

        def way(recipe: Recipe) -> tuple[list[float], list[int]]:
            crops = [recipe.crop_in(epoch) for epoch in range(1 + (step - 1) // steps_per_epoch)]
            return learning_rates(recipe, steps_per_epoch, step), crops

        if way(Run.from_dict(saved).recipe) == way(run.recipe):
            return
    told = ", ".join(f"{name} {saved.get(name)} and not {now.get(name)}" for name in different)
    raise ValueError(f"the checkpoint is of another run: it has {told}")


def command_of(run: Run) -> str:
    """The command that does it."""
    return " ".join(["python -m benchmarks.cifar", *run.arguments(), "--data-dir DIR --out OUT"])
