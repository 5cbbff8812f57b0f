"""Residual Attention Network (Wang et al., CVPR 2017) as a plugin for timm.

Importing this package registers every network of the family:

    >>> import timm, timm_resattn
    >>> timm.create_model("resattn56").num_features
    2048

Where what is:

* `resattn`: the names, their weights and entry points; `network`: the class `ResAttn`, built from `stages`,
  `attention` (`AttentionModule`), `mask` and `units`;
* `mask_tuning`: `train_masks_only` on a trunk that stays, `train_all`;
* `visualize`: `record_attention`, `capture_masks`, `reduce_mask`, `plot_masks`, `plot_attention`; `app`: the page;
* `checkpoints`: weights from elsewhere, `transplant_trunk`, `deepen`, `from_caffe`, `from_pytorchcv`;
* `detection`: `fpn_backbone`, for the detectors of torchvision;
* `optimize`: `optimize_for_inference`, `retain_freed_memory`;
* `pictures`, `labels`, `files`: pictures of any kind, names of classes, files that are whole or not there;
* `export`, `convert`, `demo`, `cli`: what the command ``timm-resattn`` does.
"""

from . import resattn  # registers the networks
from .attention import AttentionModule
from .checkpoints import deepen, from_caffe, from_pytorchcv, transplant_trunk
from .detection import fpn_backbone
from .mask_tuning import train_all, train_masks_only
from .network import ResAttn
from .optimize import optimize_for_inference, retain_freed_memory
from .visualize import capture_masks, plot_attention, plot_masks, record_attention, reduce_mask

__all__ = [
    "AttentionModule",
    "ResAttn",
    "__version__",
    "capture_masks",
    "deepen",
    "fpn_backbone",
    "from_caffe",
    "from_pytorchcv",
    "optimize_for_inference",
    "plot_attention",
    "plot_masks",
    "record_attention",
    "reduce_mask",
    "resattn",
    "retain_freed_memory",
    "train_all",
    "train_masks_only",
    "transplant_trunk",
]
__version__ = "0.1.0"
