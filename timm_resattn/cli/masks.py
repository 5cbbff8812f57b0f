"""``timm-resattn masks``."""

import argparse
from typing import Any, List, Optional

import torch
from timm.data import resolve_model_data_config

from ..labels import class_names
from ..visualize import REDUCTIONS, check_picture_path, plot_attention, plot_masks, record_attention
from .options import check_positive, load_model
from .reading import Pictures, add_picture_options

__all__ = ["add_command"]

HOW_TO_READ = {
    "effect": "effect: where the mask raises the class named (mask x gradient, positive part, summed over channels)",
    "pca": "pca: equal colour, equal treatment",
    "mean": "mean, varied, channel: H = (1 + M) T, so 0 leaves a feature of the trunk as it is and 1 doubles it",
}


def add_command(commands: Any) -> None:
    """Add ``timm-resattn masks`` to the command line."""
    parser = commands.add_parser("masks", help="draw a trained model's masks over pictures")
    add_picture_options(parser, default="resattn92_cifar")
    parser.add_argument("--class", dest="target", metavar="C", help="name or number of a class; default: the predicted")
    parser.add_argument(
        "--reduce",
        action="append",
        metavar="HOW",
        help=f"what to draw of a mask's channels, repeatable: effect, {', '.join(REDUCTIONS)} (default: effect)",
    )
    parser.add_argument(
        "--figure1",
        action="store_true",
        help="draw the paper's Figure 1 instead: a channel before the mask, the mask, and after it",
    )
    parser.add_argument(
        "--channel",
        type=int,
        action="append",
        metavar="K",
        help="a channel for --figure1, repeatable (default: of each mask the one that raises the class most)",
    )
    parser.add_argument("--out", default="masks.png", metavar="FILE", help="default: masks.png")
    parser.set_defaults(func=_masks)


def _masks(args: argparse.Namespace) -> int:
    if not args.checkpoint and not args.pretrained:
        raise ValueError("the masks of random weights mean nothing; give --checkpoint FILE or published weights.")
    check_positive("--img-size", args.img_size)
    check_picture_path(args.out)
    model = load_model(args)
    names = class_names(model)
    target = None if args.target is None else _class_index(args.target, names, model.num_classes)
    config = resolve_model_data_config(model, {"img_size": args.img_size})
    pictures = Pictures("masks", args.paths, model, config)
    read = list(pictures)
    if not read:
        raise ValueError("none of the pictures could be read.")
    inputs = torch.stack([image for _, image in read])
    record = record_attention(model, inputs, None if target is None else torch.full((len(inputs),), target))
    if all(mask.flatten(2).std(2).max() < 1e-6 for mask in record.masks.values()):
        raise ValueError("these weights have untrained masks, the same everywhere (a trunk's, transplanted).")

    mean, std = (torch.tensor(config[key]).view(-1, 1, 1) for key in ("mean", "std"))
    images = (inputs * std + mean).clamp(0, 1)
    probabilities = record.logits.softmax(1).gather(1, record.classes[:, None])[:, 0]
    titles = [
        f"{path.name}\n{names[c] if names else f'class {c}'} {p:.1%}"
        for (path, _), c, p in zip(read, record.classes.tolist(), probabilities.tolist())
    ]
    if args.figure1:
        channels = min(mask.shape[1] for mask in record.masks.values())
        if wrong := [k for k in args.channel or () if not 0 <= k < channels]:
            raise ValueError(f"--channel must be from 0 to {channels - 1}, which all masks have; got {wrong[0]}.")
        plot_attention(images, record, args.channel, titles, path=args.out)
    else:
        hows: List[str] = args.reduce or ["effect"]
        lines = dict.fromkeys(HOW_TO_READ.get(how, HOW_TO_READ["mean"]) for how in hows)
        plot_masks(images, record, hows, titles, "\n".join(lines), path=args.out)
    print(f"{args.out}: masks of {len(record.masks)} Attention Modules over {len(read)} pictures")
    return 1 if pictures.unreadable else 0


def _class_index(target: str, names: Optional[List[str]], classes: int) -> int:
    if names and target in names:
        return names.index(target)
    if target.isdecimal() and int(target) < classes:
        return int(target)
    some = f", or a name: {', '.join(names[:10])}{' ...' if len(names) > 10 else ''}" if names else ""
    raise ValueError(f"--class must be from 0 to {classes - 1}{some}; got {target}.")
