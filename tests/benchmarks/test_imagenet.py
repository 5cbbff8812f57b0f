"""The ImageNet page: its networks exist."""

import re

import timm

import timm_resattn  # noqa: F401  registers the models
from benchmarks.common.provenance import ROOT

PAGE = ROOT / "docs" / "imagenet.md"


def test_every_network_of_the_page_exists():
    names = set(re.findall(r"--model (\S+)", PAGE.read_text()))
    assert {"resattn50", "resattn56", "resattn92"} <= names
    assert all(timm.is_model(name) for name in names)
