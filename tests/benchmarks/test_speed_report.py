"""Ratios and tables of speed."""

from benchmarks.common.files import write_csv, write_json
from benchmarks.speed import __main__ as speed
from benchmarks.speed import report
from benchmarks.speed.plans import DEFAULT, RETAINED


def row_of(network, path, dtype, allocator, speed, layout="channels_last"):
    return {
        "network": network, "path": path, "layout": layout, "dtype": dtype, "allocator": allocator,
        "status": "timed", "batch_size": 8, "img_size": 224, "images_per_second": speed, "ms": 8e3 / speed,
        "ms_per_gmac": 1.0,
    }  # fmt: skip


def record(folder):
    hardware = {"cpu": "some CPU, 2 cores", "threads": 2, "gpu": None}
    write_json(folder / "record.json", {"command": "run it", "hardware": hardware, "versions": {"torch": "2"}})
    return folder


def main_rows():
    rows = [
        row_of("resattn56", "convolutions", "float32", DEFAULT, 30.0),
        row_of("pytorchcv:resattnet56", "eager", "float32", DEFAULT, 10.0, "contiguous"),
        row_of("resattn56", "convolutions", "float32", RETAINED, 40.0),
        row_of("resattn56", "convolutions", "bfloat16", RETAINED, 80.0),
        row_of("pytorchcv:resattnet56", "eager", "float32", RETAINED, 16.0, "contiguous"),
        row_of("resattn56", "folded", "float32", RETAINED, 32.0),
        row_of("resattn56", "optimized", "float32", RETAINED, 36.0),
        row_of("resattn56", "optimized", "bfloat16", RETAINED, 60.0),
        row_of("resattn56", "openvino", "float32", RETAINED, 39.0),
        row_of("pytorchcv:resattnet56", "compiled", "float32", RETAINED, 20.0),
        row_of("pytorchcv:resattnet56", "eager", "autocast", RETAINED, 50.0),
    ]
    speed.add_ratios(rows)
    return rows


def test_ratios_compare_like_with_like():
    rows = main_rows()
    assert [row.get("floor_share") for row in rows] == [1, 1 / 3, 1, 1, 0.4, 0.8, 0.9, 0.75, 0.975, 0.5, 0.625]
    assert rows[6]["vs_pytorchcv"] == 36 / 20  # its fastest path under the same allocator
    assert rows[7]["vs_pytorchcv"] == 60 / 50  # in the same type
    assert rows[0]["vs_pytorchcv"] == 3


def test_the_headline_is_each_one_s_fastest_path():
    rows = [{name: str(value) for name, value in row.items()} for row in main_rows()]
    assert report.headline(rows).splitlines()[2:] == [
        "| `resattn56`, `optimize_for_inference()`, channels_last | fp32 | 36.0 |  |",
        "| `resattn56`, `optimize_for_inference()`, channels_last | bf16 | 60.0 |  |",
        "| `pytorchcv resattnet56`, `torch.compile`, channels_last | fp32 | 20.0 | 1.80x |",
        "| `pytorchcv resattnet56`, eager, channels_last | bf16 | 50.0 | 1.20x |",
        "| `resattn56`, OpenVINO, channels_last | fp32 | 39.0 | 0.92x |",
    ]


def test_main_table_shows_both_states_of_the_allocator(tmp_path):
    write_csv(record(tmp_path / "main") / "results.csv", speed.FIELDS, main_rows())
    text = report.as_markdown(tmp_path)
    assert "; `run it`." in text and "fp32 images/s, default allocator" in text
    assert "| `pytorchcv resattnet56`, eager, contiguous | 10.0 | 16.0 | 40% | 0.80x |  |  |  |  |" in text
    assert "| `resattn56`, `optimize_for_inference()` |  | 36.0 | 90% | 1.80x |  | 60.0 | 75% | 1.20x |" in text


def test_what_was_not_measured_is_named_in_the_table(tmp_path):
    rows = [*main_rows(), dict(row_of("resattn56", "onnxruntime", "float32", RETAINED, 1.0, "contiguous"))]
    rows[-1].update(status="skipped", reason="onnxruntime is not installed", images_per_second=None)
    write_csv(record(tmp_path / "main") / "results.csv", speed.FIELDS, rows)
    text = report.as_markdown(tmp_path)
    assert "* `resattn56/onnxruntime/contiguous/float32` skipped at 224 pixels: onnxruntime is not installed" in text


def test_int8_is_compared_with_float32_of_the_same_runtime():
    numbers = {"onnxruntime": (("float32", 10.0), ("int8", 25.0)), "openvino": (("float32", 11.0), ("bfloat16", 22.0))}
    rows = [
        {name: str(value) for name, value in row_of("resattn56", path, dtype, RETAINED, images).items()}
        for path, types in numbers.items()
        for dtype, images in types
    ]
    missing = dict(rows[-1], dtype="int8", status="skipped", images_per_second="")
    assert report.int8_table([*rows, missing]).splitlines()[2:] == [
        "| `resattn56`, ONNX Runtime | 10.0 |  | 25.0 | 2.50x |",
        "| `resattn56`, OpenVINO | 11.0 | 22.0 | skipped |  |",
    ]
