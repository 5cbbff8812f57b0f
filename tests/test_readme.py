"""What the README and the results say is what the code gives."""

import re
from pathlib import Path

import pytest
import timm

import timm_resattn  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"

pytestmark = pytest.mark.skipif(not README.exists(), reason="a source distribution has neither README nor benchmarks")


def test_every_model_named_exists():
    names = set(re.findall(r"\bresattn(?:ext|_inception)?\d+\w*", README.read_text()))
    assert names >= {"resattn56", "resattn92", "resattn56_cifar"}
    assert names <= set(timm.list_models(module="resattn")) | {"resattn56_cifar10"}


def test_every_link_to_a_file_exists():
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", README.read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
