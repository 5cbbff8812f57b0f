"""Options that commands which train on CIFAR have in common."""

import argparse
from dataclasses import fields, replace

import torch

from benchmarks.cifar.recipe import RECIPES, Recipe


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """Where and how to compute: ``--device``, ``--amp``, ``--compile``."""
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")
    parser.add_argument("--amp", action=argparse.BooleanOptionalAction, default=True, help="bfloat16 autocast")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network, in place of CUDA graphs")


def device_of(name: str) -> torch.device:
    """The device of that name; raises a `ValueError` if there is none."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device must be cpu, cuda or another device of torch; got {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {name}: there is no CUDA device here; use --device cpu")
    return device


def check_least(name: str, value: float | None, least: float) -> None:
    """Raise a `ValueError` unless ``value``, where there is one, is at least ``least``."""
    if value is not None and not value >= least:
        raise ValueError(f"{name} must be at least {least}; got {value}")


def add_recipe_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """``--recipe`` and an option for each of a recipe's values."""
    parser.add_argument("--recipe", choices=tuple(RECIPES), default=default, help=f"default: {default}")
    group = parser.add_argument_group("values in place of the recipe's (see benchmarks.cifar.recipe.Recipe)")
    for field in fields(Recipe):
        flag = "--" + field.name.replace("_", "-")
        values = ", ".join(f"{name}: {getattr(recipe, field.name)}" for name, recipe in RECIPES.items())
        if field.type is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, help=values)
        else:
            metavar = {int: "N", float: "X", str: "NAME"}[field.type]
            group.add_argument(flag, type=field.type, metavar=metavar, help=values)


def recipe_of(args: argparse.Namespace) -> Recipe:
    """The recipe that the arguments ask for; raises a `ValueError` as `Recipe` does."""
    given = {f.name: getattr(args, f.name) for f in fields(Recipe) if getattr(args, f.name) is not None}
    return replace(RECIPES[args.recipe], **given)
