"""Residual Attention Network (Wang et al., CVPR 2017) as a plugin for timm.

Importing this package registers every network of the family:

    >>> import timm, timm_resattn
    >>> timm.create_model("resattn56").num_features
    2048

* `ResAttn`, `AttentionModule`: the network and its module;
* `capture_masks`, `plot_masks`: the masks of a forward pass, drawn over the images;
* `transplant_trunk`, `deepen`: start as a residual network, or as a shallower one of this family;
* `timm_resattn.checkpoints`: weights of other kinds; `timm_resattn.convert`: a checkpoint as a folder for the hub;
* `optimize_for_inference`: folded and compiled.
"""

from .attention import AttentionModule
from .checkpoints import deepen, transplant_trunk
from .optimize import optimize_for_inference
from .resattn import ResAttn
from .visualize import capture_masks, plot_masks

__all__ = [
    "AttentionModule",
    "ResAttn",
    "__version__",
    "capture_masks",
    "deepen",
    "optimize_for_inference",
    "plot_masks",
    "transplant_trunk",
]
__version__ = "0.1.0"
