"""The benchmarks of speed and memory, on a network that runs in milliseconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import tiny
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("a source distribution has no benchmarks", allow_module_level=True)
sys.path.insert(0, str(ROOT))

from benchmarks import contenders, memory, memory_probe, plans, readme, speed_report, throughput, timing  # noqa: E402
from benchmarks.common.files import read_csv, write_csv  # noqa: E402
from benchmarks.common.provenance import ROOT  # noqa: E402
from benchmarks.contenders import Contender  # noqa: E402
from benchmarks.conv_floor import ConvFloor  # noqa: E402
from benchmarks.plans import DEFAULT, RETAINED, Group  # noqa: E402
from benchmarks.profiles import PROFILE_FIELDS, kind_of, operators  # noqa: E402
from benchmarks.speed_targets import Target, as_table  # noqa: E402

FAST = (
    Contender("tiny", "convolutions"),
    Contender("tiny", layout="contiguous"),
    Contender("tiny"),
    Contender("tiny", "folded"),
    Contender("tiny", dtype="bfloat16"),
    Contender("tiny", "optimized_eager"),
    Contender("pytorchcv:tiny", layout="contiguous"),
)


def group(*chosen: Contender, allocator: str = DEFAULT) -> Group:
    return Group(chosen, 2, 32, allocator)


@pytest.fixture
def bench() -> throughput.Bench:
    return throughput.Bench("cpu", create=lambda name: tiny())


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
    times = timing.interleaved(calls, rounds=3, warmup=1, least_seconds=0.0)
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3, "c": 3}
    assert order[-9:] == list("abc") * 3


def test_short_calls_are_repeated():
    calls: list[int] = []
    timing.interleaved({"a": lambda: calls.append(0)}, rounds=1, warmup=0, least_seconds=0.001)
    assert len(calls) > 10


def test_every_contender_of_a_plan_can_be_built_by_name():
    for device in ("cpu", "cuda"):
        for part in plans.PARTS:
            for found in plans.plan(part, "resattn56", 8, 224, device):
                paths = contenders.TRAINING_PATHS if part == "train" else contenders.PATHS
                assert {contender.path for contender in found.contenders} <= set(paths)
                assert {contender.dtype for contender in found.contenders} <= {"float32", "bfloat16", "autocast"}
                assert len(set(found.contenders)) == len(found.contenders)


def test_the_allocator_as_it_comes_is_measured_before_it_is_changed():
    for part in ("main", "train"):
        allocators = [found.allocator for found in plans.plan(part, "resattn56", 8, 224, "cpu")]
        assert allocators == [DEFAULT, RETAINED]
    main = plans.plan("main", "resattn56", 8, 224, "cpu")
    assert not any(contender.path.startswith("optimized") for contender in main[0].contenders)


@pytest.mark.parametrize("model", ["resattn_inception56", "resattnext56_32x4d", "resattn56_cifar"])
def test_a_network_without_a_port_is_measured_alone(model):
    for part in ("main", "train"):
        for found in plans.plan(part, model, 8, 224, "cpu"):
            assert {contender.network for contender in found.contenders} == {model}


def test_contenders_are_checked_timed_and_compared(bench):
    rows = throughput.run_part(bench, "main", [group(*FAST)], rounds=2)
    assert [row["status"] for row in rows] == ["timed"] * len(FAST)
    by_name = {speed_report.name_of(row): row for row in rows}
    floor, eager = by_name[FAST[0].name], by_name[FAST[2].name]
    assert floor["relative_error"] is None and floor["floor_share"] == 1
    assert eager["relative_error"] < 1e-5
    assert 0 < by_name["tiny/eager/channels_last/bfloat16"]["relative_error"] < 5e-2
    assert eager["floor_share"] == pytest.approx(floor["ms"] / eager["ms"])
    port = by_name["pytorchcv:tiny/eager/contiguous/float32"]
    assert eager["vs_pytorchcv"] == eager["vs_pytorchcv_default"] == pytest.approx(port["ms"] / eager["ms"])
    assert eager["ms_per_gmac"] == pytest.approx(eager["ms"] / 2 / eager["gmacs"])


def test_wrong_logits_are_not_timed(bench, monkeypatch):
    monkeypatch.setitem(contenders.PATHS, "eager", lambda contender, model, images: lambda x: torch.ones(2, 5))
    (row,) = throughput.run_part(bench, "main", [group(Contender("tiny"))], rounds=1)
    assert row["status"] == "wrong" and "relative error" in row["reason"] and "ms" not in row


def test_a_failing_contender_is_reported(bench, monkeypatch):
    def fail(*args):
        raise ArithmeticError("no such\nkernel")

    monkeypatch.setitem(contenders.PATHS, "folded", fail)
    rows = throughput.run_part(bench, "main", [group(Contender("tiny", "folded"), Contender("tiny"))], rounds=1)
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
    (row,) = throughput.run_part(bench, "main", [group(contender)], rounds=1)
    assert row["status"] == "skipped" and row["reason"].startswith(f"{package} is not installed: pip install")


def test_a_missing_port_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorchcv", None)
    found = group(Contender("pytorchcv:resattnet56"))
    (row,) = throughput.run_part(throughput.Bench("cpu"), "main", [found], rounds=1)
    assert row["status"] == "skipped" and "pytorchcv" in row["reason"]


def test_training_steps_are_checked_and_timed(bench):
    paths = [Contender("tiny"), Contender("tiny", "checkpointing"), Contender("tiny", dtype="autocast")]
    rows = throughput.run_part(bench, "train", [group(*paths)], rounds=1)
    assert [row["status"] for row in rows] == ["timed"] * 3
    assert rows[1]["relative_error"] < 1e-5


def row_of(network, path, dtype, allocator, speed, layout="channels_last"):
    return {
        "network": network, "path": path, "layout": layout, "dtype": dtype, "allocator": allocator,
        "status": "timed", "batch_size": 8, "img_size": 224, "images_per_second": speed, "ms": 8e3 / speed,
        "ms_per_gmac": 1.0,
    }  # fmt: skip


def main_rows():
    rows = [
        row_of("resattn56", "convolutions", "float32", DEFAULT, 30.0),
        row_of("pytorchcv:resattnet56", "eager", "float32", DEFAULT, 10.0, "contiguous"),
        row_of("resattn56", "convolutions", "float32", RETAINED, 40.0),
        row_of("resattn56", "convolutions", "bfloat16", RETAINED, 80.0),
        row_of("pytorchcv:resattnet56", "eager", "float32", RETAINED, 16.0, "contiguous"),
        row_of("resattn56", "folded", "float32", RETAINED, 32.0),
        row_of("resattn56", "optimized_compiled", "float32", RETAINED, 36.0),
        row_of("resattn56", "optimized_compiled", "bfloat16", RETAINED, 60.0),
        row_of("resattn56", "openvino", "float32", RETAINED, 39.0),
    ]
    throughput.add_ratios(rows)
    return rows


def test_ratios_compare_like_with_like():
    rows = main_rows()
    assert [row.get("floor_share") for row in rows] == [1, 1 / 3, 1, 1, 0.4, 0.8, 0.9, 0.75, 0.975]
    assert rows[6]["vs_pytorchcv"] == 2.25
    assert rows[6]["vs_pytorchcv_default"] == 3.6
    assert rows[4]["vs_pytorchcv_default"] == 1.6


def test_targets_are_judged_by_the_results(tmp_path):
    write_csv(tmp_path / "throughput_main.csv", throughput.FIELDS, main_rows())
    judged = speed_report.targets(tmp_path)
    assert [row["measured"] for row in judged] == [3.6, 0.9, 0.8, 6.0, 0.75, None, None]
    assert [row["reached"] for row in judged] == ["aim", "bar", "bar", "aim", "no", "", ""]
    assert "openvino" not in judged[1]["by"]  # the best path is one of ours
    table = as_table(judged)
    assert "| 90% | 100% | 90% | bar | `resattn56/optimized_compiled/channels_last/float32` |" in table
    assert "| not measured |" in table


def test_target_at_most():
    target = Target("memory", 0.5, 0.25, "%", at_most=True)
    assert [target.judge(value)["reached"] for value in (0.2, 0.25, 0.4, 0.5, 0.6, None)] == [
        "aim", "aim", "bar", "bar", "no", "",
    ]  # fmt: skip


def test_main_table_shows_both_states_of_the_allocator(tmp_path):
    write_csv(tmp_path / "throughput_main.csv", throughput.FIELDS, main_rows())
    text = speed_report.as_markdown(tmp_path)
    assert "fp32 images/s, default allocator" in text
    assert "| `pytorchcv resattnet56`, eager, contiguous | 10.0 | 16.0 | 40% | 1.60x |  |  |  |  |" in text
    assert "| `resattn56`, `optimize_for_inference()` |  | 36.0 | 90% | 3.60x |  | 60.0 | 75% | 6.00x |" in text


def test_what_was_not_measured_is_named_in_the_table(tmp_path):
    rows = [*main_rows(), dict(row_of("resattn56", "onnxruntime", "float32", RETAINED, 1.0, "contiguous"))]
    rows[-1].update(status="skipped", reason="onnxruntime is not installed", images_per_second=None)
    write_csv(tmp_path / "throughput_main.csv", throughput.FIELDS, rows)
    text = speed_report.as_markdown(tmp_path)
    assert "* `resattn56/onnxruntime/contiguous/float32` skipped: onnxruntime is not installed" in text


@pytest.mark.parametrize("part", ["main", "batch", "depth"])
def test_plots_are_drawn(tmp_path, part):
    pytest.importorskip("matplotlib")
    write_csv(
        tmp_path / "rows.csv", throughput.FIELDS, [row for row in main_rows() if "port" not in row["network"]][2:4]
    )
    speed_report.plot(part, read_csv(tmp_path / "rows.csv"), tmp_path / "plot.png")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["plot.png", "rows.csv"]


def test_operators_add_up():
    model = tiny().eval()
    rows = operators(lambda: model(torch.randn(1, 3, 32, 32)))
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert any("conv" in row["operator"] for row in rows)


@pytest.mark.parametrize(
    ("operator", "shapes", "kind"),
    [
        ("aten::mkldnn_convolution", "8x64x56x56 64x64x3x3", "convolutions"),
        ("mkldnn::_convolution_pointwise", "448x256x1x56 256x1x1x1 256", "norms and activations"),
        ("graph_0_cpp_fused__native_batch_norm_legit_no_training_max_pool2d_with_indices_relu_0", "", "pooling"),
        ("graph_0_cpp_fused__to_copy__unsafe_index_add_relu_10", "", "interpolation"),
        ("aten::addcmul", "8x64x56x56", "sums and products"),
        ("aten::empty", "", "other"),
    ],
)
def test_kinds_of_operators(operator, shapes, kind):
    assert kind_of(operator, shapes) == kind


def test_profile_is_summed_by_kind(tmp_path):
    rows = [
        {"contender": "a", "kind": kind, "operator": "x", "calls": 1, "ms": ms, "share": ms / 100}
        for kind, ms in (("convolutions", 60.0), ("convolutions", 20.0), ("pooling", 20.0))
    ]
    write_csv(tmp_path / "throughput_profile.csv", PROFILE_FIELDS, rows)
    text = speed_report.as_markdown(tmp_path)
    assert "| `a` | 80 (80%) | 0 (0%) | 20 (20%) | 0 (0%) | 0 (0%) | 0 (0%) | 0 (0%) | 100 |" in text


def test_saved_for_backward_counts_each_activation_once():
    weight = nn.Parameter(torch.randn(8, 8))
    x = torch.randn(4, 8)
    # matmul saves x and weight, both known; exp saves its result, whose square is computed from the same storage
    saved = memory_probe.saved_for_backward(lambda: (x @ weight).exp().square().sum(), (weight, x))
    assert saved == 4 * 8 * 4


def test_checkpointing_saves_less_for_backward():
    images = torch.randn(2, 3, 32, 32)
    sizes = {}
    for path in ("eager", "checkpointing"):
        step = contenders.TrainingStep(Contender("tiny", path), tiny(), images)
        sizes[path] = memory_probe.saved_for_backward(step.loss, step.model.parameters())
    assert 0 < sizes["checkpointing"] < sizes["eager"] / 2


@pytest.mark.skipif(not memory_probe.can_measure("cpu"), reason="needs Linux")
def test_peak_sees_what_was_allocated_and_freed():
    """In a process of its own, as the benchmark measures: here a test may have let the process retain its memory."""
    code = """
import torch
from benchmarks import memory_probe
for _ in range(2):  # freed memory of the first call does not hide the second one's
    print(memory_probe.peak_above(lambda: torch.ones(16 * 2**20)))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    peaks = [int(line) for line in done.stdout.split()]
    assert len(peaks) == 2
    assert all(60 * 2**20 < peak < 80 * 2**20 for peak in peaks)  # the kernel counts in batches of pages


def memory_rows():
    def row(network, path, layout, peak, saved, task="training"):
        return {
            "task": task, "network": network, "path": path, "layout": layout, "dtype": "float32",
            "status": "measured", "batch_size": 16, "img_size": 224, "peak_mib": peak, "saved_mib": saved,
        }  # fmt: skip

    rows = [
        row("pytorchcv:resattnet56", "eager", "contiguous", 4000.0, 2000.0),
        row("resattn56", "eager", "channels_last", 3000.0, 1600.0),
        row("resattn56", "checkpointing", "channels_last", 1200.0, 400.0),
        row("resattn56", "eager", "channels_last", 500.0, None, "inference"),
    ]
    memory.add_ratios(rows)
    return rows


def test_memory_is_compared_with_pytorchcv_and_judged(tmp_path):
    write_csv(tmp_path / "memory.csv", memory.FIELDS, memory_rows())
    judged = memory.targets(tmp_path)
    assert [row["measured"] for row in judged] == [0.3, 0.2, 0.25]
    assert [row["reached"] for row in judged] == ["aim", "aim", "bar"]
    text = memory.as_markdown(tmp_path)
    assert "| `resattn56`, eager, gradient checkpointing, channels_last | float32 | 1,200 | 30% | 400 | 20% |" in text
    assert "| `resattn56`, eager, channels_last | float32 | 500 |  |" in text


def test_memory_of_a_process_that_fails_is_reported(monkeypatch):
    monkeypatch.setattr(memory.sys, "executable", "false")
    assert memory.measure_apart("training", Contender("tiny"), 2, 32, "cpu") == {
        "status": "failed", "reason": "exit status 1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        (throughput, ["--rounds", "4"], "--rounds must be at least 5"),
        (throughput, ["--threads", "0"], "--threads must be at least 1"),
        (throughput, ["--img-size", "16", "--out", "OUT"], "--img-size must be at least 32"),
        (throughput, ["--model", "resattn57", "--out", "OUT"], "there is no network 'resattn57'"),
        (throughput, ["--model", "resattn92"], "give --out DIR"),
        (throughput, ["--only", "nothing-like-this", "--out", "OUT"], "no contender has that in its name"),
        (throughput, ["--profile", "resattn56/slow", "--out", "OUT"], "--profile takes resattn56/convolutions/"),
        (throughput, ["--part", "speed"], "invalid choice"),
        (throughput, ["--out", "FILE"], "is no folder"),
        (memory, ["--repeats", "0"], "--repeats must be at least 1"),
        (memory, ["--batch-size", "4"], "give --out DIR"),
        (memory, ["--out", "FILE"], "is no folder"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(script, words, message, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    (tmp_path / "FILE").touch()
    words = [str(tmp_path / word) if word in ("OUT", "FILE") else word for word in words]
    with pytest.raises(SystemExit) as stop:
        script.main(words)
    assert stop.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in last
    assert not (tmp_path / "OUT").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("script", [throughput, memory])
def test_cuda_without_a_gpu_is_refused(script, capsys):
    with pytest.raises(SystemExit):
        script.main(["--device", "cuda"])
    assert "no GPU is there" in capsys.readouterr().err


def test_the_command_that_is_recorded_repeats_the_run():
    parser = throughput.build_parser()
    words = ["--part", "train", "--only", "eager", "folded", "--rounds", "9"]
    command = throughput.command_of(parser, parser.parse_args([*words, "--out", "x"]))
    assert command == "python -m benchmarks.throughput --part train --only eager folded --rounds 9"


@pytest.mark.parametrize("script", [speed_report, memory])
def test_readme_is_in_step(script):
    text = readme.README.read_text()
    assert readme.with_block(text, script.COMMAND, script.as_markdown(throughput.RESULTS)) == text


def test_results_have_their_circumstances():
    record = throughput.RESULTS / "throughput.json"
    parts = json.loads(record.read_text()) if record.is_file() else {}
    for path in throughput.RESULTS.glob("throughput_*.csv"):
        part = path.stem.removeprefix("throughput_")
        if not part.startswith("targets"):
            assert {"command", "commit", "hardware", "versions"} <= parts[part].keys()
