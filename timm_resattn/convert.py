"""A checkpoint becomes a folder that timm loads and that can go to the hub as it is.

The folder holds ``model.safetensors``, ``config.json`` and the model card ``README.md``, and
``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads it.
"""

import difflib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Union

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import create_model, list_models, save_for_hf
from torch import nn

from .checkpoints.adapt import SOURCES, load_weights, source_kind
from .checkpoints.caffe import blobs_of_archive, from_caffe
from .checkpoints.read import read_file, unwrap
from .checkpoints.training_args import check_model_kwargs, in_chans_of, num_classes_of, trained_with
from .model_card import converted_card

__all__ = ["KINDS", "convert", "without_num_classes"]

KINDS = ("auto", *SOURCES)


def convert(
    source: Union[str, Path],
    out_dir: Union[str, Path],
    model_name: str,
    kind: str = "auto",
    model_kwargs: Optional[Mapping[str, Any]] = None,
    num_classes: Optional[int] = None,
    label_names: Optional[Sequence[str]] = None,
    inverse_std: bool = False,
) -> Path:
    """Write a checkpoint as a folder for timm and the hub.

    The folder is built beside its place, or within if it is there and mounted, read back, through safetensors and
    through ``timm.create_model``, and compared bit for bit; only then it is moved there. Nothing in ``source`` is
    run. Weights are written in single precision.

    Args:
        source: A file of ``torch.save``; a ``.safetensors`` file; or an ``.npz`` archive of the blobs of an
            authors' Caffe network, blob i of layer L under the key ``L:i``, in pycaffe made by
            ``np.savez(path, **{f"{layer}:{i}": blob.data for layer, blobs in net.params.items() for i, blob in
            enumerate(blobs)})``.
        out_dir: The folder; it must not exist yet, or be empty.
        model_name: A model of this package, without tag.
        kind: What ``source`` holds: ``"timm"``, weights by this package's names; ``"donor"``, a residual
            network for the trunk, see `transplant_trunk`; ``"pytorchcv"``; ``"caffe-npz"``; or ``"auto"``, what
            its keys say.
        model_kwargs: Arguments of the model. A checkpoint of timm's train.py has its own, and its data
            configuration, which these override; ``pool_mode="ceil"`` is the default for ``"caffe-npz"``.
        num_classes: Classes, if not those of the checkpoint's classifier: only 0, to leave it out.
        label_names: Names of the classes, in order.
        inverse_std: For ``"caffe-npz"``: as of `from_caffe`, for blobs that the authors' fork of Caffe wrote.

    Returns:
        The folder.

    Raises:
        ValueError: Something does not fit or can't be read; one sentence says what. Nothing is written.
        OSError: The folder can't be written.
    """
    source, out_dir = Path(source), Path(os.path.realpath(out_dir))  # resolve() fails in a loop of links
    _check_model_name(model_name)
    if kind not in KINDS:
        raise ValueError(f"the kind of source must be one of {', '.join(KINDS)}; got {kind!r}.")
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise ValueError(f"{out_dir} exists and is not an empty folder.")

    checkpoint = read_file(source)
    try:
        tensors = unwrap(checkpoint)
        found = source_kind(tensors)
        if kind not in ("auto", found):
            raise ValueError(f"It is not {SOURCES[kind]} but, by its names, {SOURCES[found]}.")
        classes, in_chans = num_classes_of(tensors), in_chans_of(tensors)
        trained_kwargs, overlay = trained_with(checkpoint, found, model_name, in_chans, transplant=kind == "donor")
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    if inverse_std:
        if found != "caffe-npz":
            raise ValueError(f"only blobs of the authors' Caffe hold inverse deviations; {source} is {SOURCES[found]}.")
        tensors = from_caffe(blobs_of_archive(tensors), inverse_std=True)
    if num_classes not in (None, 0, classes):
        raise ValueError(f"{source} has {classes} classes, not {num_classes}.")
    classes = classes if num_classes is None else num_classes
    if label_names is not None and len(label_names) != classes:
        raise ValueError(f"there are {len(label_names)} label names for {classes} classes.")
    overlay["num_classes"] = classes
    kwargs = {**trained_kwargs, **(model_kwargs or {})}
    model = _build(model_name, overlay, dict(kwargs, num_classes=classes, in_chans=in_chans))
    load_weights(model, tensors)
    labels = {} if label_names is None else {"label_names": list(label_names)}

    try:
        nearest = next(folder for folder in out_dir.parents if folder.exists())
        if out_dir.exists() and not (os.access(nearest, os.W_OK) and out_dir.stat().st_dev == nearest.stat().st_dev):
            nearest = out_dir  # a mounted folder, for example
        with tempfile.TemporaryDirectory(prefix=f".{out_dir.name}.", dir=nearest) as scratch:
            folder = Path(scratch, out_dir.name)
            save_for_hf(
                model,
                str(folder),
                model_config=labels,
                model_args=dict(kwargs, in_chans=in_chans),
                safe_serialization=True,
            )
            without_num_classes(folder / "config.json")
            card = converted_card(model, out_dir.name, found, source.name)
            (folder / "README.md").write_text(card, encoding="utf-8")
            # safetensors writes a file for its owner only
            (folder / "model.safetensors").chmod((folder / "README.md").stat().st_mode & 0o777)
            _compare(model, folder)
            out_dir.parent.mkdir(parents=True, exist_ok=True)
            if out_dir.exists():  # and stays the same folder
                for path in sorted(folder.iterdir()):  # the weights last
                    shutil.move(path, out_dir / path.name)  # which may be a mount of the same disk
            else:
                folder.rename(out_dir)
    except (RuntimeError, SafetensorError) as error:  # a full disk, for example
        raise OSError(f"{out_dir} could not be written ({error}).") from error
    return out_dir


def _check_model_name(model_name: str) -> None:
    names = list_models(module="resattn")
    if model_name not in names:
        near = difflib.get_close_matches(model_name.partition(".")[0], names, n=3) or names
        raise ValueError(f"there is no model {model_name!r}; there is {', '.join(near)}.")


def without_num_classes(path: Path) -> None:
    """Take ``num_classes`` out of the ``model_args`` of a ``config.json``.

    timm writes it there and beside them; transformers hands both to ``timm.create_model``, which takes one.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    config.get("model_args", {}).pop("num_classes", None)  # older timm writes no model_args
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")


def _build(model_name: str, overlay: Dict[str, Any], kwargs: Dict[str, Any]) -> nn.Module:
    check_model_kwargs(kwargs)
    try:
        json.dumps(kwargs)
        return create_model(model_name, pretrained_cfg_overlay=overlay, **kwargs)
    except (
        AttributeError,
        KeyError,
        OverflowError,
        TypeError,
    ) as error:  # of layers that timm does not know, and so on
        raise ValueError(f"the arguments of the model make no sense ({type(error).__name__}: {error}).") from error


def _compare(model: nn.Module, folder: Path) -> None:
    """Read a folder back in both ways and compare every tensor with the model's, bit for bit."""
    wanted = model.state_dict()
    for read in (
        lambda: load_file(folder / "model.safetensors"),
        lambda: create_model(f"local-dir:{folder}", pretrained=True).state_dict(),
    ):
        found = read()
        wrong = wanted.keys() ^ found.keys()
        wrong |= {name for name in wanted.keys() & found.keys() if not torch.equal(wanted[name], found[name])}
        if wrong:
            raise OSError(f"what was read back differs from what was written: {', '.join(sorted(wrong))}.")
