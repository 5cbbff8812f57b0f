"""Options as timm's scripts take them."""

import argparse
from typing import Any

from timm.utils import ParseKwargs


class KeyValues(ParseKwargs):
    """timm's ``KEY=VALUE ...``, where a pair that is none is the parser's error."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *args: Any) -> None:
        try:
            super().__call__(parser, namespace, values, *args)
        except (SyntaxError, ValueError):
            raise argparse.ArgumentError(
                self, f"must be KEY=VALUE pairs of Python values; got {' '.join(values)}"
            ) from None
