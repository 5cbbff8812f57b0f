"""What the benchmarks share: files that are whole or not there, tables, blocks of pages, records of clean commits."""

import importlib
import os
import re
import subprocess

import pytest

from benchmarks.common import pages, provenance
from benchmarks.common.files import save_atomically
from benchmarks.common.tables import counted, markdown_table


def test_a_file_is_the_old_one_or_the_new_one(tmp_path):
    path = tmp_path / "new" / "x.txt"
    save_atomically(path, lambda partial: partial.write_text("old"))

    def fail(partial):
        partial.write_text("half")
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        save_atomically(path, fail)
    assert path.read_text() == "old" and [file.name for file in path.parent.iterdir()] == ["x.txt"]


def test_markdown_table():
    text = markdown_table(("a", "b", "c"), [("x", "y", "1")], text_columns=2)
    assert text == "| a | b | c |\n| --- | --- | ---: |\n| x | y | 1 |\n"


def test_numbers_in_words():
    assert [counted(number, "seed") for number in (0, 1, 2)] == ["0 seeds", "1 seed", "2 seeds"]


def test_a_block_is_replaced_where_it_is():
    text = "before\n<!-- make x -->\nold\n<!-- /make x -->\nafter\n"
    new = "[a](benchmarks/results)\n"
    assert pages.with_block(text, "make x", new) == text.replace("old\n", new)
    assert "[a](../../benchmarks/results)" in pages.with_block(text, "make x", new, depth=2)
    assert pages.with_block(text, "make y", new) == text
    with pytest.raises(ValueError, match="must be followed by"):
        pages.with_block("<!-- make x -->\n", "make x", new)


README_FILES = [*pages.pages(), *sorted((provenance.ROOT / "benchmarks").rglob("*.md"))]
MODULES = sorted(
    {
        module
        for page in pages.pages()
        for module in re.findall(r"<!-- python -m (benchmarks[\w.]+) -->", page.read_text())
    }
)


@pytest.mark.parametrize("module", MODULES)
def test_the_blocks_of_the_pages_are_in_step(module):
    found = importlib.import_module(module)
    if not hasattr(found, "block"):
        found = importlib.import_module(f"{module}.__main__")
    command, block = f"python -m {module}", found.block()
    for page in pages.pages():
        text, depth = page.read_text(), len(page.relative_to(provenance.ROOT).parts) - 1
        assert pages.with_block(text, command, block, depth) == text, f"run {command}"


@pytest.mark.parametrize("revision", ["abc+changes", "unknown: no git repository"])
def test_only_a_clean_commit_is_recorded(tmp_path, monkeypatch, revision):
    record = provenance.RESULTS / "speed"
    provenance.check_recordable(record, "abc")
    provenance.check_recordable(tmp_path, revision)  # elsewhere, anything goes
    with pytest.raises(ValueError, match=f"of a clean commit only, not of {re.escape(revision)}; commit first"):
        provenance.check_recordable(record, revision)
    monkeypatch.setattr(provenance, "commit", lambda: revision)
    with pytest.raises(ValueError, match="commit first"):
        provenance.check_recordable(record)


def test_changes_of_code_are_seen_and_of_results_are_not(tmp_path, monkeypatch):
    def git(*arguments):
        own = [
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@b",
            "-c",
            "commit.gpgsign=false",
            "-c",
            "core.hooksPath=/dev/null",
        ]
        subprocess.run(["git", *own, *arguments], cwd=tmp_path, check=True)

    for name in [name for name in os.environ if name.startswith("GIT_")]:  # as a hook has them, of another repository
        monkeypatch.delenv(name)
    for folder in ("timm_resattn", "benchmarks/cifar/recipes", "benchmarks/results"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x").touch()
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "x")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    clean = provenance.commit()
    assert re.fullmatch("[0-9a-f]{40}", clean)
    (tmp_path / "benchmarks/results/x").write_text("more")
    assert provenance.commit() == clean
    (tmp_path / "benchmarks/cifar/recipes/new").touch()
    assert provenance.commit() == f"{clean}+changes"


def test_every_command_has_a_help_and_does_nothing_by_it(capsys, monkeypatch):
    monkeypatch.setattr(pages, "save_atomically", None)
    commands = re.findall(r"python -m (benchmarks[\w.]*)", "".join(p.read_text() for p in README_FILES))
    assert len(set(commands)) >= 10
    for name in sorted(set(commands)):
        module = importlib.import_module(name)
        if not hasattr(module, "main"):
            module = importlib.import_module(f"{name}.__main__")
        with pytest.raises(SystemExit) as stop:
            module.main(["--help"])
        assert stop.value.code == 0 and capsys.readouterr().out.startswith(f"usage: python -m {name} ")
