"""AvgDist: how far the pixels that a mask hides are from what stays visible (SimMIM, ablation of masks)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from harness.core.masks.masking import make_mask, spread
from harness.spec import HarnessError, Mask, RandomMask, SquareMask

ENUMERATED = 5_000
"""Masks of one kind that are gone through one by one at most."""

BATCH = 256


@dataclass(frozen=True, kw_only=True)
class AverageDistance:
    """AvgDist over some draws of a mask, in pixels.

    mean, sd: over the masks' own averages; sd is NaN for a single one. draws: masks that hide something.
    """

    mean: float
    sd: float
    draws: int

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return self.sd / math.sqrt(self.draws)

    def scaled(self, image_size: int, to: int = 192) -> AverageDistance:
        """The distance in pixels of an image of `to` pixels instead of `image_size`; SimMIM's has 192.

        Two neighbours are one pixel apart at any size, so what comes from a smaller image is a little larger than what
        the same mask has on the large one: by about half a pixel of the small image.
        """
        factor = to / image_size
        return AverageDistance(mean=self.mean * factor, sd=self.sd * factor, draws=self.draws)


def mask_distance(hidden: NDArray[np.bool_]) -> float:
    """Mean Euclidean distance of the hidden pixels from their nearest visible pixel, in pixels; neighbours are 1 apart.

    Args:
        hidden: bool [S, S], True = hidden.

    Raises:
        HarnessError: all pixels are hidden, or none: there is no such distance.
    """
    if hidden.all() or not hidden.any():
        raise HarnessError(f"a mask that hides {'all' if hidden.all() else 'none'} of the image has no AvgDist")
    return float(distance_transform_edt(hidden)[hidden].mean())


def average_distance(mask: Mask, image_size: int, *, draws: int, seed: int = 0) -> AverageDistance:
    """AvgDist of a mask: the mean over its hidden pixels, then over `draws` masks of the first step of a training.

    Args:
        image_size: side of the image in pixels.
        draws: number of masks, 1 or more. Those that hide nothing, as BEiT's own count allows, are left out.

    Raises:
        HarnessError: a mask hides all pixels, or none of the masks hides any.
    """
    found = []
    for first in range(0, draws, BATCH):
        positions = torch.arange(first, min(first + BATCH, draws))
        units = make_mask(mask, image_size=image_size, seed=seed, step=0, steps=1, positions=positions)
        found += _distances(units[units.flatten(1).any(1)], image_size)
    if not found:
        raise HarnessError(f"none of {draws} masks hides any of the image: there is no AvgDist")
    sd = float(np.std(found, ddof=1)) if len(found) > 1 else math.nan
    return AverageDistance(mean=float(np.mean(found)), sd=sd, draws=len(found))


def exact_average_distance(mask: Mask, image_size: int) -> float | None:
    """AvgDist of a mask over all masks there are, in pixels; None where they are too many, or not equally likely.

    Squares are gone through at every place, random masks where there are `ENUMERATED` or fewer.

    Raises:
        HarnessError: the masks hide all pixels or none.
    """
    units = image_size // mask.size
    match mask:
        case RandomMask():
            count = mask.hidden_units(image_size)
            every = _combinations(units, count) if math.comb(units**2, count) <= ENUMERATED else None
        case SquareMask(place="random"):
            every = _places(units, mask.side(image_size))
        case _:
            every = None
    if every is None:
        return None
    return float(np.mean([distance for part in every for distance in _distances(part[None], image_size)]))


def _distances(units: Tensor, image_size: int) -> list[float]:
    """The average of each mask. units: bool [B, units, units]."""
    return [mask_distance(pixels) for pixels in spread(units, image_size).numpy()]


def _combinations(units: int, count: int) -> Iterator[Tensor]:
    for chosen in itertools.combinations(range(units**2), count):
        hidden = torch.zeros(units**2, dtype=torch.bool)
        hidden[list(chosen)] = True
        yield hidden.view(units, units)


def _places(units: int, side: int) -> Iterator[Tensor]:
    for top, left in itertools.product(range(units - side + 1), repeat=2):
        hidden = torch.zeros(units, units, dtype=torch.bool)
        hidden[top : top + side, left : left + side] = True
        yield hidden
