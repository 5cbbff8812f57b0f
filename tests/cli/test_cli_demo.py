import pytest

from timm_resattn.cli import demo as command
from timm_resattn.cli import main
from timm_resattn.demo import DemoResult


@pytest.mark.parametrize(("accuracy", "code"), [(0.98, 0), (0.95, 1), (0.5, 1)])
def test_demo_prints_the_accuracy_and_returns_whether_it_is_good(accuracy, code, capsys, monkeypatch):
    given = []
    monkeypatch.setattr(command, "run_demo", lambda *args: given.extend(args) or DemoResult(accuracy, 599, [1.0], 61.5))
    assert main(["demo", "--seed", "3", "--epochs", "4", "--out", "x.png", "--device", "meta"]) == code
    assert given == [4, 3, "x.png", "meta"]
    captured = capsys.readouterr()
    assert captured.out == (f"{accuracy:.2%} of 599 held-out digits right (seed 3, 4 epochs, 62 s); masks in x.png\n")
    assert ("expected more than 95%" in captured.err) == (code == 1)
