"""Masks or not: which networks are compared, and what the table says of them."""

import json

import pytest
from cifar_runs import end_at_once, several_arguments
from helpers import random_cifar

from benchmarks.cifar import masks_or_not as command
from benchmarks.cifar.many import folder_of
from benchmarks.cifar.recipe import RECIPES
from benchmarks.cifar.run import Run
from benchmarks.common.files import read_csv


@pytest.fixture
def finished(monkeypatch):
    return end_at_once(monkeypatch, command)


def test_the_trunk_is_the_networks_without_its_masks():
    whole, trunk, deeper = (
        Run(arm.model, RECIPES["modern"], arm.model_kwargs).create_model()
        for arm in list(command.ARMS.values())[:4]
        if arm.epochs == 1
    )
    sizes = [sum(p.numel() for p in model.parameters()) for model in (whole, trunk, deeper)]
    masks = sum(p.numel() for name, p in whole.named_parameters() if ".mask." in name)
    assert sizes[1] == sizes[0] - masks
    assert abs(sizes[2] / sizes[0] - 1) < 0.07


def test_what_each_arm_is_given():
    base = RECIPES["modern"]
    recipes = {name: command.recipe_for(arm, base) for name, arm in command.ARMS.items()}
    assert recipes[command.MASKS] == recipes[command.BARE] == base
    assert [recipe.epochs for recipe in recipes.values()] == [40, 40, 60, 40, 20, 20, 20, 30]
    tuned = [recipe for name, recipe in recipes.items() if command.ARMS[name].donor]
    assert {(recipe.lr, recipe.crop, recipe.warmup_epochs) for recipe in tuned} == {(base.lr / 2, 0, 0.5)}


def test_from_the_command_to_its_table(tmp_path, finished):
    assert command.main(several_arguments(tmp_path, "--epochs", "6", "--seeds", "0", "1")) == 0
    assert len(finished) == 16 and [run.init is not None for run in finished] == [False] * 8 + [True] * 8
    donor = {run.seed: folder_of(run, tmp_path / "runs") for run in finished[1:8:4]}
    assert all(run.init == str(donor[run.seed] / "model.safetensors") for run in finished[8:])
    assert [run.train_only for run in finished[8:]] == [None, "masks", None, None] * 2
    text = command.as_markdown(read_csv(tmp_path / "results" / command.FILE))
    assert f"| {command.MASKS} | 0.00M | 6 | 0 | 12.00 ± 2.83 |  |" in text  # 10 and 14: four arms lie between
    assert f"| {command.BARE} | 0.00M | 6 | 0 | 13.00 ± 2.83 | +1.00 ± 0.00 (2 seeds): worse |" in text
    assert (
        "| the trunk trained on, as much time | 0.00M | 4 | 0 | 23.00 ± 2.83 | +3.00 ± 0.00 (2 seeds): worse |" in text
    )
    assert f"c, 1 thread; `{command.COMMAND} --data-dir DIR --recipe modern --epochs 6 --seeds 0 1`" in text


def test_some_arms_alone_and_their_donor(tmp_path, finished):
    chosen = "the trunk trained on, as much time"
    assert command.main(several_arguments(tmp_path, "--epochs", "6", "--arms", chosen)) == 0
    rows = read_csv(tmp_path / "results" / command.FILE)
    assert [row["row"] for row in rows] == [command.BARE, chosen]


def test_nothing_measured_is_said():
    assert command.as_markdown([]) == "Whether masks earn their place has not been measured yet.\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--arms", "masks"], "argument --arms: invalid choice: 'masks'"),
        (["--prune", "0.6"], "prune must be from 0 to 0.5; got 0.6"),
        (["--jobs", "0"], "--jobs must be at least 1; got 0"),
    ],
)
def test_bad_options_are_one_sentence(tmp_path, finished, capsys, options, message):
    with pytest.raises(SystemExit, match="2"):
        command.main(several_arguments(tmp_path, *options))
    assert message in capsys.readouterr().err and finished == []


@pytest.mark.slow
def test_fine_tuning_begins_where_the_trunk_ended(tmp_path, capfd):
    random_cifar(tmp_path, 40, 20)
    arms = [command.ON_TRUNK, "fresh masks on the trunk, which stays"]
    options = ["--epochs", "1", "--warmup-epochs", "0", "--batch-size", "20", "--crop", "0", "--prune", "0"]
    assert command.main(several_arguments(tmp_path, *options, "--arms", *arms, "--max-seconds", "0")) == 0
    assert "1 of 1 runs are not at their end" in capfd.readouterr().err  # the donor; what needs it waits
    assert command.main(several_arguments(tmp_path, *options, "--arms", *arms)) == 0
    assert [row["row"] for row in read_csv(tmp_path / "results" / command.FILE)] == [command.BARE, *arms]
    results = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/result.json")]
    begun = [result["start"]["sha256"] for result in results if "start" in result]
    assert len(begun) == 2 and begun[0] == begun[1]
