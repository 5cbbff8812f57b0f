"""``pretrained=True`` over real HTTP, from a server on this machine that stands in for the hub."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_scenarios import FAULTS, donor_repo

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


def clear(error, *parts):
    """One sentence that names what is asked for, for a person who asked for pretrained weights."""
    kind, message = error
    assert kind == "RuntimeError"
    assert message.startswith("The pretrained weights of resattn")
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) < 600
    for part in parts:
        assert part in message


@pytest.mark.parametrize("name", ["resattn92", "resattnext92_32x4d"])
def test_plain_call_is_the_donor(online, name):
    assert online[name]["error"] < 1e-4
    assert online[name]["differ"] > 1e-2  # between two images: the comparison could fail


def test_later_calls_download_nothing(online):
    assert online["downloads of later calls"] == []


def test_offline_from_the_cache(results):
    assert results["offline"]["resattn92"]["error"] < 1e-4


def test_offline_without_a_copy(results):
    error = results["offline"]["not cached"]["first"]
    clear(error, donor_repo("fb_ssl_yfcc100m_ft_in1k"), "the cache holds no copy")


def test_other_head_and_stem(online):
    assert online["num_classes=7, in_chans=1"]["shape"] == [2, 7]
    assert online["num_classes=7, in_chans=1"]["error"] < 1e-4  # of a grey image as of three equal channels


def test_features_only(online):
    assert online["features_only"]["channels"] == [64, 256, 512, 1024, 2048]
    assert online["features_only"]["error"] < 1e-6


DAMAGED = "is not what the hub states (its SHA-256 differs), and was removed from the cache: try again"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("missing repository", "there is no such repository, or it is private"),
        ("missing file", "it holds no model.safetensors and no pytorch_model.bin"),
        ("connection cut", ""),
        ("damaged header", DAMAGED),
        ("damaged number", DAMAGED),
        ("truncated on the hub", "model.safetensors cannot be read"),
        ("hub is down", "nothing could be downloaded"),
    ],
)
def test_faults(online, fault, reason):
    clear(online[fault]["first"], "resattnext92_32x4d", f"the hub repository {donor_repo(FAULTS[fault])}", reason)
    # when the fault is over the same call works, and goes on working
    assert online[fault]["then"] is None
    assert online[fault]["later"] is None


def test_faults_leave_nothing_in_the_cache(online):
    assert online["left in the cache"] == []


def test_url_is_pytorchcvs_network(online):
    assert online["url"]["error"] < 1e-5


@pytest.mark.parametrize(
    ("fault", "reason"), [("url, missing", "404"), ("url, connection cut", "and was removed from the cache: try again")]
)
def test_faults_of_a_url(online, fault, reason):
    clear(online[fault]["first"], "resattn128_cifar", "from the URL http://127.0.0.1:", reason)
    assert online[fault]["then"] is None
    assert online[fault]["later"] is None  # from the cache


def test_a_file_that_was_there_before_is_not_removed(online):
    clear(online["url, foreign file"]["first"], "cifar.pth", "delete it and try again")
    assert online["url, foreign file"]["kept"]
