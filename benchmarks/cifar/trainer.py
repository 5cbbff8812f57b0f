"""A training run in progress: its state, its epochs and its checkpoints."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import nn
from tqdm import tqdm

from benchmarks.cifar.data import CLASSES, cutout, normalize, prune, random_crop_flip
from benchmarks.cifar.dead import dead_share
from benchmarks.cifar.graph import GraphedUpdate
from benchmarks.cifar.recipe import create_loss, create_mixup, create_optimizer, create_scheduler
from benchmarks.cifar.run import Data, Run, check_same_run, preparation, updates_per_epoch
from timm_resattn.attention import AttentionModule
from timm_resattn.checkpoints import deepen, transplant_trunk
from timm_resattn.checkpoints.transplant import donor_kind

WATCHED = 256  # training images on which dead channels are looked for after each epoch


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

    def __init__(self, run: Run, data: Data, device: torch.device, compiled: bool = False) -> None:
        self.run, self.data, self.device = run, data, device
        recipe = run.recipe
        self.model = run.create_model().to(device, memory_format=torch.channels_last)
        ema_decay = recipe.ema_decay**recipe.ema_every
        self.ema = ModelEmaV3(self.model, decay=ema_decay, use_warmup=True) if ema_decay else None
        self.network = torch.compile(self.model) if compiled else self.model
        self.optimizer = create_optimizer(recipe, self.model)
        graphed = self.optimizer.defaults.get("capturable", False) and not compiled
        self.update = GraphedUpdate(self._update, self.optimizer) if graphed else self._update
        least, most = getattr(self.model, "min_input_size", 1), data.images.shape[-1]
        if recipe.crop and not least <= recipe.crop <= most:
            raise ValueError(f"crop must be 0 or from {least} to {most}, the image's side; got {recipe.crop}")
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
        self.partial = dict(
            loss=0.0, seconds=0.0, processor=0.0, inside=0.0
        )  # of the epoch under way, before the last resume

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
        """Take the weights that `read_start` read, of a network with fewer modules or of one that is a trunk.

        Raises:
            ValueError: As `timm_resattn.checkpoints.deepen` and `timm_resattn.transplant_trunk` do.
        """
        masked = any(isinstance(module, AttentionModule) for module in self.model.modules())
        begin = transplant_trunk if masked and donor_kind(state_dict) else deepen
        self.model.load_state_dict(begin(state_dict, self.model))
        if self.ema:
            self.ema.module.load_state_dict(self.model.state_dict())
        self.start = start

    def batch(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Augmented images and targets of one update, drawn by the generators' present state."""
        recipe = self.run.recipe
        crop = recipe.crop_in(self.step // self.steps_per_epoch)
        images = random_crop_flip(self.prepare(self.data.images[index]), 0 if crop else recipe.pad, crop)
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

    def _update(
        self, images: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Forward, backward and optimiser; returns the loss and, with pruning, that of each image."""
        with torch.autocast(self.device.type, torch.bfloat16) if self.run.amp else nullcontext():
            losses = loss = self.criterion(self.network(images), targets)
        if weights is not None:
            loss = (losses * weights).mean() * (
                1 - self.run.recipe.prune
            )  # the weights' mean over the epoch is the inverse
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach(), losses.detach()

    def epoch(self, should_stop: Callable[[], bool]) -> dict[str, float] | None:
        """Train to the end of the epoch under way and return its figures, or None if it was to stop before."""
        run, recipe, device = self.run, self.run.recipe, self.device
        epoch, first = divmod(self.step, self.steps_per_epoch)
        order, weights = self.choose()
        batches = order.split(recipe.batch_size)
        loss_sum = torch.zeros((), device=device)
        inside = Stopwatch(device)
        self.model.train()
        started, processor = time.perf_counter(), time.process_time()
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
            part = None if weights is None else weights[i * recipe.batch_size : (i + 1) * recipe.batch_size]
            loss, losses = self.update(images, targets, part)
            inside.stop()
            if weights is not None:
                self.losses[batches[i]] = losses
            loss_sum += loss
            self.step += 1
            if self.ema and self.step % recipe.ema_every == 0:
                self.ema.update(self.model, self.step // recipe.ema_every)
        progress.close()
        figures = {
            "loss": self.partial["loss"] + loss_sum.item(),
            "inside": self.partial["inside"] + inside.seconds(),
            "seconds": self.partial["seconds"] + time.perf_counter() - started,
            "processor": self.partial.get("processor", 0.0) + time.process_time() - processor,
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
            "processor_seconds": round(figures["processor"], 2),
            "images_per_second": round(self.steps_per_epoch * recipe.batch_size / figures["seconds"], 1),
            "share_outside": round(1 - figures["inside"] / figures["seconds"], 4),
            "dead": round(dead_share(self.model, self.prepare(self.data.images[:WATCHED])), 4),
        }

    def errors(self) -> dict[str, float]:
        """Error in percent on the held-out images, of the weights and of their moving average."""
        networks = {"error": self.model} | ({"error_ema": self.ema.module} if self.ema else {})
        return {name: round(error_percent(m, *self.data.held_out, self.prepare), 4) for name, m in networks.items()}
