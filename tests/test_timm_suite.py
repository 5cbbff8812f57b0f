"""timm's own `tests/test_models.py`, unmodified, run over the models of this package.

The file comes from the source distribution of the timm that is installed. It runs in a process of its own,
where `timm_suite_plugin` restricts timm to our models. Small networks pass every general test, others some.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections import Counter, defaultdict
from pathlib import Path
from xml.etree import ElementTree

import pytest
import timm

import timm_resattn

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # a minute or two each, on two idle cores

PLUGIN = Path(__file__).with_name("timm_suite_plugin.py")

IMAGENET = ("resattn56", "resattn56_dskip", "resattnext56_32x4d", "resattn_inception56")
CIFAR = ("resattn56_cifar", "resattn92_cifar", "resattn128_cifar", "resattn164_cifar")
OTHERS = tuple(name for name in timm.list_models(module="resattn") if name not in IMAGENET + CIFAR)

# The general tests that every timm from 1.0.21 on has; each model of a group must pass each of its group's.
SUBSET = (
    "test_model_forward",
    "test_model_backward",
    "test_model_default_cfgs",
    "test_model_forward_features",
)
GENERAL = (
    *SUBSET,
    "test_model_forward_torchscript",
    "test_model_forward_intermediates_features",
    "test_model_forward_intermediates",
    "test_model_forward_fx",
    "test_model_backward_fx",
    "test_model_forward_fx_torchscript",
)
LATER = ("test_prune_intermediate_layers_contract",)  # required where timm has it
WITH_WEIGHTS = ("test_model_load_pretrained", "test_model_features_pretrained")

# Tests that may be skipped, for a listing that none of our models is in.
EMPTY_LISTINGS = {
    "test_model_inference",  # timm's own `test_*` models, against outputs stored on the hub
    "test_model_default_cfgs_non_std",  # transformers and hybrids, by name
    "test_model_features_space2depth_reduction",  # `efficientnet_[hx]_*`
    *WITH_WEIGHTS,  # until the package ships weights
}


@pytest.fixture(scope="module")
def timm_tests(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Content of timm's `tests/test_models.py`, its archive downloaded once into pytest's cache."""
    stem = f"timm-{timm.__version__}"
    archive = request.config.cache.mkdir("timm_sdist") / f"{stem}.tar.gz"
    if not archive.exists():
        folder = tmp_path_factory.mktemp("download")
        options = ["--no-deps", "--no-binary", "timm", "--retries", "2", "--timeout", "20"]
        command = [sys.executable, "-m", "pip", "download", *options, f"timm=={timm.__version__}"]
        pip = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if pip.returncode and "after connection broken by" in pip.stderr:
            pytest.skip(f"no network: pip cannot reach its index for the sources of {stem}")
        assert pip.returncode == 0, pip.stdout + pip.stderr
        partial = archive.with_name(f"{os.getpid()}.part")
        shutil.copyfile(folder / archive.name, partial)
        partial.replace(archive)  # all at once: another test process may be about to read it
    with tarfile.open(archive) as tar:
        member = tar.extractfile(f"{stem}/tests/test_models.py")
        assert member is not None
        return member.read()


def child_environment() -> dict[str, str]:
    """Return ours, less what would change what timm's tests do or be taken for the child's pytest options."""
    # GITHUB_ACTIONS makes timm's file leave out whole tests and large models, TORCH_* choose another device.
    drop = ("PYTEST_", "GITHUB_ACTIONS", "TORCH_BACKEND", "TORCH_DEVICE")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(drop)}
    package_root = str(Path(timm_resattn.__file__).parents[1])  # importable also when it is not installed
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), package_root)))
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    environment["HF_HUB_OFFLINE"] = "1"
    environment["TIMEOUT"] = "360"  # seconds a test, read by timm's file; its 120 are few on a busy machine
    return environment


@pytest.mark.parametrize(
    ("models", "tests"),
    [
        pytest.param(CIFAR, (), id="cifar"),
        pytest.param(IMAGENET, (), id="imagenet"),
        pytest.param(OTHERS, SUBSET, id="others"),
    ],
)
def test_timm_suite(models: tuple[str, ...], tests: tuple[str, ...], timm_tests: bytes, tmp_path: Path) -> None:
    # Away from timm's sources, whose `timm/` would shadow the installed package. The ini file keeps pytest
    # from taking up the settings of a project in a folder above.
    (tmp_path / "test_models.py").write_bytes(timm_tests)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    shutil.copy(PLUGIN, tmp_path)

    environment = child_environment()
    options = f"-p {PLUGIN.stem} -p no:cacheprovider -q --tb=short -W ignore --junitxml=report.xml".split()
    if importlib.util.find_spec("xdist"):
        options += ["-n", "2", "--dist", "worksteal"]
        environment["OMP_NUM_THREADS"] = "1"
    options += ["--resattn-models", " ".join(models)]
    targets = [f"test_models.py::{test}" for test in tests] or ["test_models.py"]
    child = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *targets],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if child.returncode != 0:
        pytest.fail(f"exit status {child.returncode}:\n{child.stdout[-12_000:]}", pytrace=False)

    passed: defaultdict[str, Counter[str]] = defaultdict(Counter)  # model -> test -> number of cases
    skipped: dict[str, str] = {}
    for case in ElementTree.parse(tmp_path / "report.xml").iter("testcase"):
        test, _, parameters = case.attrib["name"].partition("[")
        skip = case.find("skipped")
        if skip is not None:
            skipped[case.attrib["name"]] = skip.attrib["message"]
        else:
            parts = {part.partition(".")[0] for part in re.split(r"[-\]]", parameters)}  # without tags
            (model,) = parts.intersection(models)
            passed[model][test] += 1

    for model, counts in passed.items():
        print(f"{model}: {counts.total()} cases of {len(counts)} tests passed")
    for name, reason in skipped.items():
        print(f"skipped {name}: {reason}")

    unexpected = [
        f"{name}: {reason}"
        for name, reason in skipped.items()
        if name.partition("[")[0] not in EMPTY_LISTINGS or "empty parameter set" not in reason
    ]
    assert not unexpected
    for model in models:
        required = set(tests or GENERAL)
        if not tests:
            required.update(test for test in LATER if f"def {test}(".encode() in timm_tests)
            required.update(WITH_WEIGHTS if timm.get_pretrained_cfg(model).file else ())
        assert required <= set(passed[model]), f"{model} was left out"
