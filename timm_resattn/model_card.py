"""Text of model cards: what the weights are, numbers with their source, use, licence, citation."""

from typing import Any, Dict, Sequence

from huggingface_hub import ModelCardData
from torch import nn

from .checkpoints.adapt import SOURCES

__all__ = ["UNTRAINED_MASKS", "card", "converted_card"]

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

USAGE = """```python
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
    what = [f"Converted from `{source}`, {SOURCES[kind]}, by `timm-resattn convert`."]
    if kind == "donor":
        what.append(UNTRAINED_MASKS.format(donor=f"`{source}`"))
    if kind == "caffe-npz":
        what.append(
            "Caffe's blobs do not say what images they were trained on: check `mean` and `std` in "
            "`config.json` and the order of the channels, which in Caffe is usually blue, green, red."
        )
    what.append("The source records no accuracy and no data set: add them here.")
    call = f'timm.create_model("local-dir:{title}", pretrained=True)'
    licence = "The source records no licence: add that of the weights here and at the head of this file."
    return card(title, {"license": "unknown"}, what, model, call, licence)


def card(
    title: str,
    front: Dict[str, Any],
    what: Sequence[str],
    model: nn.Module,
    call: str,
    licence: str,
    citations: Sequence[str] = (),
) -> str:
    """Text of a card.

    Args:
        title: Heading.
        front: What its head says of the weights, see ``huggingface_hub.ModelCardData``.
        what: Paragraphs.
        model: The network with its ``pretrained_cfg``.
        call: Python that makes the model.
        licence: Paragraph.
        citations: BibTeX entries besides the paper's.
    """
    cfg: Any = model.pretrained_cfg
    tags = ["image-classification", "timm", "timm_resattn", "residual-attention-network"]
    head = ModelCardData(library_name="timm", pipeline_tag="image-classification", tags=tags, **front)
    sizes = " x ".join(map(str, cfg["input_size"]))
    if cfg.get("test_input_size"):
        sizes += f", for tests {' x '.join(map(str, cfg['test_input_size']))}"
    facts = {
        "Model": f"`{cfg['architecture']}`",
        "Parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "Classes": model.num_classes,
        "Input": sizes,
        "Mean, standard deviation": f"{tuple(cfg['mean'])}, {tuple(cfg['std'])}",
    }
    parts = [
        f"---\n{head.to_yaml()}\n---",
        f"# {title}",
        INTRODUCTION,
        *what,
        "\n".join(f"- {key}: {value}" for key, value in facts.items()),
        "## Use",
        USAGE.format(call=call),
        "## Licence",
        licence,
        "## Citation",
        *(f"```bibtex\n{entry}\n```" for entry in (PAPER, *citations)),
    ]
    return "\n\n".join(parts) + "\n"
