"""Histograms of oriented gradients, and pictures of them. The definition is in `harness.spec.HogTarget`."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.spec import HogTarget


def hog(images: Tensor, target: HogTarget, window: Tensor | None = None) -> Tensor:
    """HOG descriptors of patches.

    They do not depend on scale and shift of a channel, and so not on the normalisation of images.

    Args:
        images: float [B, C, H, W]. window: from `gaussian_window`, where it is on the device already.

    Returns:
        float32 [B, C * bins * cells * cells, H / downsample, W / downsample], in this order: channel, bin, row and
        column of the cell in the patch.
    """
    gx, gy = _gradients(images.float())
    # gx comes first, as in MaskFeat: angles are counted from the vertical. Opposite directions share a bin.
    bins = (torch.atan2(gx, gy) / math.pi * target.bins).floor().long() % target.bins
    if window is None or window.shape != images.shape[-2:]:
        window = gaussian_window(target, *images.shape[-2:]).to(images.device)
    weighted = (gx.square() + gy.square()).sqrt() * window
    votes = (torch.where(bins == number, weighted, 0.0) for number in range(target.bins))
    # divisor_override=1 turns the mean over a cell into a sum of votes.
    cells = torch.stack([F.avg_pool2d(vote, target.cell, divisor_override=1) for vote in votes], dim=2)
    # Cells are normalised over their bins before a patch gathers them: each cell keeps a norm of its own.
    return F.pixel_unshuffle(F.normalize(cells, dim=2).flatten(1, 2), target.cells)


def _gradients(images: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel's gx and gy as cross-correlations: left minus right, top minus bottom.

    Differences come first, so that equal values give exactly 0, whose direction would else be that of rounding.
    """
    x = F.pad(images, (1, 1, 1, 1), mode="reflect")
    across, down = x[..., :-2] - x[..., 2:], x[..., :-2, :] - x[..., 2:, :]
    gx = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    gy = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    return gx, gy


def gaussian_window(target: HogTarget, height: int, width: int) -> Tensor:
    """The Gaussian window of votes, repeated: float32 [height, width], on the CPU."""
    size = target.window
    places = torch.arange(size) - (size - 1) / 2
    line = torch.exp(-0.5 * (places / (size // 2)).square())
    kernel = torch.outer(line, line)
    rows, columns = torch.arange(height) % size, torch.arange(width) % size
    return (kernel / kernel.sum())[rows][:, columns]


def strokes(descriptors: Tensor, target: HogTarget) -> Tensor:
    """Picture of descriptors: in each cell one stroke along the edges of each bin, with the bin's value as brightness.

    Args:
        descriptors: float [B, C * bins * cells * cells, h, w], in the order of `hog`; negative values count as 0.

    Returns:
        float32 [B, C, h * downsample, w * downsample], values in [0, 1].
    """
    cells = F.pixel_shuffle(descriptors.float(), target.cells).clamp(min=0)
    cells = cells.view(len(cells), -1, target.bins, *cells.shape[-2:])
    angles = (torch.arange(target.bins, device=cells.device) + 0.5) * math.pi / target.bins
    places = torch.arange(target.cell, device=cells.device) - (target.cell - 1) / 2
    # The gradient (gx, gy) of an angle is (sin, cos): its edge is the line through the middle that is normal to it.
    distance = angles.sin()[:, None, None] * places + angles.cos()[:, None, None] * places[:, None]
    drawn = torch.einsum("bcnhw,nij->bchiwj", cells, (1 - distance.abs()).clamp(min=0))
    return drawn.flatten(4, 5).flatten(2, 3).clamp(max=1)
