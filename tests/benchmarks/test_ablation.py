"""What the parts of the modern recipe are worth: one change a run, never the test set."""

import json
from dataclasses import asdict, replace

import pytest

from benchmarks.cifar import ablation
from benchmarks.cifar.recipe import RECIPES


def test_each_part_changes_what_it_says():
    base = replace(RECIPES["modern"], epochs=7)
    recipes = ablation.recipes_of(base)
    assert recipes[ablation.WHOLE] == base
    assert recipes.pop(ablation.PAPER) == replace(RECIPES["paper"], epochs=7)
    for name, recipe in recipes.items():
        changed = {key: value for key, value in asdict(recipe).items() if value != asdict(base)[key]}
        assert changed == ablation.PARTS[name], name  # so nothing is listed that the recipe is already


@pytest.fixture
def finished(monkeypatch):
    """Let every run be at its end at once; gives the runs that were asked for."""
    asked = []

    def carry_out(runs, args, data_dirs, began, done):
        asked.extend(runs)
        for index in range(len(runs)):
            folder = args.work_dir / str(index)
            folder.mkdir(parents=True)
            keys = (
                "parameters",
                "training_images",
                "training_seconds",
                "images_per_second",
                "device",
                "commit",
                "command",
            )
            averaged = runs[index].recipe.ema_decay > 0
            result = dict.fromkeys(keys, 1) | dict(error=10.0 + index, error_ema=9.0 + index if averaged else None)
            result |= dict(held_out="validation, 3 images", hardware=dict(cpu="c", threads=1, gpu=None))
            (folder / "result.json").write_text(json.dumps(result | dict(versions=dict(torch="2", timm="1"))))
            done(index, folder)
        return 0

    monkeypatch.setattr(ablation, "carry_out", carry_out)
    return asked


def arguments(tmp_path, *more):
    folders = {"--data-dir": tmp_path, "--work-dir": tmp_path / "runs", "--results-dir": tmp_path / "results"}
    return [*(str(word) for pair in folders.items() for word in pair), "--device", "cpu", *more]


def test_from_the_command_to_its_table(tmp_path, finished):
    assert ablation.main(arguments(tmp_path, "--epochs", "5", "--seeds", "0", "1")) == 0
    count = len(ablation.PARTS) + 1
    assert len(finished) == 2 * count and {run.val_images for run in finished} == {5000}
    assert {run.seed for run in finished[:count]} == {0} and {run.seed for run in finished[count:]} == {1}
    rows = ablation.read_csv(tmp_path / "results" / ablation.FILE)
    assert [row["row"] for row in rows] == [*ablation.PARTS, ablation.PAPER] * 2
    text = ablation.as_markdown(rows)
    assert "epochs: 5, seeds: 2; error on validation, 3 images" in text
    means = [10.0 + index + count / 2 for index in (0, count - 1)]  # of two seeds, in the order of the runs
    assert f"| {ablation.WHOLE} | {means[0]:.2f}% | {means[0] - 1:.2f}% |" in text
    assert f"| {ablation.PAPER} | {means[1]:.2f}% | - |" in text


def test_some_parts_alone_join_the_others(tmp_path, finished):
    chosen = ["cosine", ablation.PAPER]
    assert ablation.main(arguments(tmp_path, "--epochs", "5", "--parts", *chosen)) == 0
    assert len(finished) == 2 and finished[0].recipe.sched == "cosine"
    for folder in (tmp_path / "runs").iterdir():
        folder.joinpath("result.json").unlink()
        folder.rmdir()
    assert ablation.main(arguments(tmp_path, "--epochs", "5", "--parts", "without cutout")) == 0
    rows = ablation.read_csv(tmp_path / "results" / ablation.FILE)
    assert [row["row"] for row in rows] == [*chosen, "without cutout"] and len({row["schedule"] for row in rows}) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--val-images", "0"], "--val-images must be at least 1; got 0"),
        (["--jobs", "0"], "--jobs must be at least 1; got 0"),
        (["--parts", "mixin"], "argument --parts: invalid choice: 'mixin'"),
        (["--batch-size", "3"], "batch_size must be even with mixup"),
    ],
)
def test_bad_options_are_one_sentence(tmp_path, finished, capsys, options, message):
    with pytest.raises(SystemExit, match="2"):
        ablation.main(arguments(tmp_path, *options))
    assert message in capsys.readouterr().err and finished == []
