"""What a run writes and another may begin with: log, checkpoints, weights and result."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from benchmarks.cifar.run import command_of
from benchmarks.cifar.trainer import Trainer
from benchmarks.common.files import save_atomically, write_json
from benchmarks.common.provenance import provenance
from timm_resattn.checkpoints import read_file

CHECKPOINT_SECONDS = 60.0  # at the end of an epoch a checkpoint is written if the last one is older


def write_log(out: Path, log: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in log)
    save_atomically(out / "log.jsonl", lambda path: path.write_text(text))


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """A state dict as safetensors takes it: each tensor contiguous, with memory of its own, on the CPU."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }


def train(
    trainer: Trainer, out: Path, should_stop: Callable[[], bool], eval_every: int = 0, stop_epoch: int = 0
) -> bool:
    """Train to the end, or, with a checkpoint, to where it is to stop; tell whether the end is reached."""

    def checkpoint() -> None:
        try:
            save_atomically(out / "last.pt", lambda path: torch.save(trainer.state_dict(), path))
        except RuntimeError as error:  # of a full disk
            raise OSError(f"{out / 'last.pt'} could not be written ({error})") from error

    write_json(out / "config.json", {"command": command_of(trainer.run), **trainer.run.as_dict()})
    trainer.sessions.append({"from_update": trainer.step, **provenance()})
    write_log(out, trainer.log)  # drops what a killed run logged after its last checkpoint
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


def write_result(trainer: Trainer, out: Path) -> dict[str, Any]:
    """Write weights and ``result.json`` of a run that is at its end; returns what the latter holds."""
    save_atomically(out / "model.safetensors", lambda path: path.write_bytes(save(weights_of(trainer.model))))
    if trainer.ema:
        save_atomically(out / "ema.safetensors", lambda path: path.write_bytes(save(weights_of(trainer.ema.module))))
    last, seconds = trainer.log[-1], sum(row["seconds"] for row in trainer.log)
    count = len(trainer.log) * trainer.steps_per_epoch * trainer.run.recipe.batch_size
    complete = all("processor_seconds" in row for row in trainer.log)  # older runs' epochs lack them
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
        "processor_seconds": round(sum(row["processor_seconds"] for row in trainer.log), 1) if complete else None,
        "images_per_second": round(count / seconds, 1),
        "share_outside": round(outside, 4),
        "dead": last["dead"],
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

    A ``.safetensors`` file is known by its name and hash; a checkpoint by its run, its position, how long it took and
    what it began with.

    Raises:
        ValueError: The file can't be read or is something else.
    """
    if path.suffix == ".safetensors":
        return read_file(path), {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    state = read_checkpoint(path)
    origin = {name: state.get(name) for name in ("run", "training_images", "start")}
    seconds = sum(row["seconds"] for row in state["log"]) + state["partial"]["seconds"]
    return state["state_dict"], origin | {"training_seconds": round(seconds, 1), "updates": state["step"]}
