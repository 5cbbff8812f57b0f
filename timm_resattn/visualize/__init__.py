"""Seeing the attention: record masks and what they do to a class, reduce their channels, draw them.

    >>> record = record_attention(model, x)
    >>> plot_masks(images, record, path="masks.png")

* `record`: `capture_masks` of any forward pass; `record_attention` of one, with the masks' effects on a class;
* `reduce`: `reduce_mask`, one map of many channels;
* `draw`: `plot_masks`, and `plot_attention`, the paper's Figure 1.
"""

from .draw import check_picture_path, overlay, plot_attention, plot_masks, save_figure
from .record import AttentionRecord, capture_masks, record_attention
from .reduce import REDUCTIONS, ranked_channel, reduce_mask

__all__ = [
    "REDUCTIONS",
    "AttentionRecord",
    "capture_masks",
    "check_picture_path",
    "overlay",
    "plot_attention",
    "plot_masks",
    "ranked_channel",
    "record_attention",
    "reduce_mask",
    "save_figure",
]
