"""The page, by its functions and in a headless browser."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import timm
from PIL import Image

import timm_resattn  # noqa: F401
from timm_resattn.app import look, mask_channels
from timm_resattn.cli import main
from timm_resattn.visualize import capture_masks

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def model():
    return timm.create_model("resattn56_cifar", pretrained=True).eval()


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(path)
    return str(path)


def test_channels_are_those_of_the_masks(model):
    import torch

    with capture_masks(model) as masks, torch.no_grad():
        model(torch.rand(1, 3, 32, 32))
    assert mask_channels(model) == {name: mask.shape[1] for name, mask in masks.items()}


@pytest.mark.parametrize("how", ["effect", "mean", "varied", "channel:3", "pca"])
def test_a_look(model, picture, how):
    pytest.importorskip("matplotlib")
    probabilities, whole = look(model, picture, how=how)
    assert list(probabilities) == list(model.pretrained_cfg["label_names"])
    assert sum(probabilities.values()) == pytest.approx(1)
    _, single = look(model, picture, "stages.0.blocks.1", how, target=2)
    assert single.width < whole.width


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(path=__file__), "cannot be read as a picture"),
        (dict(module="stages.9"), "there is no module stages.9; there is stages.0.blocks.1"),
        (dict(how="median"), "how must be one of"),
    ],
)
def test_a_look_at_nothing_is_one_sentence(model, picture, arguments, message):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match=message):
        look(model, **{"path": picture, **arguments})


def test_without_the_extra_it_is_said(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["app", "--model", "resattn56_cifar"]) == 2
    assert 'pip install "timm-resattn[app]" brings it' in capsys.readouterr().err


@pytest.fixture
def page(tmp_path):
    """The page of ``timm-resattn app``, in a browser."""
    pytest.importorskip("gradio")
    pytest.importorskip("matplotlib")
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    command = [sys.executable, "-u", "-m", "timm_resattn", "app", "--model", "resattn56_cifar"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        line = next((line for line in server.stdout if "http://" in line), "")
        url = "http://" + line.partition("http://")[2].split()[0]
        with playwright.sync_playwright() as p:
            options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
            browser = p.chromium.launch(executable_path=CHROMIUM, args=options)
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            page.set_default_timeout(60_000)
            page.goto(url)
            yield page
            browser.close()
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
def test_the_page_in_a_browser(page, model, picture, tmp_path):
    def masks():
        return page.locator("#masks img").first.get_attribute("src")

    def wait_for_another(old):
        page.wait_for_function(
            "old => {const i = document.querySelector('#masks img'); return i && i.complete && i.src && i.src != old}",
            arg=old,
        )
        return masks()

    def choose(element, option):
        page.locator(f"#{element} input").first.click()
        page.get_by_role("option", name=option, exact=True).click()

    page.locator("#picture input[type=file]").set_input_files(picture)
    shown = wait_for_another("")
    names = timm.get_pretrained_cfg("resattn56_cifar").label_names
    assert any(name in page.locator("#prediction").inner_text().lower() for name in names)

    choose("reduction", "channel")
    shown = wait_for_another(shown)
    page.locator("#channel input[type=number]").fill("7")
    page.locator("#channel input[type=number]").press("Enter")
    shown = wait_for_another(shown)
    probabilities, _ = look(model, picture)
    choose("class", min(probabilities, key=probabilities.get))  # the predicted class would draw the same picture
    shown = wait_for_another(shown)
    choose("reduction", "effect")
    shown = wait_for_another(shown)
    choose("network", "resattn92_cifar")
    shown = wait_for_another(shown)
    page.screenshot(path=tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000

    page.locator("#picture button[aria-label='Clear'], #picture button[aria-label='Remove']").first.click()
    page.locator("#picture input[type=file]").set_input_files(__file__)
    page.get_by_text("cannot be read as a picture").first.wait_for()
