"""Several runs in one command, and the table of their outcomes."""

import argparse
import json
import math
import signal
import sys
import threading
import time

import pytest
from paper_rows import line, schedule

from benchmarks.cifar import many
from benchmarks.cifar.results import Results
from benchmarks.common.files import read_csv
from benchmarks.paper import results as paper_results
from benchmarks.paper import tables

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
    assert many.train_all(work, command_of_fake(), 2, math.inf, done.append) == 0
    assert sorted(done) == [0, 1, 2, 3]


def test_no_more_run_at_a_time_than_jobs(work, monkeypatch):
    real, running, most = many.subprocess.Popen, [], []

    def counted(command, **kwargs):
        running.append(real(command, **kwargs))
        most.append(sum(process.poll() is None for process in running))
        return running[-1]

    monkeypatch.setattr(many.subprocess, "Popen", counted)
    assert many.train_all(work, command_of_fake(0.3), 2, math.inf, lambda _: None) == 0
    assert len(running) == 4 and max(most) == 2


def test_a_failure_stops_what_waits(work):
    done = []
    assert many.train_all(work, command_of_fake(status=3, finish=False), 1, math.inf, done.append) == 3
    assert done == []


def test_nothing_starts_after_the_deadline(work):
    done = []
    assert many.train_all(work, command_of_fake(), 2, time.monotonic() - 1, done.append) == 0
    assert done == []


def test_a_signal_is_handed_on(work):
    threading.Timer(0.5, signal.raise_signal, [signal.SIGTERM]).start()
    done = []
    assert many.train_all(work, command_of_fake(60.0), 2, math.inf, done.append) == -signal.SIGTERM
    assert done == []


def test_an_error_leaves_no_process(work, monkeypatch):
    real, started = many.subprocess.Popen, []
    monkeypatch.setattr(many.subprocess, "Popen", lambda *args, **kw: started.append(real(*args, **kw)) or started[-1])
    (work[1][1] / "result.json").touch()
    with pytest.raises(ZeroDivisionError):
        many.train_all(work, command_of_fake(60.0), 2, math.inf, lambda _: 1 / 0)
    assert [process.wait(10) for process in started] == [-signal.SIGTERM]


def test_a_run_that_cannot_be_recorded_is_told_and_the_others_go_on(work, monkeypatch, capsys, tmp_path):
    folders = [folder for _, folder in work]
    for folder in folders:
        (folder / "result.json").touch()

    def record_run(folder, record):
        if folder == folders[1]:
            raise ValueError("of a clean commit only")

    monkeypatch.setattr(many, "record_run", record_run)
    monkeypatch.setattr(many, "folder_of", lambda run, _: run)
    done = []
    args = argparse.Namespace(work_dir=tmp_path, max_seconds=None, jobs=1, results_dir=tmp_path)
    assert many.carry_out(folders, args, {}, 0.0, lambda index, _: done.append(index)) == 1
    assert done == [0, 2, 3]
    assert capsys.readouterr().err == f"{folders[1]}: of a clean commit only\n"


def test_lines_of_one_schedule_only(tmp_path):
    path = tmp_path / "table_1.csv"
    first, second, third = tables.TABLES["1"].cells
    results = Results(path, paper_results.FIELDS, schedule())
    for cell, error, seed in ((first, 9.0, 0), (second, 8.0, 0), (first, 7.0, 1), (first, 6.0, 0)):
        results.add(line("1", cell, error, seed))
    results = Results(path, paper_results.FIELDS, schedule())
    results.add(line("1", third, 5.0))
    assert [(row["column"], row["seed"], row["error"]) for row in read_csv(path)] == [
        ("channel", "0", "8.0"), ("mixed", "1", "7.0"), ("mixed", "0", "6.0"), ("spatial", "0", "5.0"),
    ]  # fmt: skip
    for shorter in (schedule(epochs=1), schedule(images=1000)):
        with pytest.raises(ValueError, match="holds runs of a longer schedule; give --results-dir"):
            Results(path, paper_results.FIELDS, shorter)
        assert Results(path, paper_results.FIELDS, shorter, replace=True).rows() == []
    assert Results(path, paper_results.FIELDS, schedule(epochs=3)).rows() == []
    assert len(read_csv(path)) == 4  # nothing is lost before there is something to put there
    assert not list(tmp_path.glob("*.part"))


def test_lines_from_before_a_recipe_had_a_value_stay(tmp_path):
    path = tmp_path / "table_1.csv"
    first, second, _ = tables.TABLES["1"].cells
    older = {
        key: value for key, value in json.loads(schedule()).items() if key not in ("crop", "prune", "fallback_lr_scale")
    }
    results = Results(path, paper_results.FIELDS, schedule())
    results.add(line("1", first, 9.0, text=json.dumps(older)))
    assert "prune" not in path.read_text()
    results = Results(path, paper_results.FIELDS, schedule())
    results.add(line("1", second, 8.0))
    rows = read_csv(path)
    assert [(row["error"], row["schedule"]) for row in rows] == [("9.0", schedule()), ("8.0", schedule())]


def test_two_commands_add_to_one_table(tmp_path):
    path = tmp_path / "results.csv"
    cells = tables.TABLES["1"].cells
    one, other = (Results(path, paper_results.FIELDS, schedule()) for _ in range(2))
    for results, cell in ((one, cells[0]), (other, cells[1]), (one, cells[2])):
        results.add(line("1", cell, 9.0))
    assert [row["column"] for row in read_csv(path)] == ["mixed", "channel", "spatial"]
