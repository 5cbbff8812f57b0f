"""Model cards of the pretrained names, for `hf_configs/`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from timm.models import PretrainedCfg
from torch import nn

from timm_resattn.model_card import INTRODUCTION, PAPER, UNTRAINED_MASKS, USAGE
from timm_resattn.shipped import read_manifest

TIMM_RESULTS = "https://github.com/huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv"
# timm, and what a donor's name contains
CITATIONS = {
    "timm": """@misc{rw2019timm,
  title = {PyTorch Image Models},
  author = {Wightman, Ross},
  year = {2019},
  doi = {10.5281/zenodo.4414861},
  howpublished = {\\url{https://github.com/huggingface/pytorch-image-models}}
}""",
    "resnet": """@inproceedings{he2016deep,
  title = {Deep Residual Learning for Image Recognition},
  author = {He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition (CVPR)},
  year = {2016}
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


def pretrained_card(model: nn.Module) -> str:
    """Card of a model's pretrained name: a donor's trunk, a public set, or weights that ship."""
    cfg = PretrainedCfg(**model.pretrained_cfg)
    name = f"{cfg.architecture}.{cfg.tag}"
    front: dict[str, Any] = {"license": cfg.license or "unknown", "datasets": ["imagenet-1k"]}
    citations = []
    call = f'timm.create_model("{name}", pretrained=True)'
    licence = f"The weights: {cfg.license}."
    if cfg.file:
        entry = read_manifest()[Path(cfg.file).name]
        dataset = entry["dataset"].lower().replace("-", "")
        front["datasets"] = [dataset]
        front["model_name"] = name  # with the results, the model-index
        front["eval_results"] = [
            EvalResult("image-classification", dataset, entry["dataset"], "accuracy", entry["accuracy"])
        ]
        what = [
            f"{entry['accuracy']}% top-1 on the 10,000 test images of {entry['dataset']}, measured with the "
            "file that ships in the package.",
            f"Training: {entry['schedule']}; seed {entry['seed']}, commit {entry['commit']}. Commands, "
            f"configuration and hardware: `{entry['record']}` in the repository.",
        ]
    elif cfg.hf_hub_id:
        front["base_model"] = cfg.hf_hub_id
        citations += [
            CITATIONS["timm"],
            *(CITATIONS[key] for key in CITATIONS if key in cfg.hf_hub_id.partition("/")[2]),
        ]
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


def _card(
    title: str,
    front: dict[str, Any],
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
