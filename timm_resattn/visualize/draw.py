"""Drawing masks: over their images, on scales that are the same for every image and module."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, List, Mapping, Optional, Sequence, Union

import numpy as np
import torch
import torch.nn.functional as F

from ..files import check_target, written_whole
from .record import AttentionRecord
from .reduce import ranked_channel, reduce_mask

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["check_picture_path", "overlay", "plot_attention", "plot_masks", "save_figure"]

CMAP = "inferno"


def _matplotlib() -> Any:
    import matplotlib.backends.backend_agg  # of the extra demo
    import matplotlib.cm
    import matplotlib.colors
    import matplotlib.figure

    return matplotlib


def overlay(image: torch.Tensor, heat: torch.Tensor, alpha: float = 0.6, cmap: str = CMAP) -> np.ndarray:
    """Lay a reduced mask over its image: ``(1 - alpha) * image + alpha * colour(heat)``.

    ``heat`` is resized as the network resizes its masks: bilinearly, with aligned corners.

    Shape: image ``(1 or 3, H, W)`` and heat ``(h, w)`` or, a colour already, ``(h, w, 3)``, all in [0, 1],
    ``-> (H, W, 3)`` in [0, 1].

    Args:
        image: The image.
        heat: A map, one item of what `reduce_mask` returns.
        alpha: 0 shows the image alone, 1 the mask alone.
        cmap: Matplotlib's name of the colour map of ``(h, w)`` heat.

    Raises:
        ValueError: The image's shape or range is not what it may be.
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"an image must be of shape (1, H, W) or (3, H, W); got {tuple(image.shape)}.")
    if not (image.amin() >= -1e-3 and image.amax() <= 1 + 1e-3):  # undone normalisations round
        raise ValueError("an image must have values in [0, 1]: undo the normalisation, image * std + mean.")
    colormap = _matplotlib().colormaps[cmap]
    planes = heat.detach().float().cpu().reshape(*heat.shape[:2], -1).movedim(2, 0)
    size = (image.shape[1], image.shape[2])
    resized = F.interpolate(planes[None], size=size, mode="bilinear", align_corners=True)[0].clamp(0, 1)
    color = resized.movedim(0, 2).numpy() if heat.ndim == 3 else colormap(resized[0].numpy())[..., :3]
    picture = image.detach().float().cpu().clamp(0, 1).expand(3, -1, -1).movedim(0, 2).numpy()
    return ((1 - alpha) * picture + alpha * color).astype(np.float32)


def _effect_heats(record: AttentionRecord) -> List[torch.Tensor]:
    """What each module's mask raises the class by, ``(B, h, w)``, relative to the image's limit, see `plot_masks`."""
    maps = [effect.float().clamp(min=0).sum(1) * effect[0, 0].numel() for effect in record.effects.values()]
    limits = torch.stack([m.flatten(1).quantile(0.98, dim=1) for m in maps]).amax(0)
    return [(m / limits.clamp(min=torch.finfo(torch.float32).tiny)[:, None, None]).clamp(max=1) for m in maps]


def plot_masks(
    images: torch.Tensor,
    masks: Union[AttentionRecord, Mapping[str, torch.Tensor]],
    how: Optional[Union[str, Sequence[str]]] = None,
    titles: Optional[Sequence[str]] = None,
    caption: Optional[str] = None,
    path: Optional[Union[str, "os.PathLike[str]"]] = None,
    alpha: float = 0.6,
    images_along: str = "rows",
) -> "Figure":
    """Draw a grid: for each image a row with the image, then its masks laid over it, module by module.

    All panels are on one scale, from 0 to 1: values of masks as they are, effects on the class per pixel of the image
    and relative to what 2% of the positions exceed in the module where that is most. A panel of one image is therefore
    the same whatever other images are drawn, and panels can be compared by their colours.

    Args:
        images: ``(B, 1 or 3, H, W)`` in [0, 1].
        masks: What `record_attention` returns, or what `capture_masks` yields: name to mask ``(B, C, h, w)``.
        how: One or more reductions, see `reduce_mask`; each gives a column for each module. ``"effect"`` draws the sum
            over the channels of the positive part of `AttentionRecord.effects`. By default ``"effect"`` where masks are
            a record, else ``"mean"``.
        titles: One for each image.
        caption: Text under the grid.
        path: Also save the figure there; the suffix sets the format.
        alpha: See `overlay`.
        images_along: ``"rows"``, or ``"columns"`` for the transposed grid, better for many images.

    Returns:
        The figure. ``figure.axes`` goes through the grid row by row; the colour bar comes last.

    Raises:
        ValueError: An argument is not what it may be.
    """
    record = masks if isinstance(masks, AttentionRecord) else None
    tensors = record.masks if record else masks
    assert not isinstance(tensors, AttentionRecord)
    if how is None:
        how = "effect" if record else "mean"
    hows = [how] if isinstance(how, str) else list(how)
    if images.ndim != 4 or images.numel() == 0:
        raise ValueError(f"images must be of shape (B, 1 or 3, H, W), not empty; got {tuple(images.shape)}.")
    if not tensors or not hows:
        raise ValueError("masks and how must not be empty; a forward pass within capture_masks fills masks.")
    for name, mask in tensors.items():
        if len(mask) != len(images):
            raise ValueError(f"{name} must have a mask for each of the {len(images)} images; got {len(mask)}.")
    if images_along not in ("rows", "columns"):
        raise ValueError(f"images_along must be one of 'rows', 'columns'; got {images_along!r}.")
    if "effect" in hows and record is None:
        raise ValueError("'effect' needs what record_attention returns; capture_masks yields masks alone.")
    if path is not None:
        check_picture_path(path)

    labels = ["input"]
    pictures = [[overlay(image, torch.zeros(1, 1), alpha=0) for image in images]]
    notes: List[Sequence[Optional[str]]] = [[None] * len(images)]
    effects = _effect_heats(record) if record else []
    for index, (name, mask) in enumerate(tensors.items()):
        for one_how in hows:
            if one_how == "effect":
                heats, channels = effects[index], None
            else:
                heats, channels = reduce_mask(mask, one_how), ranked_channel(mask, one_how)
            pictures.append([overlay(image, heat, alpha) for image, heat in zip(images, heats)])
            notes.append([None] * len(images) if channels is None else [f"channel {c}" for c in channels])
            labels.append(f"{name}\n{mask.shape[2]}x{mask.shape[3]}, {one_how}")

    by_rows = images_along == "rows"
    rows, columns = (len(images), len(labels)) if by_rows else (len(labels), len(images))
    panel_width, panel_height = 1.2, 1.2 * images.shape[2] / images.shape[3]
    matplotlib = _matplotlib()
    figure = matplotlib.figure.Figure(
        figsize=(panel_width * columns + 0.9, panel_height * rows + 1.1), layout="constrained"
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    for column, axes in enumerate(grid.T if by_rows else grid):
        for row, panel in enumerate(axes):
            panel.imshow(pictures[column][row])
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
            if note := notes[column][row]:
                box = {"facecolor": "black", "alpha": 0.6, "pad": 1, "linewidth": 0}
                panel.text(0.03, 0.03, note, transform=panel.transAxes, color="white", fontsize=6, bbox=box)
    label_axes, title_axes = (grid[0], grid[:, 0]) if by_rows else (grid[:, 0], grid[0])
    for panel, label in zip(label_axes, labels):
        panel.set_title(label, fontsize=8) if by_rows else panel.set_ylabel(label, fontsize=8)
    for panel, title in zip(title_axes, titles or ()):
        set_title = panel.set_ylabel if by_rows else panel.set_title
        set_title(title, fontsize=8, parse_math=False)  # a file's name may have dollars
    if caption is not None:
        figure.supxlabel(caption, fontsize=9)

    if set(hows) != {"pca"}:
        scale = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, 1), CMAP)
        figure.colorbar(scale, ax=grid.ravel().tolist(), aspect=30, pad=0.01, shrink=0.9)
    if path is not None:
        save_figure(figure, path)
    return figure


def plot_attention(
    images: torch.Tensor,
    record: AttentionRecord,
    channels: Optional[Sequence[int]] = None,
    titles: Optional[Sequence[str]] = None,
    path: Optional[Union[str, "os.PathLike[str]"]] = None,
) -> "Figure":
    """Draw the paper's Figure 1: feature before the mask, mask, feature after it, of single channels.

    A row for each image, module and channel: the image, ``T[c]``, ``M[c]``, ``H[c]``. Mask values are drawn on one
    scale, from 0 to 1; both features of a row on one scale, from the least to the greatest of them.

    Args:
        images: ``(B, 1 or 3, H, W)`` in [0, 1].
        record: What `record_attention` returns.
        channels: The channels c; by default, for each image and module, the one whose mask raises the class most.
        titles: One for each image.
        path: Also save the figure there; the suffix sets the format.

    Raises:
        IndexError: A module has no such channel.
        ValueError: ``path`` can't be used.
    """
    if path is not None:
        check_picture_path(path)
    cells = []
    for index in range(len(images)):
        for name, effect in record.effects.items():
            chosen = channels if channels else [int(effect[index].sum((1, 2)).argmax())]
            cells += [(index, name, channel) for channel in chosen]
    height = 1.5 * images.shape[2] / images.shape[3]
    figure = _matplotlib().figure.Figure(figsize=(7.2, height * len(cells) + 0.5), layout="constrained")
    grid = figure.subplots(len(cells), 4, squeeze=False)
    for panel, label in zip(grid[0], ("input", "feature before the mask", "mask", "feature after")):
        panel.set_title(label, fontsize=8)
    for (index, name, channel), (image_panel, *panels) in zip(cells, grid):
        trunk, mask, product = (
            tensors[name][index, channel].float().cpu() for tensors in (record.trunks, record.masks, record.products)
        )
        low, high = min(trunk.min(), product.min()).item(), max(trunk.max(), product.max()).item()
        image_panel.imshow(overlay(images[index], torch.zeros(1, 1), alpha=0))
        for panel, values, limits, cmap in zip(
            panels, (trunk, mask, product), ((low, high), (0, 1), (low, high)), ("viridis", CMAP, "viridis")
        ):
            drawn = panel.imshow(values.numpy(), vmin=limits[0], vmax=limits[1], cmap=cmap)
            figure.colorbar(drawn, ax=panel, shrink=0.8).ax.tick_params(labelsize=6)
        title = f"{titles[index]}\n" if titles else ""
        image_panel.set_ylabel(f"{title}{name}\nchannel {channel}", fontsize=7, parse_math=False)
        for panel in (image_panel, *panels):
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
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
    with written_whole(Path(path)) as partial:
        figure.savefig(partial, dpi=110)
