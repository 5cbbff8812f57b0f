"""Reading files of weights from anywhere; nothing in them is run."""

import argparse
import pickle
import re
from pathlib import Path
from typing import Any, Dict, Mapping, Union

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from .place import StateDict

__all__ = ["read_file", "unwrap"]

WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "net")  # in timm's order
# of DistributedDataParallel and AveragedModel, torch.compile, Lightning
PREFIXES = re.compile(r"^((module|_orig_mod|model|net)\.)+")


def read_file(path: Union[str, Path]) -> Dict[str, Any]:
    """Content of a ``.safetensors`` file, an ``.npz`` archive (as tensors), or a file of ``torch.save``.

    torch loads with ``weights_only``, and allows ``argparse.Namespace`` too, which timm's train.py saves.

    Raises:
        ValueError: There is no such file, it can't be read, or it is no mapping; one sentence.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is {'no file' if path.exists() else 'not there'}.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".npz":
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                return {name: torch.from_numpy(archive[name]) for name in archive.files}
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of any kind: it is any content
        raise ValueError(f"{path} {_why_unreadable(path, error)}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not tensors by name.")
    return content


def _why_unreadable(path: Path, error: Exception) -> str:
    """What is wrong with a file, as the end of a sentence; the libraries' own words are often a number or none."""
    code = re.search(r"GLOBAL ([\w.]*\w)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if code:
        return f"asks for code to be run ({code[1]}) and is refused: save tensors only"
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror or error})"
    if path.stat().st_size == 0:
        return "is empty"
    if isinstance(error, SafetensorError):
        return f"is no whole safetensors file ({error})"
    if path.suffix == ".npz":
        return f"is no whole .npz archive of numbers ({str(error).partition('. ')[0]})"
    with path.open("rb") as file:
        start = file.read(4)
    if not start.startswith((b"PK\3\4", b"\x80")):  # a zip archive or, of old, a pickle
        return "is no file of torch.save"
    if isinstance(error, pickle.UnpicklingError):
        return "is no file of torch.save, or one that holds more than tensors"
    return "is damaged or not complete: it cannot be read to its end"


def unwrap(checkpoint: Mapping[str, Any]) -> StateDict:
    """The weights of a checkpoint: averaged ones first, without the names that training tools put around them.

    Those are `WRAPPERS`, prefixes of DistributedDataParallel (``module.``), torch.compile (``_orig_mod.``) and
    Lightning (``model.``), and the counter ``n_averaged`` of torch's ``AveragedModel``.

    Raises:
        ValueError: Something in it is no tensor, or two tensors have one name without their prefixes.
    """
    while wrapped := [checkpoint[key] for key in WRAPPERS if isinstance(checkpoint.get(key), Mapping)]:
        checkpoint = wrapped[0]
    strange = [str(name) for name, value in checkpoint.items() if not isinstance(value, torch.Tensor)]
    if strange or not checkpoint:
        raise ValueError(f"The checkpoint holds no weights but {', '.join(strange[:10]) or 'nothing'}.")
    tensors: StateDict = {}
    for full_name, tensor in checkpoint.items():
        name = PREFIXES.sub("", str(full_name))
        if name in tensors:
            raise ValueError(f"The checkpoint holds {name} twice, under several prefixes.")
        if name != "n_averaged":
            tensors[name] = tensor
    return tensors
