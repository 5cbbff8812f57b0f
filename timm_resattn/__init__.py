"""Residual Attention Network (Wang et al., CVPR 2017) as a plugin for timm.

Importing this package registers every network of the family:

    >>> import timm, timm_resattn
    >>> timm.create_model("resattn56").num_features
    2048
"""

from . import resattn  # registers the networks
from .attention import AttentionModule
from .network import ResAttn
from .optimize import optimize_for_inference

__all__ = ["AttentionModule", "ResAttn", "__version__", "optimize_for_inference", "resattn"]
__version__ = "0.1.0"
