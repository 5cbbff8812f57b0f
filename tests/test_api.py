"""The public names, their arguments, and the commands with their options are those of ``api.txt``.

After a change that is meant: ``python tests/test_api.py``, and a line in CHANGELOG.md.
"""

import argparse
import inspect
from pathlib import Path
from unittest import mock

import timm

import timm_resattn
from timm_resattn.cli import main

LIST = Path(__file__).with_name("api.txt")


class _StopError(Exception):
    pass


def _signature(thing) -> str:
    """Names and defaults of the arguments; annotations are spelt differently from Python to Python."""
    parameters = inspect.signature(thing).parameters.values()
    return str(inspect.Signature([parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]))


def _command_line() -> argparse.ArgumentParser:
    found = []

    def stop(parser, *args):
        found.append(parser)
        raise _StopError

    with mock.patch.object(argparse.ArgumentParser, "parse_args", stop):
        try:
            main([])
        except _StopError:
            return found[0]


def _options(parser: argparse.ArgumentParser) -> list[str]:
    told = []
    for action in parser._actions:
        if not isinstance(action, (argparse._HelpAction, argparse._SubParsersAction)):
            name = ", ".join(action.option_strings) or action.metavar or action.dest
            choices = f" {{{','.join(map(str, action.choices))}}}" if action.choices else ""
            told.append(name + choices)
    return told


def public() -> str:
    """All of it, a line each."""
    lines = []
    for name in timm_resattn.__all__:
        thing = getattr(timm_resattn, name)
        lines.append(f"timm_resattn.{name}{_signature(thing) if callable(thing) else ''}")
        if inspect.isclass(thing):
            own = [(key, value) for key, value in vars(thing).items() if callable(value) and key[0] != "_"]
            lines += [f"timm_resattn.{name}.{key}{_signature(value)}" for key, value in own]
    lines += [f"model {name}" for name in sorted(timm.list_models(module="resattn"))]
    lines += [f"weights {name}" for name in sorted(timm.list_models(module="resattn", pretrained=True))]
    parser = _command_line()
    lines += [f"timm-resattn {option}" for option in _options(parser)]
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for name, command in commands.choices.items():
        lines += [f"timm-resattn {name}", *(f"timm-resattn {name} {option}" for option in _options(command))]
    return "\n".join(lines) + "\n"


def test_the_public_interface_is_the_listed_one():
    assert public() == LIST.read_text(), "if the change is meant: python tests/test_api.py, and a line in CHANGELOG.md"


if __name__ == "__main__":
    LIST.write_text(public())
