"""Residual Attention Network (Wang et al., CVPR 2017) as a plugin for timm.

Importing this package registers every network of the family:

    >>> import timm, timm_resattn
    >>> timm.create_model("resattn56").num_features
    2048
"""

from .attention import AttentionModule
from .optimize import optimize_for_inference
from .resattn import ResAttn

__all__ = ["AttentionModule", "ResAttn", "__version__", "optimize_for_inference"]
__version__ = "0.1.0"
