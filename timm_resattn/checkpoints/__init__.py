"""Weights from elsewhere.

* `read_file`, `unwrap`: files and the wrappings of training tools;
* `adapt_state_dict`: any known kind, recognised by its names, for a given model; `load_weights` also loads it;
* `from_caffe`, `from_pytorchcv`: the authors' networks and pytorchcv's, each a function from the source's tensors to
  a complete state dict of the matching model;
* `transplant_trunk`, `deepen`: a residual network, or a shallower network of this family, becomes a network that
  computes the same function.

What does not fit is refused: missing, unexpected and wrongly shaped tensors are listed together in one `ValueError`.
"""

from .adapt import adapt_state_dict, load_weights
from .caffe import from_caffe
from .deepen import deepen
from .place import check_values
from .pytorchcv import from_pytorchcv
from .read import read_file, unwrap
from .transplant import transplant_trunk

__all__ = [
    "adapt_state_dict",
    "check_values",
    "deepen",
    "from_caffe",
    "from_pytorchcv",
    "load_weights",
    "read_file",
    "transplant_trunk",
    "unwrap",
]
