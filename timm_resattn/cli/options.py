"""The options that choose a model, shared by several commands."""

import argparse
from typing import Any, Dict, Mapping, Optional

import timm
from timm.utils import ParseKwargs

from ..checkpoints import check_values, load_weights, read_file, unwrap
from ..checkpoints.adapt import source_kind
from ..checkpoints.training_args import in_chans_of, num_classes_of, trained_with

__all__ = ["KeyValues", "add_model_kwargs", "add_model_options", "add_weight_options", "check_positive", "load_model"]


def check_positive(option: str, value: Optional[int]) -> None:
    """Raise a `ValueError` where an option's number, if it was given, is less than 1."""
    if value is not None and value < 1:
        raise ValueError(f"{option} must be at least 1; got {value}.")


class KeyValues(ParseKwargs):
    """timm's ``KEY=VALUE ...``, where a pair that is none is the parser's error."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *args: Any) -> None:
        try:
            super().__call__(parser, namespace, values, *args)
        except (SyntaxError, ValueError):
            raise argparse.ArgumentError(self, f"must be KEY=VALUE pairs; got {' '.join(values)}") from None


def add_model_kwargs(parser: argparse.ArgumentParser) -> None:
    """Add ``--model-kwargs``, a dict."""
    parser.add_argument(
        "--model-kwargs", nargs="*", default={}, action=KeyValues, metavar="KEY=VALUE", help="model arguments"
    )


def add_model_options(parser: argparse.ArgumentParser, default: str) -> None:
    """Add what `load_model` reads; ``default`` is the model's name if none is given."""
    parser.add_argument(
        "--model",
        default=default,
        metavar="NAME",
        help=f"model name, see timm-resattn list, or local-dir:FOLDER that convert wrote (default: {default})",
    )
    add_weight_options(parser)


def add_weight_options(parser: argparse.ArgumentParser) -> None:
    """Add what `load_model` reads but for the model's name."""
    parser.add_argument("--checkpoint", metavar="FILE", help="weights of timm's train.py, or a state dict")
    parser.add_argument(
        "--pretrained",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="use the model's published weights where no checkpoint is given (default: yes)",
    )
    parser.add_argument("--num-classes", type=int, metavar="N", help="classes, if not those of the weights")
    add_model_kwargs(parser)


def load_model(args: argparse.Namespace) -> Any:
    """The model that the options ask for, in evaluation mode; a `ValueError` of one sentence if there is none.

    A checkpoint of timm's train.py has the arguments of its model and data, which ``--model-kwargs`` overrides.
    """
    pretrained = args.pretrained and not args.checkpoint
    told, checkpoint = {}, None
    if args.checkpoint:
        checkpoint = read_file(args.checkpoint)
        if timm.is_model(args.model):
            try:
                told = _told_by(checkpoint, args.model)
            except ValueError as error:
                raise ValueError(f"{args.checkpoint}: {error}") from error
    kwargs = {**told, **args.model_kwargs}
    if args.num_classes is not None:
        kwargs["num_classes"] = args.num_classes
    try:
        model: Any = timm.create_model(args.model, pretrained=pretrained, **kwargs)
    except Exception as error:  # of any kind: names, arguments, the network, files
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = reason if len(reason) < 300 else f"{reason[:300]} ..."
        known = timm.is_model(args.model) or args.model.startswith("local-dir:")
        hint = "" if known else "; timm-resattn list prints the names"
        raise ValueError(f"could not create {args.model}: {reason}{hint}") from error
    if checkpoint is not None:
        try:
            load_weights(model, checkpoint)
        except ValueError as error:
            raise ValueError(f"{args.checkpoint}: {error}") from error
        return model.eval()
    check_values(model.state_dict())
    if pretrained and model.num_classes not in (0, model.pretrained_cfg["num_classes"]):
        raise ValueError(f"a classifier of {model.num_classes} classes is random; give --checkpoint FILE that has one.")
    return model.eval()


def _told_by(checkpoint: Mapping[str, Any], model_name: str) -> Dict[str, Any]:
    """Arguments of ``timm.create_model`` for a checkpoint's network, as far as it tells them."""
    tensors = unwrap(checkpoint)
    in_chans = in_chans_of(tensors)
    kwargs, overlay = trained_with(checkpoint, source_kind(tensors), model_name, in_chans)
    if classes := num_classes_of(tensors):
        kwargs["num_classes"] = classes
    return {**kwargs, "in_chans": in_chans, "pretrained_cfg_overlay": overlay}
