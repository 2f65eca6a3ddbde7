"""Objects of pictures, each with its class, mask and box."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor


class Objects(NamedTuple):
    """The objects of B pictures of one size, in M slots each.

    classes: int64 [B, M], from 0, the background not among them; -1 where there is no object or nothing of it is
        visible.
    masks: bool [B, M, H, W], True = the object's visible pixels.
    boxes: [B, M, 4], x0, y0, x1, y1 in pixels, x1 and y1 exclusive; zeros where class is -1. int64 where they
        are around the visible pixels, float32 where an annotation states them.
    crowd: bool [B, M], True = a region of many objects of the class, not told apart.
    areas: [B, M], in pixels as an annotation states them; -1 where none does.
    """

    classes: Tensor
    masks: Tensor
    boxes: Tensor
    crowd: Tensor
    areas: Tensor


def boxes_around(masks: Tensor) -> Tensor:
    """Boxes around the True pixels of masks bool [B, M, H, W]: int64 [B, M, 4], zeros where there is none."""
    columns, rows = masks.any(2).int(), masks.any(3).int()
    # argmax is the first True; of the flipped line it is the distance from the end.
    low = [line.argmax(2) for line in (columns, rows)]
    high = [line.shape[2] - line.flip(2).argmax(2) for line in (columns, rows)]
    boxes = torch.stack([*low, *high], dim=2)
    return torch.where(masks.flatten(2).any(2)[..., None], boxes, 0)


def objects_of(masks: Tensor, classes: Tensor) -> Objects:
    """Objects whose boxes lie around their masks; an object without a pixel gets class -1. None is a crowd.

    Args:
        masks: bool [B, M, H, W]. classes: int64 [B, M].
    """
    visible = masks.flatten(2).any(2)
    unstated = torch.full_like(classes, -1)
    return Objects(torch.where(visible, classes, -1), masks, boxes_around(masks), torch.zeros_like(visible), unstated)


def labels_of(found: Objects) -> Tensor:
    """Labels int64 [B] of whole pictures: the class of the object of the largest visible area."""
    areas = found.masks.sum((2, 3))
    return found.classes.gather(1, areas.argmax(1, keepdim=True))[:, 0]


def labelled(scenes: Iterable[tuple[Tensor, Objects]]) -> tuple[Tensor, Tensor]:
    """Images [N, ...] and labels int64 [N] of scenes that come some at a time."""
    chunks = [(images, labels_of(found)) for images, found in scenes]
    images, labels = (torch.cat(fields) for fields in zip(*chunks, strict=True))
    return images, labels
