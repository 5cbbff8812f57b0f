"""The paper's tables again: what they hold, how they are run, rendered and shipped."""

import json
import math
import re
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from helpers import random_cifar
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from timm_resattn import shipped

paper = pytest.importorskip("benchmarks.paper")
paper_results = pytest.importorskip("benchmarks.paper_results")
report = pytest.importorskip("benchmarks.report")
responses = pytest.importorskip("benchmarks.responses")
run_all = pytest.importorskip("benchmarks.run_all")
ship = pytest.importorskip("benchmarks.ship")
tables = pytest.importorskip("benchmarks.paper_tables")
trainer = pytest.importorskip("benchmarks.cifar.trainer")
Recipe = pytest.importorskip("benchmarks.cifar.recipe").Recipe
RECIPES = pytest.importorskip("benchmarks.cifar.recipe").RECIPES
Run = trainer.Run

CELLS = [cell for table in (*tables.TABLES.values(), tables.FIGURE4) for cell in table.cells]


# --- the tables as data


def test_each_cell_is_a_network_of_the_paper_s_size():
    distinct = {(cell.model, *cell.model_kwargs.items()): cell for cell in CELLS}
    assert len(distinct) == 14
    for cell in distinct.values():
        model = timm.create_model(cell.model, device="meta", **cell.model_kwargs)
        if cell.paper_parameters:
            count = sum(p.numel() for p in model.parameters())
            assert count / 1e6 == pytest.approx(cell.paper_parameters, rel=0.04), cell


def test_the_bare_trunk_is_resnet_164():
    name, kwargs = tables.RESNET164
    model = timm.create_model(name, **kwargs)
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [len(list(c.parameters())) for c in convolutions if c.kernel_size == (3, 3)] == [
        1
    ] * 55  # 54 units, the stem
    assert sum(p.numel() for p in model.parameters()) == 1_703_258


def test_numbers_of_the_paper():
    found = {
        (number, cell.row, cell.column): cell.paper for number, table in tables.TABLES.items() for cell in table.cells
    }
    assert len(found) == 3 + 8 + 2 + 8 + 8
    assert found["1", "Attention-56", "mixed"] == found["3", "Attention-56", "ARL"] == 5.52
    assert found["3", "Attention-164", "NAL"] == 7.18
    assert found["4", "Attention-56", "local convolutions"] == 6.48
    assert found["5", "noise 70%", "ResNet-164"] == 17.21 and found["5", "noise 10%", "Attention-92"] == 5.15
    assert found["6", "Attention-452", "CIFAR-10"] == 3.90 and found["6", "Attention-452", "CIFAR-100"] == 20.45
    assert [cell.label_noise for cell in tables.TABLES["5"].cells] == [0.1, 0.1, 0.3, 0.3, 0.5, 0.5, 0.7, 0.7]


def test_tables_share_their_runs(tmp_path):
    def folder(number, column, seed=0):
        cell = next(cell for cell in tables.TABLES[number].cells if cell.column == column)
        run = Run(cell.model, RECIPES["paper"], dict(cell.model_kwargs), label_noise=cell.label_noise, seed=seed)
        return run_all.folder_of(run, tmp_path)

    assert folder("1", "mixed") == folder("3", "ARL") == folder("4", "encoder-decoder")
    others = {folder("1", "mixed", seed=1), folder("1", "channel"), folder("3", "NAL"), folder("5", "Attention-92")}
    assert len(others | {folder("1", "mixed")}) == 5


# --- running them


@pytest.fixture
def data(tmp_path):
    random_cifar(tmp_path, 40, 20)
    return tmp_path


def table_arguments(data, *more):
    arguments = ["--data-dir", data, "--epochs", 1, "--batch-size", 20, "--device", "cpu", "--work-dir", data / "runs"]
    return [*map(str, [*arguments, "--results-dir", data / "results", *more])]


def test_a_table_from_its_command_to_its_report(data, capfd):
    assert paper.main(["--table", "4", *table_arguments(data)]) == 0
    path = data / "results" / "table_4.csv"
    rows = paper_results.read_csv(path)
    assert [(row["column"], row["paper_error"]) for row in rows] == [
        ("local convolutions", "6.48"),
        ("encoder-decoder", "5.52"),
    ]
    for row in rows:
        assert all(row[name] for name in ("command", "commit", "cpu", "torch", "timm", "seed", "schedule"))
        assert row["held_out"] == "test, 20 images" and str(data) not in row["command"]
    first = path.read_bytes()
    results = sorted((data / "runs").glob("*/result.json"))
    times = [result.stat().st_mtime_ns for result in results]
    assert len(times) == 2

    assert paper.main(["--table", "4", *table_arguments(data)]) == 0  # nothing is trained again
    assert path.read_bytes() == first
    assert [result.stat().st_mtime_ns for result in results] == times
    assert paper.main(["--table", "1", *table_arguments(data, "--max-seconds", 0)]) == 0
    assert [row["column"] for row in paper_results.read_csv(data / "results" / "table_1.csv")] == ["mixed"]  # shared
    assert "2 of 3 runs are not at their end; the same command goes on" in capfd.readouterr().err

    report.main(["--results-dir", str(data / "results")])
    text = (data / "results" / "paper_tables.md").read_text()
    assert "**Table 4: mask structure, Attention-56.**" in text and "| Attention-56 | 6.48 |" in text
    assert "1 epoch over 40 training images, 1 seed (0)" in text
    assert (data / "results" / "table_4.png").read_bytes()[1:4] == b"PNG"
    command = re.search(r"`python -m benchmarks.paper (--table 4 .*)`", text)[1].split()
    again = paper.build_parser().parse_args(command)
    assert (again.epochs, again.batch_size, again.seeds, again.recipe) == (1, 20, [0], "paper")


FAKE = """
import pathlib, sys, time
folder, seconds, status, finish = sys.argv[1:]
time.sleep(float(seconds))
if finish == "True":
    (pathlib.Path(folder) / "result.json").touch()
sys.exit(int(status))
"""


def command_of_fake(seconds=0.0, status=0, finish=True):
    return lambda run, folder: [sys.executable, "-c", FAKE, *map(str, (folder, seconds, status, finish))]


@pytest.fixture
def work(tmp_path):
    folders = [tmp_path / str(i) for i in range(4)]
    for folder in folders:
        folder.mkdir()
    return [(None, folder) for folder in folders]


def test_all_that_is_not_finished_is_run(work):
    (work[2][1] / "result.json").touch()
    done = []
    assert run_all.train_all(work, command_of_fake(), 2, math.inf, done.append) == 0
    assert sorted(done) == [0, 1, 2, 3]


def test_no_more_run_at_a_time_than_jobs(work, monkeypatch):
    real, running, most = run_all.subprocess.Popen, [], []

    def counted(command, **kwargs):
        running.append(real(command, **kwargs))
        most.append(sum(process.poll() is None for process in running))
        return running[-1]

    monkeypatch.setattr(run_all.subprocess, "Popen", counted)
    assert run_all.train_all(work, command_of_fake(0.3), 2, math.inf, lambda _: None) == 0
    assert len(running) == 4 and max(most) == 2


def test_a_failure_stops_what_waits(work):
    done = []
    assert run_all.train_all(work, command_of_fake(status=3, finish=False), 1, math.inf, done.append) == 3
    assert done == []


def test_nothing_starts_behind_the_deadline(work):
    done = []
    assert run_all.train_all(work, command_of_fake(), 2, time.monotonic() - 1, done.append) == 0
    assert done == []


def test_a_signal_is_handed_on(work):
    threading.Timer(0.5, signal.raise_signal, [signal.SIGTERM]).start()
    done = []
    assert run_all.train_all(work, command_of_fake(60.0), 2, math.inf, done.append) == -signal.SIGTERM
    assert done == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--table", "2"], "argument --table: invalid choice: '2'"),
        (["--table", "1", "--figure", "4"], "not allowed with argument"),
        (["--table", "3", "--rows", "56"], "--rows must be of 'Attention-56', 'Attention-92', "),
        (["--table", "3", "--jobs", "0"], "--jobs must be at least 1; got 0"),
        (["--table", "3", "--seeds", "-1"], "seed must be an integer of at least 0; got -1"),
        (["--table", "3", "--data-dir", "/nowhere"], "--data-dir /nowhere is no folder"),
        (["--table", "3", "--device", "gpu"], "--device must be cpu, cuda"),
        (["--table", "3", "--lr", "-1"], "lr must be greater than 0"),
    ],
)
def test_bad_options_are_one_sentence(data, capsys, options, message):
    with pytest.raises(SystemExit, match="2"):
        paper.main([*table_arguments(data), *options])
    assert message in capsys.readouterr().err
    assert not (data / "results").exists() and not (data / "runs").exists()


# --- their results


def schedule(epochs=2, images=None):
    return paper_results.schedule_of(Run("resattn56_cifar", replace(RECIPES["paper"], epochs=epochs), images=images))


def line(number, cell, error, seed=0, text=None, images=10_000):
    row = dict.fromkeys(paper_results.FIELDS, "x") | {
        "table": number, "row": cell.row, "column": cell.column, "seed": seed, "error": error, "parameters": 1_864_000,
        "epochs": 2, "training_images": 50_000, "held_out": f"test, {images} images", "threads": 2, "gpu": "",
        "schedule": text or schedule(),
    }  # fmt: skip
    return {name: str(value) for name, value in row.items()}


def test_lines_of_one_schedule_only(tmp_path):
    path = tmp_path / "table_1.csv"
    first, second, third = tables.TABLES["1"].cells
    results = paper_results.Results(path, paper_results.FIELDS, schedule())
    for cell, error, seed in ((first, 9.0, 0), (second, 8.0, 0), (first, 7.0, 1), (first, 6.0, 0)):
        results.add(line("1", cell, error, seed))
    results = paper_results.Results(path, paper_results.FIELDS, schedule())
    results.add(line("1", third, 5.0))
    assert [(row["column"], row["seed"], row["error"]) for row in paper_results.read_csv(path)] == [
        ("channel", "0", "8.0"), ("mixed", "1", "7.0"), ("mixed", "0", "6.0"), ("spatial", "0", "5.0"),
    ]  # fmt: skip
    for shorter in (schedule(epochs=1), schedule(images=1000)):
        with pytest.raises(ValueError, match="holds runs of a longer schedule; give --results-dir"):
            paper_results.Results(path, paper_results.FIELDS, shorter)
        assert paper_results.Results(path, paper_results.FIELDS, shorter, replace=True).rows == []
    assert paper_results.Results(path, paper_results.FIELDS, schedule(epochs=3)).rows == []
    assert len(paper_results.read_csv(path)) == 4  # nothing is lost before there is something to put there
    assert not list(tmp_path.glob("*.part"))


def test_lines_from_before_a_recipe_had_a_value_stay(tmp_path):
    path = tmp_path / "table_1.csv"
    first, second, _ = tables.TABLES["1"].cells
    older = {
        key: value for key, value in json.loads(schedule()).items() if key not in ("crop", "prune", "fallback_lr_scale")
    }
    results = paper_results.Results(path, paper_results.FIELDS, schedule())
    results.add(line("1", first, 9.0, text=json.dumps(older)))
    assert "prune" not in path.read_text()
    results = paper_results.Results(path, paper_results.FIELDS, schedule())
    results.add(line("1", second, 8.0))
    rows = paper_results.read_csv(path)
    assert [(row["error"], row["schedule"]) for row in rows] == [("9.0", schedule()), ("8.0", schedule())]


# --- the report


@given(better=st.floats(0, 100), worse=st.floats(0, 100), images=st.integers(1, 100_000))
def test_an_order_holds_is_reversed_or_is_open(better, worse, images):
    verdict = report.compare(better, worse, images)
    assert report.compare(worse, better, images) == {"held": "reversed", "reversed": "held"}.get(verdict, "open")
    if verdict != "open":
        assert (better < worse) == (verdict == "held")
        assert report.compare(better, worse, 100 * images) == verdict  # more images tell at least as much


def test_orders_of_a_table():
    local, encoder = tables.TABLES["4"].cells
    for ours, verdict in ((8.0, "held"), (10.1, "open"), (12.0, "reversed")):
        rows = [line("4", local, "10.0"), line("4", encoder, str(ours))]
        (text,) = report.orderings(tables.TABLES["4"], rows)
        expected = f"Attention-56: encoder-decoder below local convolutions in the paper; here {ours:.2f} and 10.00"
        assert text == f"{expected}: {verdict}"


def test_seeds_are_averaged_and_missing_cells_left_out():
    cells = tables.TABLES["3"].cells
    rows = [line("3", cells[0], 8.0, 0), line("3", cells[0], 9.0, 1), line("3", cells[1], 11.0, 0)]
    text = report.table_markdown("3", rows)
    assert "| Attention-56 | 5.52 | 8.50 | 5.89 | 11.00 |" in text
    assert "2 seeds (0, 1)" in text and "2 epochs over 50,000 training images" in text
    assert "Attention-92" not in text


def test_table_6_names_sizes_and_orders_by_column():
    cells = [cell for cell in tables.TABLES["6"].cells if cell.dataset == "cifar10"]
    rows = [line("6", cell, str(error)) for cell, error in zip(cells, (9, 8, 7, 6), strict=True)]
    text = report.table_markdown("6", rows)
    assert (
        "|  | parameters, paper | ours | CIFAR-10, paper | ours |" in text and "| 1.9M | 1.86M | 4.99 | 8.00 |" in text
    )
    assert text.count(": held") == 3 and "CIFAR-100" not in text


def test_a_report_of_nothing(tmp_path, capsys):
    report.main(["--results-dir", str(tmp_path)])
    assert (tmp_path / "paper_tables.md").read_text() == report.NOTHING == capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        report.main(["--results-dir", str(tmp_path / "none")])


def test_the_report_in_the_readme_is_in_step():
    from benchmarks import readme

    text = readme.README.read_text()
    results = report.read_results(report.RESULTS)
    assert readme.with_block(text, report.COMMAND, report.as_markdown(results)) == text, f"run {report.COMMAND}"


# --- Figure 4


class ThreeStages(torch.nn.Module):
    def forward_intermediates(self, x, intermediates_only):
        assert intermediates_only
        return [x, x.mean(1, keepdim=True) * 4, x.new_full((len(x), 2, 2, 2), -2.0), x * 0 + 1]


def test_responses_are_mean_absolute_values():
    images = torch.full((7, 3, 4, 4), 2.0)
    found = responses.stage_responses(ThreeStages(), images, prepare=lambda batch: -batch, batch_size=3)
    assert found == pytest.approx([1.0, 0.25, 0.125])


def test_figure_4_from_runs_to_report(data, tmp_path):
    work = tmp_path / "runs"
    recipe = replace(RECIPES["paper"], epochs=1, batch_size=20)
    for cell in tables.FIGURE4.cells:
        run = Run(cell.model, recipe, dict(cell.model_kwargs))
        folder = run_all.folder_of(run, work)
        folder.mkdir(parents=True)
        save_file(trainer.weights_of(run.create_model()), folder / "model.safetensors")
        keys = ("commit", "command", "error_ema", "training_seconds", "images_per_second")
        result = dict.fromkeys(keys, "x") | dict(error=50.0, parameters=1, training_images=40, device="cpu")
        result |= dict(held_out="test, 20 images", hardware=dict(cpu="c", threads=1, gpu=None))
        (folder / "result.json").write_text(json.dumps(result | dict(versions=dict(torch="2", timm="1"))))
    assert paper.main(["--figure", "4", *table_arguments(data)]) == 0
    rows = paper_results.read_csv(data / "results" / "figure_4.csv")
    assert [row["column"] for row in rows] == ["ARL", "NAL", "ResNet-164"]
    assert all(row["stage_1"] == "1" and float(row["stage_3"]) > 0 for row in rows)
    assert [row["paper_stage_3"] for row in rows] == ["0.3", "0.01", "0.31"]
    report.main(["--results-dir", str(data / "results")])
    assert "| NAL | 1.00 / 0.02 / 0.01 | 1.00 / " in (data / "results" / "paper_tables.md").read_text()
    assert (data / "results" / "figure_4.png").is_file()


# --- shipping


def finished_run(folder: Path, model="resattn56_cifar", **changes):
    run = Run(model, RECIPES["modern"])
    result = {
        "command": "python -m benchmarks.cifar", "commit": "abc", "seed": 0, "schedule": run.as_dict(),
        "held_out": "test, 10000 images", "error": 9.5, "error_ema": 8.25, "training_seconds": 7200,
        "hardware": {"cpu": "some CPU, 2 cores", "threads": 1, "gpu": None},
    }  # fmt: skip
    schedule = result["schedule"] | {key: changes.pop(key) for key in list(changes) if key in result["schedule"]}
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(result | changes | {"schedule": schedule}))
    weights = trainer.weights_of(run.create_model())
    save_file(weights, folder / "ema.safetensors")
    save_file({key: value + 1 for key, value in weights.items()}, folder / "model.safetensors")
    return weights


def start_of(model, updates, before=None, revive=0, **changes):
    """What a run that began with another one's checkpoint knows of it."""
    init = "x" if revive else None
    run = Run(model, replace(RECIPES["modern"], **changes), seed=3, init=init, revive=revive)
    return dict(run=run.as_dict(), training_images=50_000, training_seconds=5400.0, updates=updates, start=before)


@pytest.mark.parametrize(
    ("start", "commands", "text"),
    [
        (
            start_of("resattn56_cifar", 8 * 390),
            [" --stop-epoch 8"],
            "resattn56_cifar for 8 of 100 epochs of batch 128; R; 1.5 hours; seed 3; deepened; then ",
        ),
        (
            start_of("resattn92_cifar", 100 * 390, start_of("resattn56_cifar", 20 * 390)),
            [" --stop-epoch 20", " --data-dir DIR --out OUT"],
            "resattn56_cifar for 20 of 100 epochs of batch 128; R; 1.5 hours; seed 3; deepened; then "
            "100 of 100 epochs of batch 128; R; 1.5 hours; seed 3; then ",
        ),
        (
            start_of("resattn92_cifar", 0, dict(file="w.safetensors", sha256="0123456789abcdef"), revive=9),
            [" --max-seconds 0"],
            "weights (w.safetensors, sha256 01234567), channels dead on 9 images revived; then ",
        ),
        (
            start_of("resattn92_cifar", 390, fallback_lr_scale=0.1),
            [" --stop-epoch 1"],
            "1 of 100 epochs of batch 128; nmuon, lr 0.02 onecycle, weight decay 0.02; norms' lr times 0.1; crop and "
            "flip; smoothing 0.1; 1.5 hours; seed 3; then ",
        ),
        (dict(file="w.safetensors", sha256="0123456789abcdef"), [], "weights (w.safetensors, sha256 01234567); then "),
        (
            dict(
                file="w.safetensors",
                sha256="0123456789abcdef",
                manifest=dict(schedule="9 epochs", command="train --seed 3 x"),
            ),
            ["x"],
            "9 epochs (w.safetensors, sha256 01234567); then ",
        ),
        (
            start_of("resattn92_cifar", 2 * 253, crop=24, prune=0.35),
            [" --stop-epoch 2"],
            "2 of 100 epochs of batch 128; nmuon, lr 0.02 onecycle, weight decay 0.02; crop and flip; crop 24; "
            "prune 0.35; smoothing 0.1; 1.5 hours; seed 3; then ",
        ),
        (
            dict(
                file="m.safetensors",
                sha256="fedcba9876543210",
                average=dict(
                    command="average --seed 3 x", members=[start_of("resattn92_cifar", 390 * n) for n in (9, 9, 10)]
                ),
            ),
            [" --stop-epoch 9", " --stop-epoch 10", "x"],
            "mean of [9 of 100 epochs of batch 128; R; 1.5 hours; seed 3] and [resattn92_cifar of seed 3 after 9 of "
            "100 epochs] and [10 of 100 epochs of batch 128; R; 1.5 hours; seed 3]; then ",
        ),
    ],
)
def test_weights_that_began_with_others_say_so(tmp_path, start, commands, text):
    finished_run(tmp_path / "run", "resattn92_cifar", start=start)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "manifest.json").write_text("{}")
    _, entry = ship.ship(tmp_path / "run", "t", "ema", tmp_path / "weights")
    *before, last = entry["command"].split("; ")
    assert last == "python -m benchmarks.cifar" and len(before) == len(commands)
    assert all(full.endswith(end) and " --seed 3 " in f"{full} " for full, end in zip(before, commands, strict=True))
    recipe = "nmuon, lr 0.02 onecycle, weight decay 0.02; crop and flip; smoothing 0.1"
    assert entry["schedule"].startswith(f"{text.replace('R', recipe)}100 epochs of batch 128; {recipe}; moving average")


def test_a_mean_ships_with_all_of_its_runs(tmp_path, monkeypatch):
    known = dict(
        file="w.safetensors",
        sha256="0123456789abcdef",
        manifest=dict(schedule="9 epochs", command="train --seed 3 x"),
    )
    members = [known, start_of("resattn56_cifar", 100 * 390, known)]
    finished_run(tmp_path / "run", average=members, error=5.0, error_ema=None, command="average")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="it has no moving average"):
        ship.ship(tmp_path / "run", "t", "ema", tmp_path / "weights")
    _, entry = ship.ship(tmp_path / "run", "t", "model", tmp_path / "weights")
    first, second, last = entry["command"].split("; ")
    assert first == "train --seed 3 x" and second.startswith("python -m benchmarks.cifar") and last == "average"
    name = "w.safetensors, sha256 01234567"
    assert entry["schedule"].startswith(f"mean of [9 epochs ({name})] and [weights ({name}); then 100 of 100 epochs")
    assert entry["accuracy"] == 95.0
    monkeypatch.setattr(ship, "RECORDS", tmp_path / "records")
    ship.record(tmp_path / "run", "n")
    assert json.loads((tmp_path / "records" / "n.json").read_text())["average"] == members


def test_a_finished_run_ships(tmp_path, capsys):
    weights = finished_run(tmp_path / "run")
    folder = tmp_path / "weights"
    folder.mkdir()
    other = dict.fromkeys(shipped.FIELDS, 1)
    (folder / "manifest.json").write_text(json.dumps({"other.safetensors": other}))
    assert ship.main([str(tmp_path / "run"), "--tag", "mine", "--folder", str(folder)]) == 0
    assert "resattn56_cifar.mine: 91.75% top-1" in capsys.readouterr().out
    found = load_file(folder / "resattn56_cifar.mine.safetensors")
    assert found.keys() == weights.keys() and all(torch.equal(found[key], weights[key]) for key in weights)
    manifest = shipped.read_manifest(folder)
    assert manifest["other.safetensors"] == other
    entry = manifest["resattn56_cifar.mine.safetensors"]
    assert set(entry) == set(shipped.FIELDS) and entry["accuracy"] == 91.75 and entry["seed"] == 0
    assert "100 epochs" in entry["schedule"] and "2.0 hours on some CPU, 2 cores" in entry["schedule"]
    problems = [problem for problem in shipped.check_weights(folder) if not problem.startswith("other")]
    assert problems == ["resattn56_cifar.mine.safetensors is not the file of the pretrained name resattn56_cifar.mine"]
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "resattn56_cifar.mine.safetensors"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(held_out="validation, 5000 images"), "its error is that on validation, 5000 images"),
        (dict(model_kwargs={"depths": [1, 1, 1]}), "its network has the arguments"),
        (dict(label_noise=0.1), "its labels are noisy"),
        (dict(images=1000), "it was trained on a part of the training set"),
        (dict(mean="pixel"), "its input is not that of the network's data configuration"),
        (dict(error_ema=None), "it has no moving average"),
    ],
)
def test_a_run_that_is_not_fit_to_ship(tmp_path, capsys, changes, message):
    finished_run(tmp_path / "run", **changes)
    (tmp_path / "weights").mkdir()
    with pytest.raises(SystemExit, match="2"):
        ship.main([str(tmp_path / "run"), "--folder", str(tmp_path / "weights")])
    assert f"this run is not fit to ship: {message}" in capsys.readouterr().err
    assert not list((tmp_path / "weights").iterdir())


def test_files_that_do_not_ship(tmp_path):
    with pytest.raises(ValueError, match="this is no finished run"):
        ship.ship(tmp_path, "t", "ema", tmp_path)
    weights = finished_run(tmp_path / "run")
    for tensors, message in (
        ({**weights, "head.fc.bias": torch.full((10,), torch.nan)}, "holds values that are not finite"),
        ({"head.fc.bias": weights["head.fc.bias"]}, "does not fit resattn56_cifar"),
        ({**weights, "x": torch.zeros(ship.MAX_BYTES // 4)}, "weights that ship have less than 16777216"),
    ):
        save_file(tensors, tmp_path / "run" / "ema.safetensors")
        with pytest.raises(ValueError, match=message):
            ship.ship(tmp_path / "run", "t", "ema", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_results_that_are_kept_have_their_circumstances():
    for path in (*paper_results.RESULTS.glob("table_*.csv"), *paper_results.RESULTS.glob("figure_4.csv")):
        rows = paper_results.read_csv(path)
        assert rows and len({row["schedule"] for row in rows}) == 1, path
        assert all(row["command"] and row["commit"] and row["cpu"] and row["seed"] for row in rows), path
