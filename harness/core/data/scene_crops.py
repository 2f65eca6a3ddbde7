"""Crops of scenes: boxes in whole pixels of a picture, of which the image takes averages and the truth the nearest."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from harness.core.data.augment import crop_boxes, flips, squares
from harness.spec import Augment

Want = Literal["segments", "objects"]
IGNORED = 255
"""Value of a map of classes where nothing is known, or nothing is there."""


def scene_crops(
    height: int, width: int, augment: Augment, want: Want, *, seed: int, step: int | Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    """Boxes int64 [B, T, 4] of pictures of this size, of which the first is taken if nothing else decides; flips."""
    mirrored = flips(augment, seed=seed, step=step, positions=positions)
    if augment.scale is None:
        return crop_boxes(height, width, augment, seed=seed, step=step, positions=positions)[:, None], mirrored
    found = squares(height, width, augment, of_longer=want == "objects", seed=seed, step=step, positions=positions)
    return found[:, : None if augment.class_limit is not None else 1], mirrored


def nearest(maps: Tensor, boxes: Tensor, flip: Tensor, size: int, beyond: int = IGNORED) -> Tensor:
    """Maps [B, H, W] cropped to boxes int64 [B, 4], resized to [B, size, size] by nearest neighbour, and mirrored.

    Geometry and arguments are those of `augment.resample`; each pixel is the one below its centre. Boxes may reach
    beyond the map on the right and below, where the value is `beyond`.
    """
    height, width = maps.shape[1:]
    top, left, tall, wide = (values[:, None] for values in boxes.unbind(1))
    centres = 2 * torch.arange(size, device=maps.device) + 1  # in half pixels, so that all is whole numbers
    rows = (top + centres * tall // (2 * size))[:, :, None]
    columns = left + centres * wide // (2 * size)
    columns = torch.where(flip[:, None], columns.flip(1), columns)[:, None]
    which = torch.arange(len(maps), device=maps.device)[:, None, None]
    found = maps[which, rows.clamp(max=height - 1), columns.clamp(max=width - 1)]
    return found.masked_fill((rows >= height) | (columns >= width), beyond)


def first_varied(maps: Tensor, tries: Tensor, size: int, limit: float) -> Tensor:
    """The first of each picture's boxes of which no class fills `limit` or more, or the last: int64 [B, 4].

    Shares are of the known pixels. A box without any does not do either, as in mmsegmentation's RandomCrop.

    Args:
        maps: int64 [B, H, W], IGNORED is no class. tries: int64 [B, T, 4]. size: side of what is cut out.
    """
    count = len(tries)
    never = torch.zeros(count, dtype=torch.bool, device=maps.device)
    shares = []
    for boxes in tries.unbind(1):
        seen = nearest(maps, boxes, never, size).flatten(1)
        times = torch.zeros(count, IGNORED + 1, device=maps.device).scatter_add_(1, seen, torch.ones_like(seen).float())
        # Where nothing is known, 0 / 0 is no number, which is not below the limit.
        shares.append(times[:, :IGNORED].amax(1) / times[:, :IGNORED].sum(1))
    fits = torch.stack(shares, dim=1) < limit
    fits[:, -1] = True
    return tries[torch.arange(count, device=maps.device), fits.int().argmax(1)]
