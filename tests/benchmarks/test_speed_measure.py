"""The floor, the clock, and contenders that are checked before they are timed."""

import argparse
import sys

import pytest
import torch
from helpers import tiny
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed import __main__ as speed
from benchmarks.speed import contenders, report, timing
from benchmarks.speed.contenders import Contender
from benchmarks.speed.floor import ConvFloor
from benchmarks.speed.plans import DEFAULT, Group

FAST = (
    Contender("tiny", "convolutions"),
    Contender("tiny", layout="contiguous"),
    Contender("tiny"),
    Contender("tiny", "folded"),
    Contender("tiny", dtype="bfloat16"),
    Contender("pytorchcv:tiny", layout="contiguous"),
)


def group(*chosen: Contender, allocator: str = DEFAULT) -> Group:
    return Group(chosen, 2, 32, allocator)


@pytest.fixture
def bench() -> speed.Bench:
    return speed.Bench("cpu", create=lambda name: tiny())


def test_floor_replays_exactly_the_convolutions():
    model, images = tiny().eval(), torch.randn(2, 3, 32, 32)
    floor = ConvFloor(model, images)
    run: list[nn.Module] = []
    for module in model.modules():
        module.register_forward_hook(lambda module, args, out: run.append(module))
    with torch.no_grad():
        model(images)
        expected = [module for module in run if isinstance(module, nn.Conv2d)]
        run.clear()
        with FlopCounterMode(display=False) as counter:
            floor(images)
    assert run == expected == [conv for conv, _ in floor.calls]
    with FlopCounterMode(display=False) as whole, torch.no_grad():
        model(images)
    classifier = 2 * 2 * model.head.fc.weight.numel()
    assert counter.get_total_flops() == whole.get_total_flops() - classifier


def test_floor_leaves_no_hooks():
    model = tiny().eval()
    ConvFloor(model, torch.randn(1, 3, 32, 32))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_interleaved_measures_in_turn():
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    times = timing.interleaved(calls, rounds=3, least_seconds=0.0)
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3, "c": 3}
    assert order[-27:] == [name for name in "abcabcabc" for _ in range(3)]  # two of them untimed


def test_short_calls_are_repeated():
    calls: list[int] = []
    timing.interleaved({"a": lambda: calls.append(0)}, rounds=1, least_seconds=0.001)
    assert len(calls) > 10


def test_contenders_are_checked_timed_and_compared(bench):
    rows = speed.run_part(bench, "main", [group(*FAST)], rounds=2)
    assert [row["status"] for row in rows] == ["timed"] * len(FAST)
    by_name = {report.name_of(row): row for row in rows}
    floor, eager = by_name[FAST[0].name], by_name[FAST[2].name]
    assert floor["relative_error"] is None and floor["floor_share"] == 1
    assert eager["relative_error"] < 1e-5
    assert 0 < by_name["tiny/eager/channels_last/bfloat16"]["relative_error"] < 5e-2
    assert eager["floor_share"] == pytest.approx(floor["ms"] / eager["ms"])
    port = by_name["pytorchcv:tiny/eager/contiguous/float32"]
    assert eager["vs_pytorchcv"] == pytest.approx(port["ms"] / eager["ms"])
    assert eager["ms_per_gmac"] == pytest.approx(eager["ms"] / 2 / eager["gmacs"])


def test_wrong_logits_are_not_timed(bench, monkeypatch):
    monkeypatch.setitem(contenders.PATHS, "eager", lambda contender, model, images: lambda x: torch.ones(2, 5))
    (row,) = speed.run_part(bench, "main", [group(Contender("tiny"))], rounds=1)
    assert row["status"] == "wrong" and "relative error" in row["reason"] and "ms" not in row


def test_a_failing_contender_is_reported(bench, monkeypatch):
    def fail(*args):
        raise ArithmeticError("no such\nkernel")

    monkeypatch.setitem(contenders.PATHS, "folded", fail)
    rows = speed.run_part(bench, "main", [group(Contender("tiny", "folded"), Contender("tiny"))], rounds=1)
    assert [row["status"] for row in rows] == ["failed", "timed"]
    assert rows[0]["reason"] == "ArithmeticError: no such kernel"


@pytest.mark.parametrize(
    ("package", "contender"),
    [
        ("openvino", Contender("tiny", "openvino", "contiguous")),
        ("onnxruntime", Contender("tiny", "onnxruntime", "contiguous")),
    ],
)
def test_a_missing_package_is_reported(bench, monkeypatch, package, contender):
    monkeypatch.setitem(sys.modules, package, None)
    (row,) = speed.run_part(bench, "main", [group(contender)], rounds=1)
    assert row["status"] == "skipped" and row["reason"].startswith(f"{package} is not installed: pip install")


def test_a_missing_port_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorchcv", None)
    found = group(Contender("pytorchcv:resattnet56"))
    (row,) = speed.run_part(speed.Bench("cpu"), "main", [found], rounds=1)
    assert row["status"] == "skipped" and "pytorchcv" in row["reason"]


def test_training_steps_are_checked_and_timed(bench):
    paths = [Contender("tiny"), Contender("tiny", "checkpointing"), Contender("tiny", dtype="autocast")]
    rows = speed.run_part(bench, "train", [group(*paths)], rounds=1)
    assert [row["status"] for row in rows] == ["timed"] * 3
    assert rows[1]["relative_error"] < 1e-5


def test_a_profile_is_printed(bench, capsys, monkeypatch):
    contender = Contender("tiny")
    monkeypatch.setattr(speed, "Bench", lambda device: bench)
    monkeypatch.setattr(torch._inductor.config.cpp, "enable_kernel_profile", False)  # the command's is its process's
    args = argparse.Namespace(profile=[contender.name], part="main", device="cpu")
    speed.print_profiles(args, [group(contender)])
    printed = capsys.readouterr().out
    assert printed.startswith(f"{contender.name}\n") and "conv" in printed and "Self CPU time total" in printed
