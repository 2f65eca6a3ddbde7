"""Pairs of masks of one image. True = hidden."""

from __future__ import annotations

from torch import Tensor

from harness.core.masks.units import listed, order_of
from harness.core.runtime.draws import Draw
from harness.spec import ComplementMask, DisjointMask


def complements(mask: ComplementMask, draw: Draw, view: int) -> Tensor:
    """Bool [B, units, units], the first mask (view 0) or its inverse (view 1); see `ComplementMask`."""
    units = draw.image_size // mask.size
    hidden = listed(order_of(draw.words("mask", 2 * units * units)), mask.hidden_units(draw.image_size))
    return (hidden if view == 0 else ~hidden).view(-1, units, units)


def disjoint_units(mask: DisjointMask, draw: Draw, view: int) -> Tensor:
    """Bool [B, units, units], the first mask (view 0) or the second (view 1); see `DisjointMask`."""
    draw = draw.shared() if mask.shared else draw
    units, count = draw.image_size // mask.size, mask.hidden_units(draw.image_size)
    hidden = listed(order_of(draw.words("mask", 2 * units * units)), count)
    if view == 1:
        rank = order_of(draw.words("mask second", 2 * units * units)).argsort(dim=1)
        order = (rank + hidden * units**2).argsort(dim=1)  # visible units before hidden ones, each at random
        hidden = listed(order, count)
    return hidden.view(-1, units, units)
