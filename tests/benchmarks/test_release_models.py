"""The tables of models and of weights: each once, with its licence."""

import timm
from timm.models import list_models

from benchmarks.release import models, weights
from benchmarks.release.models import row_of, rows_of


def test_every_network_is_in_one_row(monkeypatch):
    names = list_models(module="resattn")
    monkeypatch.setattr(models, "row_of", lambda row: (", ".join(row), *"1234567"))
    text = models.block()
    cells = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines()[2:]]
    assert sorted(name for cell in cells for name in cell.split(", ")) == sorted(names)
    assert rows_of(["resattn92", "resattn128_cifar", "resattn128", "resattn452"]) == [
        ["resattn92"], ["resattn128_cifar"], ["resattn128", "resattn452"],
    ]  # fmt: skip


def test_a_row_says_what_the_default_weights_are():
    _, tag, accuracy, donor, masks, *sizes = row_of(["resattnext92_32x4d"])
    assert (tag, masks) == ("`a1h_in1k`", "untrained")
    assert (accuracy, donor) == ("81.14% at 224, 82.02% at 288", "`resnext50_32x4d`: 25.0M, 4.23")
    assert sizes == ["52.1M", "10.70", "224"]
    assert row_of(["resattn56"])[1:5] == ("-", "-", "-", "-")
    _, _, accuracy, _, masks, *_ = row_of(["resattn56_cifar"])
    assert accuracy.endswith("% (CIFAR-10)") and masks == "trained"


def test_all_weights_are_listed_with_their_licence():
    rows = [line.split(" | ") for line in weights.block().splitlines()[2:]]
    found = {f"{name.strip('| `')}.{tag.strip('*`')}": rest for name, tag, *rest in rows}
    assert sorted(found) == sorted(timm.list_pretrained("resattn*")) and len(rows) == len(found)
    assert sum(full.startswith("resattnext92_32x4d.") for full in found) == 10
    for tag in ("fb_ssl_yfcc100m_ft_in1k", "fb_swsl_ig1b_ft_in1k"):
        assert found[f"resattnext92_32x4d.{tag}"][-1] == "cc-by-nc-4.0 |"
    assert found["resattn56_dskip.phamquiluan_in1k"] == ["-", "77.02%", "none stated |"]
    defaults = [row[0] for row in rows if row[1].startswith("**")]
    assert len(defaults) == len(set(defaults)) == len({row[0] for row in rows})
