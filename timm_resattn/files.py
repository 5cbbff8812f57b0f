"""Reading files of weights from anywhere; nothing in them is run."""

import argparse
import pickle
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ContextManager, Dict, Union

import numpy as np
import torch
from safetensors.torch import load_file

__all__ = ["read_file", "why_unreadable"]


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
        allow: ContextManager[Any] = nullcontext()
        if hasattr(torch.serialization, "safe_globals"):  # from torch 2.5
            allow = torch.serialization.safe_globals([argparse.Namespace])
        with allow:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of any kind: it is any content
        raise ValueError(f"{path} {why_unreadable(error)}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not tensors by name.")
    return content


def why_unreadable(error: BaseException) -> str:
    """What an exception of torch, safetensors or NumPy says about a file, as the end of a sentence."""
    for cause in (error, error.__cause__):
        if isinstance(cause, pickle.UnpicklingError):
            code = re.search(r"GLOBAL ([\w.]*\w)", str(cause))
            if code:
                return f"asks for code to be run ({code[1]}) and is refused: save tensors only"
            return "is no file of torch.save, or one that holds more than tensors"
    text = " ".join(str(error).split()).partition(". ")[0].rstrip(".") or type(error).__name__
    return f"cannot be read ({text})"
