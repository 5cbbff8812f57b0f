"""Text of the model card of a converted folder, by timm's own template."""

from typing import Any

from timm.models._hub import generate_readme
from torch import nn

from .checkpoints.adapt import SOURCES

__all__ = ["INTRODUCTION", "PAPER", "UNTRAINED_MASKS", "USAGE", "converted_card"]


INTRODUCTION = (
    "A [Residual Attention Network](https://arxiv.org/abs/1704.06904) (Wang et al., CVPR 2017) for "
    "`timm_resattn`, a plugin for [timm](https://github.com/huggingface/pytorch-image-models)."
)
UNTRAINED_MASKS = (
    "**The masks are untrained.** These weights make the network compute the function of {donor}, a residual "
    "network without attention: the trunk holds its weights, the masks are constant. The accuracy is therefore "
    "that network's. They are a start for fine-tuning, in which the masks learn from the second step on, not a "
    "trained Residual Attention Network."
)
USAGE = """```sh
pip install timm-resattn
```

```python
import timm
import timm_resattn  # registers the models

model = {call}.eval()
data_config = timm.data.resolve_model_data_config(model)
transform = timm.data.create_transform(**data_config, is_training=False)
logits = model(transform(image).unsqueeze(0))  # image: a PIL image
```

`num_classes=N` gives a fresh classifier to fine-tune, `features_only=True` the feature maps."""
PAPER = """@inproceedings{wang2017residual,
  title = {Residual Attention Network for Image Classification},
  author = {Wang, Fei and Jiang, Mengqing and Qian, Chen and Yang, Shuo and Li, Cheng and Zhang, Honggang and
            Wang, Xiaogang and Tang, Xiaoou},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages = {3156--3164},
  year = {2017}
}"""


def converted_card(model: nn.Module, title: str, kind: str, source: str) -> str:
    """Card of a folder that ``timm-resattn convert`` writes.

    Args:
        model: The network with its ``pretrained_cfg``.
        title: Heading, also the name of the folder.
        kind: One of `SOURCES`.
        source: Name of the source file.
    """
    what = [INTRODUCTION, f"Converted from `{source}`, {SOURCES[kind]}, by `timm-resattn convert`."]
    if kind == "donor":
        what.append(UNTRAINED_MASKS.format(donor=f"`{source}`"))
    if kind == "caffe-npz":
        what.append(
            "Caffe's blobs do not say what images they were trained on: check `mean` and `std` in "
            "`config.json` and the order of the channels, which in Caffe is usually blue, green, red. Nor do they say "
            "whether they hold variances or, as those of the authors' fork, inverse deviations (`--inverse-std`)."
        )
    what.append("The source records no accuracy, data set or licence: add them here and at the head of this file.")
    cfg: Any = model.pretrained_cfg
    details = {
        "Model": f"`{cfg['architecture']}`",
        "Params": f"{sum(p.numel() for p in model.parameters()):,}",
        "Image size": " x ".join(map(str, cfg["input_size"][1:])),
    }
    call = f'timm.create_model("local-dir:{title}", pretrained=True)'
    content = dict(license="unknown", description="\n\n".join(what), details=details)
    return generate_readme(dict(content, usage=USAGE.format(call=call), citation=PAPER), title)
