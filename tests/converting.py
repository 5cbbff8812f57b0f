"""What the tests of `timm-resattn convert` share."""

import timm
import torch
from helpers import live_in

from timm_resattn.cli import main

SMALL = dict(depths=(1, 1), widths=(16, 32), closing_units=(0, 1), mask_pools=(2, 1), stem_chs=8)
SMALL_ARGS = ["--model-kwargs", *(f"{key}={value}" for key, value in SMALL.items())]


def small(num_classes=5, **kwargs):
    return live_in(timm.create_model("resattn56_cifar", num_classes=num_classes, **{**SMALL, **kwargs}))


def run(capsys, *args):
    """Exit code, stdout and stderr of the command."""
    code = main(["convert", *map(str, args)])
    return code, *capsys.readouterr()


def assert_nothing_written(tmp_path, *kept):
    """Neither the folder nor anything temporary."""
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def save_small(folder):
    path = folder / "source.pth"
    torch.save(small().state_dict(), path)
    return path
