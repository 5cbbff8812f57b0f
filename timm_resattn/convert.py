"""A checkpoint becomes a folder that timm loads and that can go to the hub as it is.

The folder holds ``model.safetensors``, ``config.json`` and the model card ``README.md``, and
``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads it.
"""

import argparse
import ast
import difflib
import inspect
import json
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.data import resolve_data_config
from timm.models import clean_state_dict, create_model, get_pretrained_cfg, is_model, list_models, save_for_hf
from torch import nn

from .checkpoints import adapt_state_dict, from_caffe
from .files import read_file
from .model_card import SOURCES, converted_card
from .network import ResAttn
from .transplant import donor_kind

__all__ = ["add_command", "convert", "key_value"]

StateDict = Dict[str, torch.Tensor]
KINDS = ("auto", *SOURCES)
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")  # in timm's order
# the classifier and the first convolution, in each kind of source
CLASSIFIERS = ("head.fc.weight", "fc.weight", "output.weight", "classifier:0")
STEMS = ("stem.conv.weight", "conv1.weight", "features.init_block.conv.conv.weight", "conv1:0")


def convert(
    source: Union[str, Path],
    out_dir: Union[str, Path],
    model_name: str,
    kind: str = "auto",
    model_kwargs: Optional[Mapping[str, Any]] = None,
    num_classes: Optional[int] = None,
    label_names: Optional[Sequence[str]] = None,
) -> Path:
    """Write a checkpoint as a folder for timm and the hub.

    The folder is built beside its place, read back, through safetensors and through ``timm.create_model``, and
    compared bit for bit; only then it is moved there. Nothing in ``source`` is run. Weights are written in
    single precision.

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

    Returns:
        The folder.

    Raises:
        ValueError: Something does not fit or can't be read; one sentence says what. Nothing is written.
        OSError: The folder can't be written.
    """
    source, out_dir = Path(source), Path(out_dir).resolve()
    _check_model_name(model_name)
    if kind not in KINDS:
        raise ValueError(f"the kind of source must be one of {', '.join(KINDS)}; got {kind!r}.")
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise ValueError(f"{out_dir} exists and is not an empty folder.")

    checkpoint = read_file(source)
    tensors = _unwrap(checkpoint, source)
    found = _kind(tensors, source)
    if kind not in ("auto", found):
        raise ValueError(f"{source} is not {SOURCES[kind]} but, by its keys, {SOURCES[found]}.")
    classes = next((t.shape[0] for t in map(tensors.get, CLASSIFIERS) if t is not None and t.ndim > 0), 0)
    if num_classes not in (None, 0, classes):
        raise ValueError(f"{source} has {classes} classes, not {num_classes}.")
    classes = classes if num_classes is None else num_classes
    if label_names is not None and len(label_names) != classes:
        raise ValueError(f"there are {len(label_names)} label names for {classes} classes.")
    in_chans = next((t.shape[1] for t in map(tensors.get, STEMS) if t is not None and t.ndim == 4), 3)

    try:
        trained_kwargs, overlay = _trained_with(checkpoint, found, model_name, in_chans)
    except (AssertionError, TypeError) as error:
        raise ValueError(f"{source} holds training arguments that make no sense ({error}).") from error
    overlay["num_classes"] = classes
    kwargs = {**trained_kwargs, **(model_kwargs or {})}
    model = _build(model_name, overlay, dict(kwargs, num_classes=classes, in_chans=in_chans))
    _load(model, tensors, found)
    labels = {} if label_names is None else {"label_names": list(label_names)}

    try:
        nearest = next(folder for folder in out_dir.parents if folder.exists())
        with tempfile.TemporaryDirectory(prefix=f".{out_dir.name}.", dir=nearest) as scratch:
            folder = Path(scratch, out_dir.name)
            save_for_hf(
                model,
                str(folder),
                model_config=labels,
                model_args=dict(kwargs, in_chans=in_chans),
                safe_serialization=True,
            )
            card = converted_card(model, out_dir.name, found, source.name)
            (folder / "README.md").write_text(card, encoding="utf-8")
            # safetensors writes a file for its owner only
            (folder / "model.safetensors").chmod((folder / "README.md").stat().st_mode & 0o777)
            _compare(model, folder)
            out_dir.parent.mkdir(parents=True, exist_ok=True)
            if out_dir.exists():  # and is empty
                out_dir.rmdir()
            folder.rename(out_dir)
    except (RuntimeError, SafetensorError) as error:  # a full disk, for example
        raise OSError(f"{out_dir} could not be written ({error}).") from error
    return out_dir


def _check_model_name(model_name: str) -> None:
    names = list_models(module="resattn")
    if model_name not in names:
        near = difflib.get_close_matches(model_name.partition(".")[0], names, n=3) or names
        raise ValueError(f"there is no model {model_name!r}; there is {', '.join(near)}.")


def _unwrap(checkpoint: Mapping[str, Any], source: Path) -> StateDict:
    """The weights of a checkpoint, the averaged ones first, without the prefixes of DDP and torch.compile."""
    wrapped = next((checkpoint[key] for key in WRAPPERS if isinstance(checkpoint.get(key), Mapping)), checkpoint)
    tensors = clean_state_dict({str(name): value for name, value in wrapped.items()})
    strange = [name for name, value in tensors.items() if not isinstance(value, torch.Tensor)]
    if strange or not tensors:
        raise ValueError(f"{source} holds no weights but {', '.join(strange[:10]) or 'nothing'}.")
    return tensors


def _kind(tensors: StateDict, source: Path) -> str:
    if source.suffix == ".npz":
        return "caffe-npz"
    if any(name.startswith("features.init_block.") for name in tensors):
        return "pytorchcv"
    return "timm" if donor_kind(tensors) is None else "donor"


def _trained_with(
    checkpoint: Mapping[str, Any], kind: str, model_name: str, in_chans: int
) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Model arguments and pretrained cfg, from train.py's arguments if the checkpoint has them."""
    args = checkpoint.get("args")
    args = vars(args) if isinstance(args, argparse.Namespace) else {}
    trained = str(args.get("model", model_name)).partition(".")[0]
    if kind == "timm" and trained != model_name and is_model(trained):
        raise ValueError(f"the checkpoint is one of {trained}, not of {model_name}.")

    kwargs: Dict[str, Any] = {"pool_mode": "ceil"} if kind == "caffe-npz" else {}
    if kind == "timm":
        kwargs.update(args.get("model_kwargs") or {})
        if args.get("gp"):
            kwargs["global_pool"] = args["gp"]

    cfg = get_pretrained_cfg(trained if is_model(trained) else model_name)
    assert cfg is not None
    # nothing that is known of the registered weights holds for these
    unknown = dict.fromkeys(("url", "file", "hf_hub_id", "tag", "license", "description", "origin_url"))
    overlay: Dict[str, Any] = dict(unknown, label_names=None, label_descriptions=None)
    overlay.update(test_input_size=cfg.test_input_size, test_crop_pct=cfg.test_crop_pct)
    if any(args.get(name) for name in ("img_size", "input_size", "crop_pct")):
        overlay.update(test_input_size=None, test_crop_pct=None)
    overlay.update(resolve_data_config(dict(args, in_chans=in_chans), pretrained_cfg=cfg.to_dict()))
    for size in ("input_size", "test_input_size"):
        if overlay[size]:
            overlay[size] = (in_chans, *overlay[size][1:])
    if overlay["input_size"] != cfg.input_size:
        overlay["pool_size"] = None
    for key in ("mean", "std"):
        values = overlay[key]
        if len(values) != in_chans:
            overlay[key] = (sum(values) / len(values),) * in_chans
    return kwargs, overlay


def _build(model_name: str, overlay: Dict[str, Any], kwargs: Dict[str, Any]) -> ResAttn:
    known = inspect.signature(ResAttn).parameters.keys() - {"device", "dtype"}
    unknown = kwargs.keys() - known
    if unknown:
        raise ValueError(f"a model has no argument {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}.")
    try:
        json.dumps(kwargs)
        model: Any = create_model(model_name, pretrained_cfg_overlay=overlay, **kwargs)
        return model
    except TypeError as error:
        raise ValueError(f"the arguments of the model must be JSON values ({error}).") from error


def _load(model: ResAttn, tensors: StateDict, kind: str) -> None:
    weights = adapt_state_dict(_from_npz(tensors) if kind == "caffe-npz" else tensors, model)
    wanted = model.state_dict()
    weights = {name: tensor for name, tensor in weights.items() if name in wanted}  # without a classifier left out
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _from_npz(arrays: StateDict) -> StateDict:
    blobs: Dict[str, List[torch.Tensor]] = {}
    for key in sorted(arrays, key=lambda key: (len(key), key)):
        layer, _, index = key.rpartition(":")
        if index != str(len(blobs.setdefault(layer, []))):
            raise ValueError(f"the keys of the archive must be LAYER:0, LAYER:1 and so on; {key!r} is none.")
        blobs[layer].append(arrays[key])
    return from_caffe(blobs)


def _compare(model: nn.Module, folder: Path) -> None:
    """Read a folder back in both ways and compare every tensor with the model's, bit for bit."""
    wanted = model.state_dict()
    for read in (
        lambda: load_file(folder / "model.safetensors"),
        lambda: create_model(f"local-dir:{folder}", pretrained=True).state_dict(),
    ):
        found = read()
        wrong = [name for name in wanted.keys() | found.keys() if not _equal(wanted.get(name), found.get(name))]
        if wrong:
            raise OSError(f"what was read back differs from what was written: {', '.join(sorted(wrong))}.")


def _equal(a: Optional[torch.Tensor], b: Optional[torch.Tensor]) -> bool:
    if a is None or b is None or a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))  # NaN equals itself


def add_command(commands: Any) -> None:
    """Add ``timm-resattn convert`` to the command line."""
    parser = commands.add_parser(
        "convert",
        help="write a checkpoint as a folder for timm and the hub",
        description="Write a checkpoint as a folder that timm loads and that can go to the hub as it is.",
    )
    parser.add_argument("source", metavar="SOURCE", help="file of torch.save, .safetensors, or .npz of Caffe's blobs")
    parser.add_argument("out_dir", metavar="OUT_DIR", help="folder to write; must not exist, or be empty")
    parser.add_argument("--model", required=True, metavar="NAME", help="model name, see timm-resattn list")
    parser.add_argument("--from", dest="kind", default="auto", choices=KINDS, help="what SOURCE holds (default: auto)")
    parser.add_argument(
        "--model-kwargs", nargs="*", default=[], type=key_value, metavar="KEY=VALUE", help="model arguments"
    )
    parser.add_argument("--num-classes", type=int, metavar="N", help="classes, if not those of SOURCE's classifier")
    parser.add_argument("--label-names", nargs="+", metavar="NAME", help="names of the classes, in order")
    parser.set_defaults(func=_convert)


def key_value(text: str) -> Tuple[str, Any]:
    """Parse an option's ``KEY=VALUE``: the value as a Python literal if it is one, else as text."""
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    try:
        return key, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return key, value


def _convert(args: argparse.Namespace) -> int:
    folder = convert(
        args.source, args.out_dir, args.model, args.kind, dict(args.model_kwargs), args.num_classes, args.label_names
    )
    print(f'{folder}: every tensor compared; timm.create_model("local-dir:{folder}", pretrained=True) loads it')
    return 0
