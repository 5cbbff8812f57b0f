"""How a network is trained on CIFAR: the recipes of ``recipes/``, as data, and what timm builds from them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import yaml
from timm.data import Mixup
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn

from benchmarks.cifar.stack import stack_parameters

SCHEDULES = ("multistep", "cosine", "onecycle", "wsd")
CHANNEL_MEAN, PIXEL_MEAN = "channel", "pixel"


@dataclass(frozen=True)
class Recipe:
    """What decides a training run besides the network, the data and the seed.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images an update; what is left over at the end of an epoch is dropped.
        opt: timm's name of the optimiser; ``nmuon`` is Muon with Nesterov's momentum, and AdamW for norms and biases;
            ``sgd`` is Nesterov's.
        lr: Highest learning rate.
        fallback_lr_scale: What ``lr`` is multiplied by for the parameters that Muon leaves to AdamW: norms and biases.
            At 1 a seventh of the channels of a network trained here were dead.
        momentum: Momentum, or beta 1 of an adaptive optimiser.
        weight_decay: Weight decay.
        decay_all: Decay norms and biases too.
        sched: ``multistep``, divided by 10 after 40% and 60% of the updates (the paper's 64k and 96k of 160k);
            ``cosine`` to zero; ``onecycle``, linear up and linear down to zero; ``wsd``, constant, and linear to zero
            over the last ``decay_epochs``: up to there a run can be prolonged.
        warmup_epochs: Epochs of linear warm-up from a hundredth of ``lr``.
        decay_epochs: Epochs of the decay of ``wsd``; below 1, a share of the epochs after the warm-up.
        smoothing: Label smoothing.
        pad: Zero-padding, in pixels, before the random crop.
        crop: Side of the smaller random crops, without padding, that make the first updates cheaper; 0 for none.
        crop_epochs: Share of the epochs that take them; the others take crops of the image's side.
        prune: Share of the training images that an epoch leaves out: a random half of those with the lowest loss, of
            which the other half counts twice (`benchmarks.cifar.data.prune`); 0 for none.
        cutout: Side of the square that is blanked in each image; 0 for none.
        mixup: Alpha of mixup; 0 for none.
        cutmix: Alpha of cutmix; 0 for none. With both, each batch draws one of them.
        mean: What is subtracted: ``channel``, a constant a channel, and divided by its deviation; ``pixel``, the mean
            training image, as in the paper.
        ema_decay: Decay an update of the moving average of the weights; 0 for none.
        ema_every: Updates between two steps of the moving average.
    """

    epochs: int = 100
    batch_size: int = 128
    opt: str = "nmuon"
    lr: float = 0.02
    fallback_lr_scale: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 0.02
    decay_all: bool = False
    sched: str = "onecycle"
    warmup_epochs: float = 2.0
    decay_epochs: float = 0.3
    smoothing: float = 0.1
    pad: int = 4
    crop: int = 0
    crop_epochs: float = 1.0
    prune: float = 0.0
    cutout: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0
    mean: str = CHANNEL_MEAN
    ema_decay: float = 0.999
    ema_every: int = 4

    def __post_init__(self) -> None:
        """Raise a `ValueError` unless every value is one that it may be; the message names it and the valid ones."""
        for name in ("epochs", "batch_size", "ema_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be an integer of at least 1; got {getattr(self, name)}.")
        for name in ("lr", "fallback_lr_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be greater than 0; got {getattr(self, name)}.")
        for name in ("weight_decay", "decay_epochs", "pad", "crop", "cutout", "mixup", "cutmix"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0; got {getattr(self, name)}.")
        for name in ("momentum", "smoothing", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and less than 1; got {getattr(self, name)}.")
        if not 0 <= self.crop_epochs <= 1:
            raise ValueError(f"crop_epochs must be from 0 to 1; got {self.crop_epochs}.")
        if not 0 <= self.prune <= 0.5:
            raise ValueError(f"prune must be from 0 to 0.5; got {self.prune}.")
        if self.prune and (self.mixup or self.cutmix):
            raise ValueError(f"prune must be 0 with mixup or cutmix, which mix easy and hard images; got {self.prune}.")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(f"warmup_epochs must be at least 0 and less than epochs; got {self.warmup_epochs}.")
        for name, choices in (("sched", SCHEDULES), ("mean", (CHANNEL_MEAN, PIXEL_MEAN))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}; got {getattr(self, name)!r}.")
        if self.opt not in list_optimizers():
            raise ValueError(f"opt must be one of timm.optim.list_optimizers(), as sgd or adamw; got {self.opt!r}.")
        if self.fallback_lr_scale != 1 and "muon" not in self.opt:
            raise ValueError(
                f"fallback_lr_scale must be 1 unless opt is muon, nmuon or of their kin; got {self.fallback_lr_scale} "
                f"with opt {self.opt}."
            )
        if self.sched == "wsd" and not 0 < self.decay_span <= self.epochs - self.warmup_epochs:
            raise ValueError(
                "decay_epochs must be greater than 0 and leave the warm-up its epochs; got "
                f"{self.decay_epochs} with epochs {self.epochs} and warmup_epochs {self.warmup_epochs}."
            )
        if (self.mixup or self.cutmix) and self.batch_size % 2:
            raise ValueError(f"batch_size must be even with mixup or cutmix; got {self.batch_size}.")

    @property
    def decay_span(self) -> float:
        """Epochs of the decay of ``wsd``."""
        share = self.decay_epochs < 1
        return self.decay_epochs * (self.epochs - self.warmup_epochs) if share else self.decay_epochs

    def crop_in(self, epoch: int) -> int:
        """Side of the smaller crops in that epoch, counted from 0; 0 where there are none."""
        return self.crop if epoch < self.crop_epochs * self.epochs else 0


RECIPES = {
    path.stem: Recipe(**yaml.safe_load(path.read_text()))
    for path in sorted((Path(__file__).parent / "recipes").glob("*.yaml"), reverse=True)
}


def create_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """timm's optimiser over the model's parameters, in the groups that are decayed and not.

    Muon steps weights of one shape together, see `stack_parameters`, and on a GPU it can be captured in a graph.
    """
    options: dict[str, Any] = {}
    if recipe.fallback_lr_scale != 1:
        options["fallback_lr_scale"] = recipe.fallback_lr_scale
    if "muon" in recipe.opt and next(model.parameters()).is_cuda:
        options["capturable"] = True
    optimizer = create_optimizer_v2(
        model, opt=recipe.opt, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay,
        filter_bias_and_bn=not recipe.decay_all, **options,
    )  # fmt: skip
    if optimizer.defaults.get("algo") == "muon":  # AdaMuon scales a step by the norm of the whole parameter
        stack_parameters(optimizer)
    return optimizer


def create_scheduler(recipe: Recipe, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> Scheduler:
    """timm's scheduler, stepped by updates: the learning rate is a function of their number alone."""
    epochs = recipe.epochs
    if recipe.sched == "wsd" and not hasattr(timm.scheduler, "WSDLRScheduler"):
        raise ValueError(f"sched wsd needs timm 1.0.31 or newer; this is {timm.__version__}")
    kinds = {
        "multistep": dict(sched="multistep", decay_milestones=[0.4 * epochs, 0.6 * epochs], decay_rate=0.1),
        "cosine": dict(sched="cosine"),
        "onecycle": dict(sched="poly", decay_rate=1.0, warmup_prefix=True),
        "wsd": dict(sched="wsd", decay_epochs=recipe.decay_span, decay_fn="linear"),
    }
    warmup = recipe.warmup_epochs if recipe.warmup_epochs * steps_per_epoch >= 1 else 0  # less is no update
    prefix = warmup if recipe.sched == "onecycle" else 0
    scheduler, _ = create_scheduler_v2(
        optimizer, num_epochs=epochs - prefix, warmup_epochs=warmup, warmup_lr=recipe.lr / 100,
        step_on_epochs=False, updates_per_epoch=steps_per_epoch, **kinds[recipe.sched],
    )  # fmt: skip
    return scheduler


def learning_rates(recipe: Recipe, steps_per_epoch: int, steps: int) -> list[float]:
    """The learning rate of each of the first ``steps`` updates."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=recipe.lr)
    scheduler = create_scheduler(recipe, optimizer, steps_per_epoch)
    rates = []
    for step in range(steps):
        scheduler.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def create_mixup(recipe: Recipe, num_classes: int) -> Mixup | None:
    """timm's mixup and cutmix, one draw a batch, on the device of the batch; None where the recipe has neither."""
    if not (recipe.mixup or recipe.cutmix):
        return None
    return Mixup(recipe.mixup, recipe.cutmix, label_smoothing=recipe.smoothing, num_classes=num_classes)


def create_loss(recipe: Recipe) -> nn.Module:
    """Loss of a batch: timm's, of soft targets with mixup or cutmix, else with the recipe's label smoothing.

    With pruning it is torch's, the same function, as a loss an image, ``(B,)``.
    """
    if recipe.prune:
        return nn.CrossEntropyLoss(label_smoothing=recipe.smoothing, reduction="none")
    return SoftTargetCrossEntropy() if recipe.mixup or recipe.cutmix else LabelSmoothingCrossEntropy(recipe.smoothing)
