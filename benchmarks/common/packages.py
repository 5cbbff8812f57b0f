"""Packages that a benchmark needs: which one is missing, and how to install it."""

import importlib


class MissingPackageError(RuntimeError):
    """A package is not installed."""


def require(package: str) -> None:
    """Import ``package``, or say how to install it.

    Raises:
        MissingPackageError: It is not installed.
    """
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise MissingPackageError(f'{package} is not installed: pip install "timm-resattn[bench]"') from error
