"""Text of model cards: what the weights are, numbers with their source, use, licence, citation."""

from pathlib import Path
from typing import Any, Dict, Sequence, cast

from timm.models import PretrainedCfg
from torch import nn

from .shipped import read_manifest

__all__ = ["converted_card", "pretrained_card"]

TIMM_RESULTS = "https://github.com/huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv"
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

# the paper, timm, and what a donor's name contains
CITATIONS = {
    "paper": """@inproceedings{wang2017residual,
  title = {Residual Attention Network for Image Classification},
  author = {Wang, Fei and Jiang, Mengqing and Qian, Chen and Yang, Shuo and Li, Cheng and Zhang, Honggang and
            Wang, Xiaogang and Tang, Xiaoou},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages = {3156--3164},
  year = {2017}
}""",
    "timm": """@misc{rw2019timm,
  title = {PyTorch Image Models},
  author = {Wightman, Ross},
  year = {2019},
  doi = {10.5281/zenodo.4414861},
  howpublished = {\\url{https://github.com/huggingface/pytorch-image-models}}
}""",
    "resnetv2": """@inproceedings{he2016identity,
  title = {Identity Mappings in Deep Residual Networks},
  author = {He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian},
  booktitle = {European Conference on Computer Vision (ECCV)},
  year = {2016}
}""",
    "resnext": """@inproceedings{xie2017aggregated,
  title = {Aggregated Residual Transformations for Deep Neural Networks},
  author = {Xie, Saining and Girshick, Ross and Doll{\\'a}r, Piotr and Tu, Zhuowen and He, Kaiming},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition (CVPR)},
  year = {2017}
}""",
    ".a": """@inproceedings{wightman2021resnet,
  title = {ResNet strikes back: An improved training procedure in timm},
  author = {Wightman, Ross and Touvron, Hugo and J{\\'e}gou, Herv{\\'e}},
  booktitle = {NeurIPS 2021 Workshop on ImageNet: Past, Present, and Future},
  year = {2021}
}""",
    ".fb_": """@article{yalniz2019billion,
  title = {Billion-scale semi-supervised learning for image classification},
  author = {Yalniz, I. Zeki and J{\\'e}gou, Herv{\\'e} and Chen, Kan and Paluri, Manohar and Mahajan, Dhruv},
  journal = {arXiv preprint arXiv:1905.00546},
  year = {2019}
}""",
    ".gluon": """@inproceedings{he2019bag,
  title = {Bag of Tricks for Image Classification with Convolutional Neural Networks},
  author = {He, Tong and Zhang, Zhi and Zhang, Hang and Zhang, Zhongyue and Xie, Junyuan and Li, Mu},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition (CVPR)},
  year = {2019}
}""",
    ".ra_": """@inproceedings{cubuk2020randaugment,
  title = {RandAugment: Practical automated data augmentation with a reduced search space},
  author = {Cubuk, Ekin D. and Zoph, Barret and Shlens, Jonathon and Le, Quoc V.},
  booktitle = {CVPR Workshops},
  year = {2020}
}""",
    ".tv": """@misc{torchvision2016,
  title = {TorchVision: PyTorch's Computer Vision library},
  author = {{TorchVision maintainers and contributors}},
  year = {2016},
  howpublished = {\\url{https://github.com/pytorch/vision}}
}""",
}


SOURCES = {
    "timm": "a checkpoint of this model family",
    "donor": "a residual network, the donor of the trunk",
    "pytorchcv": "a checkpoint of pytorchcv's network",
    "caffe-npz": "blobs of the authors' Caffe network",
}


def pretrained_card(model: nn.Module) -> str:
    """Card of a model's pretrained name: a donor's trunk, a public set, or weights that ship."""
    cfg = PretrainedCfg(**cast(Any, model.pretrained_cfg))
    name = f"{cfg.architecture}.{cfg.tag}"
    front = {"license": cfg.license or "unknown", "datasets": ["imagenet-1k"]}
    citations = ["paper"]
    call = f'timm.create_model("{name}", pretrained=True)'
    licence = f"The weights: {cfg.license}."
    if cfg.file:
        entry = read_manifest()[Path(cfg.file).name]
        front["datasets"] = [entry["dataset"].lower().replace("-", "")]
        what = [
            f"{entry['accuracy']}% top-1 on the 10,000 test images of {entry['dataset']}, measured with the "
            "file that ships in the package.",
            f"Trained by `{entry['command']}` at commit {entry['commit']}: {entry['schedule']}, seed {entry['seed']}.",
        ]
    elif cfg.hf_hub_id:
        front["base_model"] = cfg.hf_hub_id
        citations += ["timm", *(key for key in CITATIONS if key in cfg.hf_hub_id.partition("/")[2])]
        donor = f"[{cfg.hf_hub_id}](https://huggingface.co/{cfg.hf_hub_id})"
        what = [
            UNTRAINED_MASKS.format(donor=donor),
            f"{cfg.description} The numbers are the donor's top-1 accuracy on ImageNet-1k, by "
            f"[timm's results]({TIMM_RESULTS}).",
            f"This folder holds no weights: `{call}` downloads the donor's from its own repository.",
        ]
        licence = f"The weights: {cfg.license}, the donor's."
    else:
        what = [str(cfg.description), f"This folder holds no weights: `{call}` downloads {cfg.url}."]
        if not cfg.license:
            licence = f"{cfg.origin_url} states no licence for the weights: ask there before passing them on."
    return _card(name, front, what, model, call, f"{licence} The code: Apache-2.0.", citations)


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
    return _card(title, {"license": "unknown"}, what, model, call, licence, ["paper"])


def _card(
    title: str,
    front: Dict[str, Any],
    what: Sequence[str],
    model: nn.Module,
    call: str,
    licence: str,
    citations: Sequence[str],
) -> str:
    cfg: Any = model.pretrained_cfg
    front = {
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "timm", "timm_resattn", "residual-attention-network"],
        **front,
    }
    yaml = [
        f"{key}:" + "".join(f"\n- {item}" for item in value) if isinstance(value, list) else f"{key}: {value}"
        for key, value in front.items()
    ]
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
        "\n".join(["---", *yaml, "---"]),
        f"# {title}",
        INTRODUCTION,
        *what,
        "\n".join(f"- {key}: {value}" for key, value in facts.items()),
        "## Use",
        USAGE.format(call=call),
        "## Licence",
        licence,
        "## Citation",
        *(f"```bibtex\n{CITATIONS[key]}\n```" for key in citations),
    ]
    return "\n\n".join(parts) + "\n"
