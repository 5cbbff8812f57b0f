"""What the parts of the modern recipe are worth: one change a run, never the test set."""

from dataclasses import asdict, replace

import pytest
from cifar_runs import end_at_once, several_arguments

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
    return end_at_once(monkeypatch, ablation)


def test_from_the_command_to_its_table(tmp_path, finished):
    assert ablation.main(several_arguments(tmp_path, "--epochs", "5", "--seeds", "0", "1")) == 0
    count = len(ablation.PARTS) + 1
    assert len(finished) == 2 * count and {run.val_images for run in finished} == {5000}
    assert {run.seed for run in finished[:count]} == {0} and {run.seed for run in finished[count:]} == {1}
    rows = ablation.read_csv(tmp_path / "results" / ablation.FILE)
    assert [row["row"] for row in rows] == [*ablation.PARTS, ablation.PAPER] * 2
    text = ablation.as_markdown(rows)
    assert "Error on validation, 3 images; c, 1 thread; " in text
    assert f"`{ablation.COMMAND} --model resattn56_cifar --data-dir DIR --recipe modern --val-images 5000" in text
    assert " --epochs 5 --seeds 0 1`" in text
    means = [10.0 + index + count / 2 for index in (0, count - 1)]  # of two seeds, in the order of the runs
    spread = f"{count / 2**0.5:.2f}"
    assert f"| {ablation.WHOLE} | {means[0]:.2f} ± {spread} |  | {means[0] - 1:.2f} ± {spread} |" in text
    assert f"| {ablation.PAPER} | {means[1]:.2f} ± {spread} | +{count - 1:.2f} ± 0.00 (2 seeds) |  |" in text


def test_some_parts_alone_join_the_others(tmp_path, finished):
    chosen = ["cosine", ablation.PAPER]
    assert ablation.main(several_arguments(tmp_path, "--epochs", "5", "--parts", *chosen)) == 0
    assert len(finished) == 2 and finished[0].recipe.sched == "cosine"
    assert ablation.main(several_arguments(tmp_path, "--epochs", "5", "--parts", "without cutout")) == 0
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
        ablation.main(several_arguments(tmp_path, *options))
    assert message in capsys.readouterr().err and finished == []
