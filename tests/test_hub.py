"""``pretrained=True`` over real HTTP, from a server on this machine that stands in for the hub."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_scenarios import DONORS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What happened with a hub at hand, then with none."""
    folder = tmp_path_factory.mktemp("hub")
    env = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    env.update(PYTHONPATH=os.pathsep.join(sys.path), NO_PROXY="127.0.0.1", HF_HUB_DISABLE_PROGRESS_BARS="1")
    script = Path(__file__).with_name("hub_scenarios.py")
    for scenario in ("online", "offline"):
        subprocess.run([sys.executable, script, scenario, folder], env=env, check=True)
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in ("online", "offline")}


@pytest.fixture(scope="module")
def online(results):
    return results["online"]


@pytest.mark.parametrize("name", DONORS)
def test_plain_call_is_the_donor(online, name):
    assert online[name]["repo"].startswith(f"timm/{DONORS[name]}.")
    assert online[name]["error"] < 5e-5
    assert online[name]["differ"] > 1e-2  # between two images: the comparison could fail


def test_later_calls_download_nothing(online):
    assert online["downloads of later calls"] == []


def test_offline_from_the_cache(results):
    assert results["offline"]["resattn92"]["error"] < 1e-4


def test_other_head_and_stem(online):
    assert online["num_classes=7, in_chans=1"]["shape"] == [2, 7]
    assert online["num_classes=7, in_chans=1"]["error"] < 1e-4  # of a grey image as of three equal channels


def test_features_only(online):
    assert online["features_only"]["channels"] == [64, 256, 512, 1024, 2048]
    assert online["features_only"]["error"] < 1e-6


def test_url_is_pytorchcvs_network(online):
    assert online["url"]["error"] < 1e-5
