"""Tables and Figure 4, from the command to the report."""

import json
import re
from dataclasses import replace

import pytest
import torch
from helpers import random_cifar
from safetensors.torch import save_file

from benchmarks.cifar import many
from benchmarks.cifar.outputs import weights_of
from benchmarks.cifar.recipe import RECIPES
from benchmarks.cifar.run import Run
from benchmarks.common.files import read_csv
from benchmarks.paper import __main__ as paper
from benchmarks.paper import report, responses, tables
from benchmarks.paper import results as paper_results


@pytest.fixture
def data(tmp_path):
    random_cifar(tmp_path, 40, 20)
    return tmp_path


def table_arguments(data, *more):
    arguments = ["--data-dir", data, "--epochs", 1, "--batch-size", 20, "--device", "cpu", "--work-dir", data / "runs"]
    return [*map(str, [*arguments, "--results-dir", data / "results", *more])]


def test_a_table_from_its_command_to_its_report(data, capfd):
    assert paper.main(["--table", "4", *table_arguments(data)]) == 0
    path = data / "results" / "table_4" / "results.csv"
    rows = read_csv(path)
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
    records = sorted((data / "results" / "runs").glob("*/result.json"))
    assert [record.read_bytes() for record in records] == [result.read_bytes() for result in results]
    assert {file.name for file in records[0].parent.iterdir()} == {"config.json", "log.jsonl", "result.json"}

    assert paper.main(["--table", "4", *table_arguments(data)]) == 0  # nothing is trained again
    assert path.read_bytes() == first
    assert [result.stat().st_mtime_ns for result in results] == times
    assert paper.main(["--table", "1", *table_arguments(data, "--max-seconds", 0)]) == 0
    assert [row["column"] for row in read_csv(data / "results" / "table_1" / "results.csv")] == ["mixed"]  # shared
    assert "2 of 3 runs are not at their end; the same command goes on" in capfd.readouterr().err

    report.main(["--results-dir", str(data / "results")])
    text = capfd.readouterr().out
    assert "**Table 4: mask structure, Attention-56.**" in text and "| Attention-56 | 6.48 |" in text
    assert "1 epoch over 40 training images, 1 seed (0)" in text
    assert (data / "results" / "table_4" / "plot.png").read_bytes()[1:4] == b"PNG"
    command = re.search(r"`python -m benchmarks.paper (--table 4 .*)`", text)[1].split()
    again = paper.build_parser().parse_args(command)
    assert (again.epochs, again.batch_size, again.seeds, again.recipe) == (1, 20, [0], "paper")


def test_a_network_of_several_tables_is_trained_once(data, capfd):
    """Attention-56 stands in Tables 1, 3 and 4."""
    arguments = table_arguments(data, "--rows", "Attention-56", "--jobs", 2)
    assert paper.main(["--table", "1", "3", "4", "--max-seconds", "0", *arguments]) == 0
    assert "5 of 5 runs are not at their end" in capfd.readouterr().err
    assert paper.main(["--table", "3", "4", *arguments]) == 0
    columns = {}
    for number in ("1", "3", "4"):
        rows = read_csv(data / "results" / f"table_{number}" / "results.csv")
        columns[number] = {row["column"] for row in rows if row["table"] == number}
    assert columns == {"1": set(), "3": {"ARL", "NAL"}, "4": {"encoder-decoder", "local convolutions"}}
    assert len([*(data / "runs").glob("*/result.json")]) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--table", "2"], "argument --table: invalid choice: '2'"),
        ([], "give --table or --figure"),
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


class ThreeStages(torch.nn.Module):
    def forward_intermediates(self, x, intermediates_only):
        assert intermediates_only
        return [x, x.mean(1, keepdim=True) * 4, x.new_full((len(x), 2, 2, 2), -2.0), x * 0 + 1]


def test_responses_are_mean_absolute_values():
    images = torch.full((7, 3, 4, 4), 2.0)
    found = responses.stage_responses(ThreeStages(), images, prepare=lambda batch: -batch, batch_size=3)
    assert found == pytest.approx([1.0, 0.25, 0.125])


def test_figure_4_from_runs_to_report(data, tmp_path, capfd, monkeypatch):
    work = tmp_path / "runs"
    recipe = replace(RECIPES["paper"], epochs=1, batch_size=20)
    for cell in tables.FIGURE4.cells:
        run = Run(cell.model, recipe, dict(cell.model_kwargs))
        folder = many.folder_of(run, work)
        folder.mkdir(parents=True)
        save_file(weights_of(run.create_model()), folder / "model.safetensors")
        keys = ("commit", "command", "error_ema", "training_seconds", "images_per_second")
        result = dict.fromkeys(keys, "x") | dict(error=50.0, parameters=1, training_images=40, device="cpu")
        result |= dict(held_out="test, 20 images", hardware=dict(cpu="c", threads=1, gpu=None))
        result |= dict(versions=dict(torch="2", timm="1"), sessions=[dict(commit="x")])
        (folder / "result.json").write_text(json.dumps(result))
        for name in ("config.json", "log.jsonl"):
            (folder / name).touch()
    assert paper.main(["--figure", "4", *table_arguments(data)]) == 0
    rows = read_csv(data / "results" / "figure_4" / "results.csv")
    assert [row["column"] for row in rows] == ["ARL", "NAL", "ResNet-164"]
    assert all(row["stage_1"] == "1" and float(row["stage_3"]) > 0 for row in rows)
    assert [row["paper_stage_3"] for row in rows] == ["0.3", "0.01", "0.31"]
    monkeypatch.delattr(responses, "stage_responses")  # measured once a run
    assert paper.main(["--figure", "4", *table_arguments(data)]) == 0
    assert read_csv(data / "results" / "figure_4" / "results.csv") == rows
    report.main(["--results-dir", str(data / "results")])
    assert "| NAL | 1.00 | 1.00 | 0.02 | " in capfd.readouterr().out
    assert (data / "results" / "figure_4" / "plot.png").is_file()


def test_results_that_are_kept_have_their_circumstances():
    for name, rows in paper_results.read_results(paper_results.RECORDS).items():
        assert len({row["schedule"] for row in rows}) == 1, name
        assert all(row["command"] and row["commit"] and row["cpu"] and row["seed"] for row in rows), name
