"""Names of a classifier's classes, and text of files for a terminal."""

from collections import Counter
from typing import List, Optional
from unicodedata import category

from timm.data import CustomDatasetInfo, DatasetInfo, ImageNetInfo, infer_imagenet_subset
from torch import nn

__all__ = ["class_names", "printable"]


OBEYED = ("Cc", "Cs", "Zl", "Zp")  # categories of Unicode
TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # the direction of the text


def class_names(model: nn.Module) -> Optional[List[str]]:
    """Names of the classes, in order: those of the weights' cfg, else of the ImageNet set of so many classes.

    Where classes share a name, as the bird and the machine "crane", the class's number follows it. None if neither is
    known.
    """
    cfg = getattr(model, "pretrained_cfg", None) or {}
    names, classes = cfg.get("label_names"), getattr(model, "num_classes", 0)
    info: DatasetInfo
    if isinstance(names, (list, tuple)) and len(names) == classes:
        info = CustomDatasetInfo([str(name) for name in names], cfg.get("label_descriptions"))
    elif subset := infer_imagenet_subset({"num_classes": classes}):
        info = ImageNetInfo(subset)
    else:
        return None
    described = [str(info.index_to_description(index)) for index in range(classes)]
    counts = Counter(described)
    return [f"{name} ({index})" if counts[name] > 1 else name for index, name in enumerate(described)]


def printable(text: str) -> str:
    """Text of files for a terminal: what it would obey, or can't show, as Python escapes it."""
    return "".join(repr(char)[1:-1] if category(char) in OBEYED or char in TURNING else char for char in text)
