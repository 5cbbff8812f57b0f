"""What the README, the documentation and the examples say is what the code does.

`tests/benchmarks/test_common.py` holds the generated blocks and the commands of `benchmarks/` to it.
"""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from packaging.version import parse
from PIL import Image

import timm_resattn  # noqa: F401
from timm_resattn.cli import main

ROOT = Path(__file__).resolve().parent.parent
README, DOCS, EXAMPLES = ROOT / "README.md", ROOT / "docs", ROOT / "examples"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
CARDS = sorted((ROOT / "hf_configs").glob("*/README.md"))
# a fenced block, and the comment before it that keeps it from being run
PYTHON = re.compile(r"(<!-- skip: [^\n]+ -->\n)?^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)

pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="a source distribution has no documentation")


def text_of(page):
    return re.sub(r"<!-- python -m (\S+).*?<!-- /python -m \1[^\n]*-->", "", page.read_text(), flags=re.DOTALL)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """What the snippets read, in the working folder: photo.jpg, and photos/ as an image folder of two classes."""
    rng = np.random.default_rng(0)
    for name in ("photo.jpg", *(f"photos/{s}/{c}/{i}.png" for s in ("train", "test") for c in "ab" for i in range(2))):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("page", [page for page in PAGES if PYTHON.search(page.read_text())], ids=lambda p: p.name)
def test_snippets_run(page, photos):
    if "plot_masks(" in page.read_text():
        pytest.importorskip("matplotlib")
    names = {"__name__": "snippet"}
    blocks = PYTHON.findall(page.read_text())
    assert any(not skipped for skipped, _ in blocks) or page.name == "training.md"
    for skipped, code in blocks:
        compiled = compile(code, str(page), "exec")
        if skipped:
            continue
        try:
            exec(compiled, names)
        except torch._dynamo.exc.UserError as error:
            if parse(torch.__version__) >= parse("2.14") or "Ne(Mod(" not in str(error):
                raise
            pytest.skip(f"torch {torch.__version__} exports even and odd sizes of an interpolated map apart")


@pytest.mark.parametrize("page", [*PAGES, *CARDS], ids=lambda p: str(p.relative_to(ROOT)))
def test_models_named_exist(page):
    names = set(re.findall(r"\bresattn(?:ext|_inception)?\d+(?:_\w+)?\b(?!\.)", text_of(page)))
    trained = {
        f"resattn{depth}_{run}" for depth in ("50", "56", "92") for run in ("paper", "a1", "a2", "masks", "tuned")
    }
    assert names - trained <= set(timm.list_models(module="resattn"))


def test_every_link_to_a_file_exists():
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())]
    assert links
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []


def test_readme_is_short():
    assert len(README.read_text().splitlines()) <= 200


def test_commands_named_answer_help(capsys):
    text = "".join(page.read_text() for page in (*PAGES, *CARDS, *EXAMPLES.glob("*.py")))
    commands = set(re.findall(r"timm-resattn ([a-z]+)", text))
    assert commands == {"app", "convert", "demo", "export", "list", "masks", "predict", "run"}
    for command in sorted(commands):
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert (command, stop.value.code) == (command, 0)
    capsys.readouterr()


def test_figures_are_those_of_the_script():
    sys.path.insert(0, str(DOCS))
    draw = importlib.import_module("draw")
    sys.path.remove(str(DOCS))
    assert (DOCS / "figures/module.svg").read_text() == draw.draw_module()
    assert (DOCS / "figures/network.svg").read_text() == draw.draw_network("resattn56")


def run_example(*args):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, args)], env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_fine_tuning_of_a_folder(photos):
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    options = ("--epochs", "1", "--batch-size", "20", "--seeds", "0", "--out", "plot.png")
    printed = run_example(EXAMPLES / "finetune.py", "photos", *options)
    assert re.fullmatch(r"((pretrained|from scratch), seed 0: [\d.]+% after 1 epochs\n){2}", printed)
    assert Path("plot.png").stat().st_size > 0


def test_fine_tuning_of_a_folder_that_is_not_there(tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    with pytest.raises(subprocess.CalledProcessError) as error:
        run_example(EXAMPLES / "finetune.py", tmp_path / "fotos")
    assert error.value.returncode == 2 and "fotos must hold the folders train and test" in error.value.stderr
    assert not list(tmp_path.iterdir())


def test_fine_tuning_of_unlike_classes(photos):
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    Path("photos/test/a").rename("photos/test/c")
    with pytest.raises(subprocess.CalledProcessError) as error:
        run_example(EXAMPLES / "finetune.py", "photos")
    assert error.value.returncode == 2 and "must hold the same classes" in error.value.stderr


def test_features(photos):
    assert "(1, 2048, 2, 2)" in run_example(EXAMPLES / "features.py", "photo.jpg", "--img-size", "40")


def test_features_of_a_picture_that_is_not_there():
    with pytest.raises(subprocess.CalledProcessError) as error:
        run_example(EXAMPLES / "features.py", "foto.jpg")
    assert error.value.returncode == 2 and "foto.jpg is not there" in error.value.stderr


def test_the_notebook_runs(photos):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(EXAMPLES / "masks.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=300).execute()
    assert any("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ()))
