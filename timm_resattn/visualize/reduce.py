"""One map, or one colour at each position, of the many channels of a mask."""

import torch
import torch.nn.functional as F

__all__ = ["REDUCTIONS", "ranked_channel", "reduce_mask"]

REDUCTIONS = ("mean", "varied", "varied:<k>", "channel:<k>", "pca")


def _split_reduction(how: str, channels: int) -> "tuple[str, int]":
    """Name and channel rank or index of a reduction: ``"varied:2"`` -> ``("varied", 1)``."""
    name, colon, number = str(how).partition(":")
    least = {"varied": 1, "channel": 0}.get(name, -1)
    if how in ("mean", "varied", "pca"):
        return name, 0
    if colon and least >= 0 and number.isdecimal():
        index = int(number) - least
        if 0 <= index < channels:
            return name, index
        raise ValueError(f"k of {name}:<k> must be {least} to {channels - 1 + least} here; got {number}.")
    raise ValueError(f"how must be one of {', '.join(map(repr, REDUCTIONS))}; got {how!r}.")


def ranked_channel(mask: torch.Tensor, how: str) -> "torch.Tensor | None":
    """The channel that a reduction draws of each image, ``(B, C, h, w) -> (B,)``; None if it draws no single one."""
    name, index = _split_reduction(how, mask.shape[1])
    if name == "varied":
        return mask.float().flatten(2).std(2, correction=0).argsort(1, descending=True)[:, index]
    return torch.full((len(mask),), index, device=mask.device) if name == "channel" else None


def reduce_mask(mask: torch.Tensor, how: str = "mean") -> torch.Tensor:
    """Reduce the channels c of a mask to one value, or one colour, at each position i.

    No image depends on the others of the batch.

    ======================  ==========================================================================
    ``"mean"``              ``mean_c M[c, i]``
    ``"varied:<k>"``        ``M[c, i]`` of the channel c with the k-th largest standard deviation over
                            the positions of the image; ``"varied"`` is k = 1. See `ranked_channel`.
    ``"channel:<k>"``       ``M[k, i]``, k from 0
    ``"pca"``               a colour in [0, 1]: the three first principal components of the vectors
                            ``M[:, i]`` of the image as red, green and blue. Where two positions have
                            the same colour, the mask treats them alike.
    ======================  ==========================================================================

    A principal component y of standard deviation s becomes ``1/2 + y / 4s``, clipped.

    Shape: ``(B, C, h, w) -> (B, h, w)``, for ``"pca"`` ``-> (B, h, w, 3)``, float32.

    Raises:
        ValueError: ``how`` is none of the above, k is no channel of the mask, its shape is wrong or its values are
            not finite.
    """
    if mask.ndim != 4 or mask.numel() == 0:
        raise ValueError(f"mask must be of shape (B, C, h, w), not empty; got {tuple(mask.shape)}.")
    if not mask.isfinite().all():
        raise ValueError("mask must be finite; it holds NaN or infinity.")
    name, _ = _split_reduction(how, mask.shape[1])
    mask = mask.detach().float()
    if name == "pca":
        return torch.stack([_principal_colors(item) for item in mask])
    channels = ranked_channel(mask, how)
    return mask.mean(1) if channels is None else mask[torch.arange(len(mask), device=mask.device), channels]


def _principal_colors(mask: torch.Tensor) -> torch.Tensor:
    """``(C, h, w) -> (h, w, 3)``, see `reduce_mask`."""
    vectors = mask.movedim(0, -1)
    flat = vectors.flatten(0, 1)
    flat = flat - flat.mean(0)
    _, directions = torch.linalg.eigh(flat.T @ flat)  # ascending
    components = flat @ directions.flip(1)[:, :3]
    components = F.pad(components, (0, 3 - components.shape[1]))
    # the sign of a principal component is arbitrary: brighter is more attention
    components = components * (1 - 2 * (components.T @ flat.mean(1) < 0).float())
    spread = components.std(0, correction=0).clamp(min=1e-6)
    return (0.5 + components / (4 * spread)).clamp(0, 1).reshape(*vectors.shape[:2], 3)
