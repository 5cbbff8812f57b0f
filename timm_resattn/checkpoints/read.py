"""Reading files of weights from anywhere; nothing in them is run."""

import argparse
import pickle
import re
import zipfile
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
MOST_UNPACKED = 20  # times its size, to which an archive may unpack; weights hardly compress
SMALL = 64 << 20  # bytes to which any archive may


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
        if zipfile.is_zipfile(path) or _starts_as_zip(path):
            _check_archive(path)
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


def _starts_as_zip(path: Path) -> bool:
    """As torch decides: it reads an archive whose end is not where it should be, too."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\3\4"


def _check_archive(path: Path) -> None:
    """Raise an error if it unpacks to far more than its size, or a checksum, which torch ignores, is another."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        unpacked = sum(entry.file_size for entry in entries)
        if unpacked > max(SMALL, MOST_UNPACKED * path.stat().st_size):
            raise zipfile.BadZipFile(f"it unpacks to {unpacked >> 20} MB")
        # without any after torch.serialization.set_crc32_options(False)
        damaged = archive.testzip() if any(entry.CRC for entry in entries) else None
        if damaged:
            raise zipfile.BadZipFile(f"{damaged} is not what was written")


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
    if isinstance(error, zipfile.BadZipFile) and zipfile.is_zipfile(path):
        return f"is damaged ({error})"
    with path.open("rb") as file:
        start = file.read(4)
    if not start.startswith((b"PK\3\4", b"\x80")):  # a zip archive or, of old, a pickle
        return "is no file of torch.save"
    if isinstance(error, pickle.UnpicklingError):
        return "is no file of torch.save, or one that holds more than tensors"
    return "is damaged or not complete: it cannot be read to its end"


def _is_not_stored(tensor: torch.Tensor) -> bool:
    """A few bytes may name any shape: by strides of 0, sparse, on the meta device, or with a side of 0."""
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.numel() == 0:
        return True
    return tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()


def unwrap(checkpoint: Mapping[str, Any]) -> StateDict:
    """The weights of a checkpoint: averaged ones first, without the names that training tools put around them.

    Those are `WRAPPERS`, prefixes of DistributedDataParallel (``module.``), torch.compile (``_orig_mod.``) and
    Lightning (``model.``), and the counter ``n_averaged`` of torch's ``AveragedModel``.

    Raises:
        ValueError: Something in it is no tensor, or one of which not all is stored, or two tensors have one name
            without their prefixes.
    """
    for _ in WRAPPERS:  # not endlessly: a file may hold itself
        checkpoint = next((checkpoint[key] for key in WRAPPERS if isinstance(checkpoint.get(key), Mapping)), checkpoint)
    strange = [str(name) for name, value in checkpoint.items() if not isinstance(value, torch.Tensor)]
    if strange or not checkpoint:
        raise ValueError(f"The checkpoint holds no weights but {', '.join(strange[:10]) or 'nothing'}.")
    hollow = [str(name) for name, tensor in checkpoint.items() if _is_not_stored(tensor)]
    if hollow:
        raise ValueError(f"Not all of {', '.join(hollow[:10])} is stored: empty, sparse, repeated or without data.")
    tensors: StateDict = {}
    for full_name, tensor in checkpoint.items():
        name = PREFIXES.sub("", str(full_name))
        if name in tensors:
            raise ValueError(f"The checkpoint holds {name} twice, under several prefixes.")
        if name != "n_averaged":
            tensors[name] = tensor
    return tensors
