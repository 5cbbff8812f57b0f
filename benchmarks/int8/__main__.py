"""What int8 does to the networks' answers, in ONNX Runtime and in OpenVINO, and bfloat16 beside it.

    python -m benchmarks.int8 --data-dir DIR

* CIFAR-10: accuracy of the networks that ship on the test images, calibrated with training images.
* 224x224: the last feature maps of `resattn50` with a transplanted trunk and random masks, on crops of photographs,
  calibrated with crops of other photographs. The donor's weights are random, its norms as after training; the
  photographs are those that scikit-image and scikit-learn ship.

ONNX Runtime's int8 is the file of ``timm-resattn export --int8``, which OpenVINO runs too; NNCF is OpenVINO's own tool.
The relative error is the Euclidean norm of the outputs' difference from float32 by that of the outputs less their
channels' means over images and places: of what tells images apart.

Writes results.csv and record.json to benchmarks/results/int8/ and the table to the pages; with other settings, to
another folder, ``--out``.
"""

import argparse
import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from torch import nn

from benchmarks.cifar.data import load_cifar, normalize
from benchmarks.common.files import read_csv, write_csv, write_json
from benchmarks.common.packages import MissingPackageError, require
from benchmarks.common.pages import write_block
from benchmarks.common.provenance import RESULTS, check_recordable, provenance
from benchmarks.common.tables import markdown_table
from benchmarks.speed.contenders import in_openvino, live_in, onnx_of, quantized
from timm_resattn import AttentionModule, transplant_trunk
from timm_resattn.export import run_onnx

COMMAND = "python -m benchmarks.int8"
RECORDS = RESULTS / "int8"
NETWORKS = ("resattn56_cifar", "resattn92_cifar")
AT_224, DONOR = "resattn50", "resnetv2_50"
FIELDS = ("network", "runtime", "images", "top1", "top1_reduced", "same_class", "relative_error")
RUNTIMES = ("PyTorch, bfloat16", "ONNX Runtime, int8", "OpenVINO, the same file", "OpenVINO, int8 by NNCF")
PHOTOS = {"calibrate": ("astronaut", "coffee", "rocket", "china.jpg"), "test": ("chelsea", "retina", "flower.jpg")}


def photographs(names: tuple[str, ...]) -> list[Image.Image]:
    """Pictures of scikit-image (by name) and scikit-learn (by file name)."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    pixels = (load_sample_image(name) if name.endswith(".jpg") else getattr(data, name)() for name in names)
    return [Image.fromarray(picture) for picture in pixels]


def crops(names: tuple[str, ...], count: int, size: int = 224) -> torch.Tensor:
    """So many random crops ``(count, 3, size, size)`` of the photographs, as timm's ImageNet networks take them."""
    rng, photos, images = np.random.default_rng(0), photographs(names), []
    transform = timm.data.create_transform((3, size, size), crop_pct=1.0)
    for i in range(count):
        photo = photos[i % len(photos)]
        side = int(rng.uniform(0.3, 1) * min(photo.size))
        left, top = (int(rng.integers(0, length - side + 1)) for length in photo.size)
        images.append(transform(photo.crop((left, top, left + side, top + side))))
    return torch.stack(images)


def transplanted(images: torch.Tensor) -> nn.Module:
    """The network at 224: the donor's trunk, masks that differ from place to place."""
    torch.manual_seed(0)
    donor = live_in(timm.create_model(DONOR), images)
    model = timm.create_model(AT_224)
    model.load_state_dict(transplant_trunk(donor.state_dict(), model))
    for module in model.modules():
        if isinstance(module, AttentionModule) and module.mask is not None:
            nn.init.kaiming_normal_(module.mask.tail.conv2.weight)
    model = live_in(model, images)
    model.reset_classifier(0, global_pool="")
    return model


def outputs_of(run: Callable[[torch.Tensor], torch.Tensor], batches: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Of all batches: logits, or feature maps ``(N, C, H, W)``."""
    with torch.no_grad():
        return torch.cat([run(batch) for batch in batches])


def rows_of(
    network: str, model: nn.Module, pictures: torch.Tensor, images: torch.Tensor, labels: torch.Tensor | None
) -> list[dict[str, Any]]:
    """A row for each runtime; the last images that fill no batch are left out."""
    size = 50 if images.shape[-1] < 64 else 8
    batches = tuple(batch for batch in images.split(size) if len(batch) == size)
    calibration = pictures[: len(pictures) // size * size]
    exported = onnx_of(model, tuple(batches[0].shape))
    whole = outputs_of(model, batches)
    means = whole.mean([dim for dim in range(whole.ndim) if dim != 1], keepdim=True)
    file = quantized(exported, calibration)
    half = copy.deepcopy(model).bfloat16()
    runs = (
        lambda batch: half(batch.bfloat16()).float(),
        run_onnx(file, torch.get_num_threads()),
        in_openvino(file, "int8"),
        in_openvino(exported, "int8", calibration.split(size)),
    )
    rows = []
    for runtime, run in zip(RUNTIMES, runs, strict=True):
        found = outputs_of(run, batches)
        row: dict[str, Any] = dict(network=network, runtime=runtime, images=len(whole))
        if labels is not None:
            truth = labels[: len(whole)]
            row.update({name: 100 * (a.argmax(1) == b).double().mean().item()
                        for name, a, b in (("top1", whole, truth), ("top1_reduced", found, truth),
                                           ("same_class", found, whole.argmax(1)))})  # fmt: skip
        row["relative_error"] = ((found - whole).norm() / (whole - means).norm()).item()
        print(row, file=sys.stderr, flush=True)
        rows.append(row)
    return rows


def table(rows: list[dict[str, str]]) -> str:
    """The rows in Markdown."""
    body = []
    for row in rows:
        shares = [f"{float(row[name]):.2f}" if row[name] else "" for name in ("top1", "top1_reduced", "same_class")]
        error = f"{100 * float(row['relative_error']):.1f}%"
        body.append((f"`{row['network']}`", row["runtime"], *shares, error))
    header = ("", "by", "float32 top-1, %", "top-1, %", "same class, %", "relative error")
    return markdown_table(header, body, text_columns=2)


def block() -> str:
    """This repository's results."""
    rows = read_csv(RECORDS / "results.csv")
    if not rows:
        return ""
    versions = json.loads((RECORDS / "record.json").read_text())["versions"]
    names = ", ".join(f"{name} {versions[name]}" for name in ("torch", "onnxruntime", "openvino", "nncf"))
    return f"{names}; `{COMMAND} --data-dir DIR`.\n\n{table(rows)}"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="CIFAR-10, as benchmarks.cifar reads it")
    parser.add_argument("--images", type=int, default=10_000, metavar="N", help="test images; default: all 10000")
    parser.add_argument("--calibration", type=int, default=256, metavar="N", help="training images; default: 256")
    parser.add_argument(
        "--crops",
        type=int,
        default=64,
        metavar="N",
        help="crops at 224, and half as many to calibrate with; default: 64",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: torch's")
    parser.add_argument("--out", type=Path, default=RECORDS, help="default: benchmarks/results/int8")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        own_settings = any(
            getattr(args, name) != parser.get_default(name) for name in ("images", "calibration", "crops")
        )
        if args.out.resolve() == RECORDS and own_settings:
            raise ValueError("give --out DIR: benchmarks/results holds the results of the default settings only")
        check_recordable(args.out)
        for package in ("onnxruntime", "openvino", "nncf", "skimage", "sklearn"):
            require(package)
        pictures, images = (normalize(load_cifar(args.data_dir, split)[0][:count])
                            for split, count in (("train", args.calibration), ("test", args.images)))  # fmt: skip
        labels = load_cifar(args.data_dir, "test")[1]
    except (OSError, ValueError, MissingPackageError) as error:
        parser.error(str(error))
    if args.threads:
        torch.set_num_threads(args.threads)
    origin, rows = provenance(("onnx", "onnxruntime", "openvino", "nncf")), []
    for network in NETWORKS:
        rows += rows_of(network, timm.create_model(network, pretrained=True).eval(), pictures, images, labels)
    if args.crops:
        calibration = crops(PHOTOS["calibrate"], args.crops // 2)
        rows += rows_of(f"{AT_224}, 224x224", transplanted(calibration[:16]), calibration,
                        crops(PHOTOS["test"], args.crops), None)  # fmt: skip
    write_csv(args.out / "results.csv", FIELDS, rows)
    configuration = {key: value for key, value in vars(args).items() if key not in ("out", "data_dir")}
    record = dict(command=f"{COMMAND} --data-dir DIR", configuration=configuration)
    write_json(args.out / "record.json", {**record, **origin})
    if args.out.resolve() == RECORDS:
        write_block(COMMAND, block())
    print(table(read_csv(args.out / "results.csv")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
