"""The table of libraries that the networks work in, each with the version that its tests passed with.

    python -m benchmarks.release.libraries

Runs tests/libraries/ (``pip install -e ".[libraries]"``). If all libraries are there and all tests pass, writes the
versions to benchmarks/results/libraries.json and the pages' table.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass

from benchmarks.common.files import write_json
from benchmarks.common.pages import write_block
from benchmarks.common.provenance import RESULTS, ROOT, check_recordable, provenance
from benchmarks.common.tables import markdown_table

COMMAND = "python -m benchmarks.release.libraries"
RECORD = RESULTS / "libraries.json"
TESTS = "tests/libraries"


@dataclass(frozen=True)
class Library:
    package: str
    lines: str
    limits: str


LIBRARIES = (
    Library(
        "torchvision",
        '`FasterRCNN(fpn_backbone("resattn50", norm="batch"), num_classes=91)`, and so MaskRCNN; RetinaNet and FCOS '
        "[below](#torchvisions-detectors)",
        "it normalises by ImageNet's mean and deviation: give it the backbone's `image_mean`, `image_std`",
    ),
    Library(
        "segmentation-models-pytorch",
        '`smp.Unet("tu-resattn56", encoder_weights=None)`, and so FPN, DeepLabV3Plus',
        "all but Unet take sides that are multiples of 32; refuses the CIFAR networks, for their strides",
    ),
    Library(
        "transformers",
        '`AutoModelForImageClassification.from_pretrained(folder)`; `TimmBackboneConfig(backbone="resattn50")`, alone '
        "or in `DetrConfig(backbone_config=...)`",
        "`TimmBackbone(...)(x, output_hidden_states=True)` fails, as for `resnetv2_50`",
    ),
    Library("fastai", '`vision_learner(dls, "resattn56_cifar")`', "layers in two groups, body and head"),
    Library("lightning", "`timm.create_model` in a `LightningModule`; `Trainer(sync_batchnorm=True)`", ""),
    Library("grad-cam", "`GradCAM(model, [model.stages[-1]])`, or any other submodule", ""),
    Library(
        "opacus",
        '`ModuleValidator.fix(model)`, or `norm_layer="groupnorm"`; then `PrivacyEngine().make_private(...)`',
        "refuses batch norms, which mix the samples of a batch",
    ),
)


def block() -> str:
    """The table."""
    versions = json.loads(RECORD.read_text())["versions"]
    rows = [(library.package, versions[library.package], library.lines, library.limits) for library in LIBRARIES]
    return markdown_table(("library", "version tested", "what to write", "known limits"), rows, text_columns=4)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(argv)
    try:
        check_recordable(RECORD)
        source = provenance([library.package for library in LIBRARIES])
        missing = [name for name, version in source["versions"].items() if version == "not installed"]
        if missing:
            raise ValueError(f"{', '.join(missing)}: not installed")
    except ValueError as error:
        parser.error(str(error))
    failed = subprocess.run([sys.executable, "-m", "pytest", "-q", TESTS], cwd=ROOT).returncode
    if failed:
        sys.exit(failed)
    write_json(RECORD, {"command": COMMAND, **source})
    write_block(COMMAND, block())


if __name__ == "__main__":
    main()
