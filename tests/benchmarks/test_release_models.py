"""The table of models: every network once, its weights with their licence."""

import timm
from timm.models import list_models

from benchmarks.release import models
from benchmarks.release.models import row_of, rows_of


def test_every_network_is_in_one_row(monkeypatch):
    names = list_models(module="resattn")
    monkeypatch.setattr(models, "row_of", lambda row: (", ".join(row), *"12345678"))
    text = models.block()
    cells = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines()[2:]]
    assert sorted(name for cell in cells for name in cell.split(", ")) == sorted(names)
    assert rows_of(["resattn92", "resattn128_cifar", "resattn128", "resattn452"]) == [
        ["resattn92"], ["resattn128_cifar"], ["resattn128", "resattn452"],
    ]  # fmt: skip


def test_a_row_says_what_the_weights_are():
    _, tags, accuracy, donor, masks, licence, *sizes = row_of(["resattnext92_32x4d"])
    assert tags == "`a1h_in1k`, `a1_in1k`, 8 more" and masks == "untrained"
    assert (accuracy, donor) == ("81.14% at 224, 82.02% at 288", "`resnext50_32x4d`: 25.0M, 4.23")
    assert "**cc-by-nc-4.0**: `fb_ssl_yfcc100m_ft_in1k`, `fb_swsl_ig1b_ft_in1k`" in licence
    assert sizes == ["52.1M", "10.70", "224"]
    assert len(timm.list_pretrained("resattnext92_32x4d.*")) == 10
    assert row_of(["resattn56"])[1:6] == ("-", "-", "-", "-", "-")
    _, _, accuracy, _, masks, *_ = row_of(["resattn56_cifar"])
    assert accuracy.endswith("% (CIFAR-10)") and masks == "trained"
