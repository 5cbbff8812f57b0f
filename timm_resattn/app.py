"""A page to look at masks: drop a picture, choose network, module, reduction and class."""

import dataclasses
import io
from typing import Any, Dict, List, Mapping, Optional, Tuple

import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch import nn

from .attention import AttentionModule
from .labels import class_names
from .pictures import read_picture
from .visualize import AttentionRecord, plot_masks, record_attention

__all__ = ["build_app", "look"]

REDUCTIONS = ("effect", "mean", "varied", "channel", "pca")
ALL, PREDICTED = "all", "the predicted one"


def mask_channels(model: nn.Module) -> Dict[str, int]:
    """Channels of the mask of each Attention Module, by the module's name."""
    masks: Dict[str, Any] = {n: m.mask for n, m in model.named_modules() if isinstance(m, AttentionModule) and m.mask}
    return {name: mask.tail.conv2.out_channels for name, mask in masks.items()}


def look(
    model: nn.Module, path: str, module: str = ALL, how: str = "effect", target: Optional[int] = None
) -> Tuple[Dict[str, float], Image.Image]:
    """Probabilities of the classes by name, and the picture's masks, drawn.

    Args:
        model: A classifier in evaluation mode.
        path: File of the picture.
        module: Name of an Attention Module, or ``"all"``.
        how: A reduction, see `timm_resattn.plot_masks`.
        target: The class of which the effect is drawn; by default the predicted one.

    Raises:
        ValueError: The file is no picture, or a choice is not among those there are; one sentence.
    """
    config = resolve_model_data_config(model)
    x = create_transform(**config, is_training=False)(read_picture(path))[None]
    record = record_attention(model, x, None if target is None else torch.tensor([target]))
    if module != ALL:
        record = _only(record, module)
    names = class_names(model) or [str(index) for index in range(record.logits.shape[1])]
    probabilities = dict(zip(names, record.logits.softmax(1)[0].tolist()))
    mean, std = (torch.tensor(config[key]).view(-1, 1, 1) for key in ("mean", "std"))
    shown = names[record.classes[0]]
    figure = plot_masks(
        (x * std + mean).clamp(0, 1), record, how, [f"{shown} {probabilities[shown]:.1%}"], images_along="rows"
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return probabilities, Image.open(buffer)


def _only(record: AttentionRecord, module: str) -> AttentionRecord:
    if module not in record.masks:
        raise ValueError(f"there is no module {module}; there is {', '.join(record.masks)}.")
    parts = ("trunks", "masks", "products", "gradients")
    chosen: Any = {part: {module: getattr(record, part)[module]} for part in parts}
    return dataclasses.replace(record, **chosen)


def _samples() -> List[List[str]]:
    """Three photographs that come with scikit-image."""
    from pathlib import Path

    import skimage.data

    folder = Path(skimage.data.__file__).parent
    return [[str(folder / name)] for name in ("chelsea.png", "rocket.jpg", "motorcycle_left.png")]


def build_app(models: Mapping[str, Any]) -> Any:
    """The page, a ``gradio.Blocks``.

    Args:
        models: Classifiers in evaluation mode, with trained masks, by the names that are shown.

    Raises:
        ImportError: A package of the extra ``app`` is missing.
    """
    import gradio as gr

    def choices(name: str) -> Tuple[Dict[str, int], List[str]]:
        model = models[name]
        classes = class_names(model) or [str(index) for index in range(model.num_classes)]
        return mask_channels(model), classes

    def most_channels(name: str, module: str) -> int:
        channels = choices(name)[0]
        return channels.get(module) or min(channels.values())

    def on_model(name: str) -> Tuple[Any, Any, Any]:
        modules, classes = choices(name)
        return (
            gr.update(choices=[ALL, *modules], value=ALL),
            gr.update(choices=[PREDICTED, *classes], value=PREDICTED),
            gr.update(maximum=most_channels(name, ALL) - 1, value=0),
        )

    def on_module(name: str, module: str, channel: int) -> Any:
        most = most_channels(name, module) - 1
        return gr.update(maximum=most, value=min(channel, most))

    def show(path: Optional[str], name: str, module: str, how: str, channel: int, target: str) -> Tuple[Any, Any]:
        if path is None:
            return None, None
        classes = choices(name)[1]
        try:
            return look(
                models[name],
                path,
                module,
                f"channel:{int(channel)}" if how == "channel" else how,
                classes.index(target) if target in classes else None,
            )
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from None

    first = next(iter(models))
    modules, classes = choices(first)
    with gr.Blocks(title="Residual attention", analytics_enabled=False) as app:
        gr.Markdown(
            "# What the masks do\n"
            "`H = (1 + M) T`: a mask *M* weights the features *T* of its trunk. **effect**: where the mask raises "
            "the logit of the class, relative to the strongest places of the picture. "
            "**mean**, **varied**, **channel**: values of the mask. **pca**: equal colour, equal treatment."
        )
        with gr.Row():
            with gr.Column(scale=1):
                file = gr.File(label="picture", type="filepath", elem_id="picture")
                name = gr.Dropdown([*models], value=first, label="network", elem_id="network")
                module = gr.Dropdown([ALL, *modules], value=ALL, label="module", elem_id="module")
                how = gr.Dropdown([*REDUCTIONS], value="effect", label="reduction", elem_id="reduction")
                channel = gr.Slider(
                    0, most_channels(first, ALL) - 1, 0, step=1, label="channel", visible=False, elem_id="channel"
                )
                target = gr.Dropdown([PREDICTED, *classes], value=PREDICTED, label="class", elem_id="class")
                gr.Examples(_samples(), [file], label="samples")
            with gr.Column(scale=3):
                masks = gr.Image(label="masks", format="png", elem_id="masks")
                prediction = gr.Label(label="prediction", num_top_classes=5, elem_id="prediction")
        inputs, outputs = [file, name, module, how, channel, target], [prediction, masks]
        name.input(on_model, name, [module, target, channel]).then(show, inputs, outputs)
        module.input(on_module, [name, module, channel], channel).then(show, inputs, outputs)
        how.input(lambda how: gr.update(visible=how == "channel"), how, channel).then(show, inputs, outputs)
        gr.on([file.change, channel.input, target.input], show, inputs, outputs, trigger_mode="always_last")
    return app
