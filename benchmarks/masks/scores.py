"""How well a map ranks positions: deletion, insertion and the grid pointing game."""

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms.functional import gaussian_blur

FRACTIONS = (0.1, 0.3, 0.5, 0.7, 0.9)
BLUR = dict(kernel_size=[15, 15], sigma=[5.0, 5.0])


def _resized(heat: torch.Tensor, size: torch.Size) -> torch.Tensor:
    return F.interpolate(heat.float()[:, None], size=size, mode="bilinear", align_corners=True)[:, 0]


@torch.inference_mode()
def deletion_and_insertion(
    model: nn.Module, images: torch.Tensor, classes: torch.Tensor, heat: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Probability of the class when the highest-ranked pixels are blurred, and when all others are, ``(B,)`` each.

    Mean over `FRACTIONS` of the pixels (Petsiuk et al., BMVC 2018, RISE). The first is low and the second high for a
    map that ranks well.
    """
    size = images.shape[2:]
    ranks = _resized(heat, size).flatten(1).argsort(1, descending=True).argsort(1).view(-1, 1, *size)
    blurred = gaussian_blur(images, **BLUR)
    results = []
    for fraction in FRACTIONS:
        high = ranks < round(fraction * size.numel())
        for pictures in (torch.where(high, blurred, images), torch.where(high, images, blurred)):
            results.append(model(pictures).float().softmax(1).gather(1, classes[:, None])[:, 0])
    deleted, inserted = torch.stack(results[::2]), torch.stack(results[1::2])
    return deleted.mean(0), inserted.mean(0)


def share_in_cell(heat: torch.Tensor, cell: int, size: torch.Size) -> torch.Tensor:
    """Share of a map's positive part inside one cell of a 2x2 mosaic, ``(B,)``.

    The grid pointing game (Böhle et al., CVPR 2021): the map is of the class of the cell's image. A map that knows no
    class has a quarter on average over the four cells.
    """
    positive = _resized(heat, size).clamp(min=0)
    rows, columns = size[0] // 2, size[1] // 2
    top, left = cell // 2 * rows, cell % 2 * columns
    inside = positive[:, top : top + rows, left : left + columns].sum((1, 2))
    total = positive.sum((1, 2))
    return torch.where(total > 0, inside / total.clamp(min=1e-12), 0.25)


def mosaics(images: torch.Tensor, classes: torch.Tensor, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """2x2 mosaics of images of four different classes, ``(count, C, 2H, 2W)``, and their classes, ``(count, 4)``."""
    if len(classes.unique()) < 4:
        raise ValueError(f"a mosaic needs images of four classes; there are {len(classes.unique())}")
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    while len(chosen) < count:
        four = torch.randperm(len(images), generator=generator)[:4]
        if len(classes[four].unique()) == 4:
            chosen.append(four)
    index = torch.stack(chosen)
    cells = images[index]  # (count, 4, C, H, W)
    rows = [torch.cat([cells[:, 2 * row], cells[:, 2 * row + 1]], 3) for row in (0, 1)]
    return torch.cat(rows, 2), classes[index]
