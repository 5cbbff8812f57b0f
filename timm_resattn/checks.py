"""Checks of constructor arguments: one clear sentence that names the argument and what it may be."""

from typing import Any, Callable, Optional, Sequence, Tuple

from timm.layers import get_act_layer, get_norm_act_layer
from torch import nn

__all__ = ["check_choice", "check_int", "check_ints", "check_rate", "get_norm_act"]


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raise a `ValueError` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}.")


def check_int(name: str, value: Any, least: int) -> None:
    """Raise a `ValueError` unless ``value`` is an integer of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}; got {value!r}.")


def check_ints(name: str, value: Any, least: int, length: Optional[int] = None) -> Tuple[int, ...]:
    """Return ``value`` as a tuple of integers of at least ``least``, ``length`` of them if given, or raise."""
    right_length = isinstance(value, (list, tuple)) and len(value) > 0 and length in (None, len(value))
    if not right_length or any(not isinstance(v, int) or isinstance(v, bool) or v < least for v in value):
        stages = f", one for each of the {length} stages of depths" if length is not None else ""
        raise ValueError(f"{name} must be a sequence of integers of at least {least}{stages}; got {value!r}.")
    return tuple(value)


def check_rate(name: str, value: Any) -> None:
    """Raise a `ValueError` unless ``value`` is a number in [0, 1)."""
    if not isinstance(value, (int, float)) or not 0.0 <= value < 1.0:
        raise ValueError(f"{name} must be a number of at least 0 and less than 1; got {value!r}.")


def get_norm_act(norm_layer: Any, act_layer: Any) -> Callable[..., nn.Module]:
    """timm's norm-and-activation layer for a pair of names or classes, or a `ValueError`."""
    try:
        known = get_act_layer(act_layer) is not None
    except KeyError:
        known = False
    if not known:
        raise ValueError(f"act_layer must be a module class or timm's name of one, as 'relu'; got {act_layer!r}.")
    try:
        norm_act = get_norm_act_layer(norm_layer, act_layer=act_layer)
    except (AssertionError, KeyError):
        norm_act = None
    if norm_act is None:
        raise ValueError(
            "norm_layer must be a norm class or timm's name of one, as 'batchnorm2d', 'groupnorm' or 'layernorm2d'; "
            f"got {norm_layer!r}."
        )
    return norm_act
