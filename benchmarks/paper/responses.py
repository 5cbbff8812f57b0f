"""Figure 4 of the paper: how strong the responses of a trained network's stages are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.cifar.data import load_cifar, normalize
from benchmarks.cifar.run import Run, preparation
from benchmarks.common.files import write_json
from benchmarks.paper.results import FIGURE, STAGES, row_of
from benchmarks.paper.tables import Cell
from timm_resattn import ResAttn


@torch.inference_mode()
def stage_responses(
    model: ResAttn, images: torch.Tensor, prepare: Callable = normalize, batch_size: int = 500
) -> list[float]:
    """Figure 4: mean absolute value of each stage's output over the images, relative to the first stage's."""
    model.eval()
    totals: list[float] = []
    for batch in images.split(batch_size):
        maps = model.forward_intermediates(prepare(batch), intermediates_only=True)[1:]
        means = [float(stage.abs().mean()) * len(batch) for stage in maps]
        totals = [a + b for a, b in zip(totals or [0.0] * len(means), means, strict=True)]
    return [total / totals[0] for total in totals]


def figure_row(cell: Cell, run: Run, folder: Path, data_dir: Path, device: torch.device) -> dict[str, Any]:
    """A line of Figure 4: a table's, and the responses of the three stages, which the run's folder keeps."""
    kept = folder / "responses.json"
    if not kept.is_file():
        write_json(kept, responses_of_run(run, folder, data_dir, device))
    stages = {name: round(value, 4) for name, value in zip(STAGES, json.loads(kept.read_text()), strict=True)}
    published = {f"paper_{name}": value for name, value in zip(STAGES, cell.paper_stages or (), strict=True)}
    return {**row_of(FIGURE, cell, folder, run), **published, **stages}


def responses_of_run(run: Run, folder: Path, data_dir: Path, device: torch.device) -> list[float]:
    """The responses of a finished run's stages over the test images."""
    model = run.create_model()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    images, _ = load_cifar(data_dir, "test", run.dataset)
    train_images, _ = load_cifar(data_dir, "train", run.dataset)
    prepare = preparation(run.recipe, train_images[: run.images].to(device))
    model = model.to(device, memory_format=torch.channels_last)
    return stage_responses(model, images.to(device), prepare)
