"""Seeing the attention: capture the masks of a forward pass, reduce their channels, draw them.

    >>> with capture_masks(model) as masks:
    ...     logits = model(images)
    >>> plot_masks(denormalized_images, masks, path="masks.png")

A mask has as many channels as its trunk, 64 to 1024, and their mean and maximum are often nearly flat: see
`reduce_mask` for what else can be drawn.
"""

import os
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, Mapping, Optional, Sequence, Union

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .attention import AttentionModule
from .files import check_target, written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["REDUCTIONS", "capture_masks", "overlay", "plot_masks", "reduce_mask", "save_figure"]

REDUCTIONS = ("mean", "max", "norm", "varied", "varied:<k>", "channel:<k>", "pca")


@contextmanager
def capture_masks(model: nn.Module) -> Iterator[Dict[str, torch.Tensor]]:
    """Record the mask M of every `AttentionModule` in each forward pass of the ``with`` block.

    A model that ``torch.compile`` made or changed runs uncompiled within the block (from torch 2.6 on).

    Yields:
        The dict that forward passes fill: module name, for example ``"stages.0.blocks.1"``, to the mask
        ``(B, C, h, w)`` of the last one, detached, in network order. It stays filled after the block.

    Raises:
        ValueError: The model has no Attention Module with a mask; the message says why.
        RuntimeError: At the end of the block: no mask was recorded.
    """
    modules = {name: m for name, m in model.named_modules() if isinstance(m, AttentionModule)}
    masked = {name: m.mask for name, m in modules.items() if m.mask is not None}
    if not masked:
        raise ValueError(
            f"No masks to capture: this {type(model).__name__} has no AttentionModule with a mask, as the networks of "
            "this package have unless they are scripted, traced or built with mask_type='none'."
        )
    masks: Dict[str, torch.Tensor] = {}

    def record(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: torch.Tensor) -> None:
            masks[name] = output.detach()

        return hook

    handles = [mask.register_forward_hook(record(name)) for name, mask in masked.items()]
    # code that is compiled already knows nothing of these hooks
    set_stance = getattr(torch.compiler, "set_stance", None)
    try:
        with set_stance("force_eager") if set_stance is not None else nullcontext():
            yield masks
    finally:
        for handle in handles:
            handle.remove()
    if not masks:
        raise RuntimeError("No mask was recorded: call this model itself, not compiled, within the block.")


def _split_reduction(how: str, channels: int) -> "tuple[str, int]":
    """Name and channel rank or index of a reduction: ``"varied:2"`` -> ``("varied", 1)``."""
    name, colon, number = str(how).partition(":")
    least = {"varied": 1, "channel": 0}.get(name, -1)
    if how in ("mean", "max", "norm", "varied", "pca"):
        return name, 0
    if colon and least >= 0 and number.isdecimal():
        index = int(number) - least
        if 0 <= index < channels:
            return name, index
        raise ValueError(f"k of {name}:<k> must be {least} to {channels - 1 + least} here; got {number}.")
    raise ValueError(f"how must be one of {', '.join(map(repr, REDUCTIONS))}; got {how!r}.")


def reduce_mask(mask: torch.Tensor, how: str = "varied") -> torch.Tensor:
    """Reduce the channels c of a mask to one value, or one colour, at each position i, in [0, 1].

    ======================  ==========================================================================
    ``"mean"``              ``mean_c M[c, i]``
    ``"max"``               ``max_c M[c, i]``
    ``"norm"``              ``||M[:, i]||_2`` (flat for ``attn_act="channel"``, which makes it 1)
    ``"varied:<k>"``        ``M[c, i]`` of the channel c with the k-th largest standard deviation over
                            the positions, averaged over the batch; ``"varied"`` is k = 1
    ``"channel:<k>"``       ``M[k, i]``, k from 0
    ``"pca"``               a colour: the three first principal components of the vectors ``M[:, i]`` of
                            the whole batch as red, green and blue. Where two positions have the same
                            colour, the mask treats them alike.
    ======================  ==========================================================================

    All but ``"pca"`` are stretched in each image, ``(m - min) / (max - min)``; a constant map gives 0. A
    principal component y of standard deviation s becomes ``1/2 + y / 4s``, clipped.

    Shape: ``(B, C, h, w) -> (B, h, w)``, for ``"pca"`` ``-> (B, h, w, 3)``, float32.

    Raises:
        ValueError: ``how`` is none of the above, k is no channel of the mask, its shape is wrong or its values are
            not finite.
    """
    if mask.ndim != 4 or mask.numel() == 0:
        raise ValueError(f"mask must be of shape (B, C, h, w), not empty; got {tuple(mask.shape)}.")
    if not mask.isfinite().all():
        raise ValueError("mask must be finite; it holds NaN or infinity.")
    name, index = _split_reduction(how, mask.shape[1])
    mask = mask.detach().float()
    if name == "pca":
        return _principal_colors(mask)
    if name == "mean":
        reduced = mask.mean(1)
    elif name == "max":
        reduced = mask.amax(1)
    elif name == "norm":
        reduced = mask.norm(dim=1)
    elif name == "varied":
        spread = mask.flatten(2).std(2, correction=0).mean(0)
        reduced = mask[:, spread.argsort(descending=True)[index]]
    else:
        reduced = mask[:, index]
    low, high = reduced.amin((1, 2), keepdim=True), reduced.amax((1, 2), keepdim=True)
    return (reduced - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny)


def _principal_colors(mask: torch.Tensor) -> torch.Tensor:
    """``(B, C, h, w) -> (B, h, w, 3)``, see `reduce_mask`."""
    vectors = mask.movedim(1, -1)
    flat = vectors.reshape(-1, mask.shape[1])
    flat = flat - flat.mean(0)
    _, directions = torch.linalg.eigh(flat.T @ flat)  # ascending
    components = flat @ directions.flip(1)[:, :3]
    components = F.pad(components, (0, 3 - components.shape[1]))
    # the sign of a principal component is arbitrary: brighter is more attention
    components = components * (1 - 2 * (components.T @ flat.mean(1) < 0).float())
    spread = components.std(0, correction=0).clamp(min=1e-6)
    return (0.5 + components / (4 * spread)).clamp(0, 1).reshape(*vectors.shape[:3], 3)


def _matplotlib() -> Any:
    import matplotlib.backends.backend_agg  # of the extra demo
    import matplotlib.figure

    return matplotlib


def _check_image(image: torch.Tensor) -> None:
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"an image must be of shape (1, H, W) or (3, H, W); got {tuple(image.shape)}.")
    if not (image.amin() >= -1e-3 and image.amax() <= 1 + 1e-3):  # undone normalisations round
        raise ValueError("an image must have values in [0, 1]: undo the normalisation, image * std + mean.")


def overlay(image: torch.Tensor, heat: torch.Tensor, alpha: float = 0.6, cmap: str = "inferno") -> np.ndarray:
    """Lay a reduced mask over its image: ``(1 - alpha) * image + alpha * colour(heat)``.

    ``heat`` is resized as the network resizes its masks: bilinearly, with aligned corners.

    Shape: image ``(1 or 3, H, W)`` and heat ``(h, w)`` or, a colour already, ``(h, w, 3)``, all in [0, 1],
    ``-> (H, W, 3)`` in [0, 1].

    Args:
        image: The image.
        heat: One item of what `reduce_mask` returns.
        alpha: 0 shows the image alone, 1 the mask alone.
        cmap: Matplotlib's name of the colour map of ``(h, w)`` heat.

    Raises:
        ValueError: The image's shape or range is not what it may be.
    """
    _check_image(image)
    colormap = _matplotlib().colormaps[cmap]
    planes = heat.detach().float().cpu().reshape(*heat.shape[:2], -1).movedim(2, 0)
    size = (image.shape[1], image.shape[2])
    resized = F.interpolate(planes[None], size=size, mode="bilinear", align_corners=True)[0].clamp(0, 1)
    color = resized.movedim(0, 2).numpy() if heat.ndim == 3 else colormap(resized[0].numpy())[..., :3]
    picture = image.detach().float().cpu().clamp(0, 1).expand(3, -1, -1).movedim(0, 2).numpy()
    return ((1 - alpha) * picture + alpha * color).astype(np.float32)


def plot_masks(
    images: torch.Tensor,
    masks: Mapping[str, torch.Tensor],
    how: Union[str, Sequence[str]] = "varied",
    titles: Optional[Sequence[str]] = None,
    caption: Optional[str] = None,
    path: Optional[Union[str, "os.PathLike[str]"]] = None,
    alpha: float = 0.6,
    cmap: str = "inferno",
    images_along: str = "rows",
) -> "Figure":
    """Draw a grid: for each image a row with the image, then its masks laid over it, module by module.

    Args:
        images: ``(B, 1 or 3, H, W)`` in [0, 1].
        masks: What `capture_masks` yields: name to mask ``(B, C, h, w)``.
        how: One or more reductions, see `reduce_mask`; each gives a column for each module.
        titles: One for each image.
        caption: Text under the grid.
        path: Also save the figure there; the suffix sets the format.
        alpha: See `overlay`.
        cmap: See `overlay`.
        images_along: ``"rows"``, or ``"columns"`` for the transposed grid, better for many images.

    Returns:
        The figure. ``figure.axes`` goes through the grid row by row.

    Raises:
        ValueError: An argument is not what it may be.
    """
    hows = [how] if isinstance(how, str) else list(how)
    if images.ndim != 4 or images.numel() == 0:
        raise ValueError(f"images must be of shape (B, 1 or 3, H, W), not empty; got {tuple(images.shape)}.")
    if not masks or not hows:
        raise ValueError("masks and how must not be empty; a forward pass within capture_masks fills masks.")
    for name, mask in masks.items():
        if len(mask) != len(images):
            raise ValueError(f"{name} must have a mask for each of the {len(images)} images; got {len(mask)}.")
    if images_along not in ("rows", "columns"):
        raise ValueError(f"images_along must be one of 'rows', 'columns'; got {images_along!r}.")
    if path is not None:
        check_picture_path(path)

    pictures = [[overlay(image, torch.zeros(1, 1), alpha=0) for image in images]]
    labels = ["input"]
    for name, mask in masks.items():
        for one_how in hows:
            reduced = reduce_mask(mask, one_how)
            pictures.append([overlay(image, heat, alpha, cmap) for image, heat in zip(images, reduced)])
            labels.append(f"{name}\n{mask.shape[2]}x{mask.shape[3]}, {one_how}")

    by_rows = images_along == "rows"
    rows, columns = (len(images), len(labels)) if by_rows else (len(labels), len(images))
    panel_width, panel_height = 1.2, 1.2 * images.shape[2] / images.shape[3]
    figure = _matplotlib().figure.Figure(
        figsize=(panel_width * columns + 0.4, panel_height * rows + 0.6), layout="constrained"
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    for column, axes in enumerate(grid.T if by_rows else grid):
        for row, panel in enumerate(axes):
            panel.imshow(pictures[column][row])
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
    label_axes, title_axes = (grid[0], grid[:, 0]) if by_rows else (grid[:, 0], grid[0])
    for panel, label in zip(label_axes, labels):
        panel.set_title(label, fontsize=8) if by_rows else panel.set_ylabel(label, fontsize=8)
    for panel, title in zip(title_axes, titles or ()):
        panel.set_ylabel(title, fontsize=8) if by_rows else panel.set_title(title, fontsize=8)
    if caption is not None:
        figure.supxlabel(caption, fontsize=9)
    if path is not None:
        save_figure(figure, path)
    return figure


def check_picture_path(path: Union[str, "os.PathLike[str]"]) -> None:
    """Find out before the work whether a picture could be saved there; errors as of `save_figure`."""
    formats = _matplotlib().backends.backend_agg.FigureCanvasAgg.get_supported_filetypes()
    check_target(path, [f".{name}" for name in sorted(formats)], "a picture")


def save_figure(figure: "Figure", path: Union[str, "os.PathLike[str]"]) -> None:
    """Save a figure whole or not at all.

    Raises:
        ValueError: The suffix is no picture format, or the folder does not exist.
        OSError: Writing failed.
    """
    check_picture_path(path)
    with written_whole(Path(path)) as partial_path:
        figure.savefig(partial_path, dpi=110)
