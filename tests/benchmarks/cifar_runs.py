"""A network that trains in a second, and the options of its runs."""

import pytest
from timm import scheduler

MODEL = "resattn56_cifar"
SMALL = [
    *("--model", MODEL, "--model-kwargs", "depths=(1,0,0)", "widths=(8,8,16)", "mask_pools=(1,1,1)"),
    *("--batch-size", "16", "--prune", "0", "--crop", "0", "--cutout", "0"),
]
STEPS = 4  # updates of an epoch over 70 images
needs_wsd = pytest.mark.skipif(not hasattr(scheduler, "WSDLRScheduler"), reason="timm has no WSD schedule")
