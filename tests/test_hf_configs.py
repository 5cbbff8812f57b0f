"""hf_configs/ is in step with the code, and what it says of the weights is true of them."""

import importlib
import json
from pathlib import Path

import pytest
import timm
import torch

import timm_resattn  # noqa: F401  registers the models

ROOT = Path(__file__).resolve().parent.parent / "hf_configs"
NAMES = timm.list_models(module="resattn", pretrained=True)
TIMM_VERSION = tuple(int(part) for part in timm.__version__.split(".")[:3])

if not ROOT.is_dir():
    pytest.skip("hf_configs/ is part of the repository only", allow_module_level=True)

cards = importlib.import_module("benchmarks.release.cards")
generator = importlib.import_module("benchmarks.release.hub")


@pytest.mark.skipif(TIMM_VERSION < (1, 0, 31), reason="this timm writes config.json in an older form")
def test_in_step(tmp_path):
    assert generator.out_of_step(ROOT, tmp_path) == []


def test_one_folder_a_pretrained_name():
    assert sorted(path.parent.name for path in ROOT.glob("*/config.json")) == sorted(NAMES)


def test_differences_are_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(generator.timm, "list_models", lambda **kwargs: NAMES[:1])
    folder, scratch = tmp_path / "folder", tmp_path / "scratch"
    folder.mkdir()
    scratch.mkdir()
    generator.generate(folder)
    assert generator.out_of_step(folder, scratch) == []
    (folder / NAMES[0] / "config.json").write_text("{}")
    (folder / NAMES[0] / "README.md").unlink()
    (folder / "gone").mkdir()
    (folder / "gone" / "config.json").touch()
    wanted = ["gone/config.json", f"{NAMES[0]}/README.md", f"{NAMES[0]}/config.json"]
    assert generator.out_of_step(folder, scratch) == wanted
    generator.generate(folder)
    assert generator.out_of_step(folder, scratch) == []
    assert not (folder / "gone").exists()


@pytest.mark.parametrize("name", NAMES)
def test_builds(name):
    model = timm.create_model(f"local-dir:{ROOT / name}", device="meta")
    assert model.pretrained_cfg["architecture"] == name.partition(".")[0]
    cfg = timm.models.get_pretrained_cfg(name).to_dict()
    for use_test_size in (False, True):
        config = timm.data.resolve_model_data_config(model, use_test_size=use_test_size)
        registered = timm.data.resolve_data_config(pretrained_cfg=cfg, use_test_size=use_test_size)
        assert json.loads(json.dumps(config)) == json.loads(json.dumps(registered))  # tuples as lists


@pytest.mark.parametrize("name", NAMES)
def test_no_source_and_no_path_of_a_machine(name):
    text = (ROOT / name / "config.json").read_text()
    assert not {"file", "url", "hf_hub_id", "source"} & json.loads(text)["pretrained_cfg"].keys()
    assert not any(str(folder) in text for folder in (ROOT.parent, Path.home()) if len(folder.parts) > 1)


@pytest.mark.parametrize("name", NAMES)
def test_cards_say_what_the_weights_are(name):
    card = (ROOT / name / "README.md").read_text(encoding="utf-8")
    cfg = timm.models.get_pretrained_cfg(name)
    assert f'timm.create_model("{name}", pretrained=True)' in card
    assert "@inproceedings{wang2017residual," in card
    assert f"\nlicense: {cfg.license or 'unknown'}\n" in card
    if cfg.hf_hub_id:
        assert "**The masks are untrained.**" in card
        assert f"\nbase_model: {cfg.hf_hub_id}\n" in card
        donor = timm.models.get_pretrained_cfg(cfg.hf_hub_id.partition("/")[2])
        assert cfg.license == donor.license
        assert "@misc{rw2019timm," in card
        assert card.count("@") >= 3  # the paper, timm, the donor's own papers
    elif cfg.url:
        assert "states no licence" in card
        assert cfg.url in card


def test_card_of_weights_that_ship(monkeypatch, tmp_path):
    """A made-up entry."""
    entry = dict(accuracy=95.1, dataset="CIFAR-10", record="results/x", commit="abc", schedule="9 epochs", seed=3)
    monkeypatch.setattr(cards, "read_manifest", lambda: {"x.safetensors": entry})
    overlay = dict(file=str(tmp_path / "x.safetensors"), tag="made_up")
    card = cards.pretrained_card(timm.create_model("resattn56_cifar", device="meta", pretrained_cfg_overlay=overlay))
    assert "# resattn56_cifar.made_up\n" in card
    assert "95.1% top-1 on the 10,000 test images of CIFAR-10" in card
    assert "9 epochs; seed 3, commit abc. Commands, configuration and hardware: `results/x`" in card
    assert "\ndatasets:\n- cifar10\n" in card
    assert "untrained" not in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize("name", NAMES)
def test_transformers_builds_the_same_network(name):
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.from_pretrained(ROOT / name)
    with torch.device("meta"):
        model = transformers.AutoModelForImageClassification.from_config(config)
    wanted = timm.create_model(f"local-dir:{ROOT / name}", device="meta").state_dict()
    found = model.timm_model.state_dict()
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in wanted.items()}
    assert config.num_labels == timm.get_pretrained_cfg(name).num_classes
