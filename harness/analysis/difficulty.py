"""Difficulty of a mask before training: AvgDist, hidden share, neighbours of hidden patches, number of masks.

AvgDist is the mean distance of hidden pixels from visible ones (SimMIM, ablation of masks).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from harness.core.masks.masking import make_mask, spread
from harness.spec import HarnessError, Mask, RandomMask, SquareMask

ENUMERATED = 5_000
"""Most masks of one kind that are averaged over one by one."""
BATCH = 256
"""Masks whose distances are computed at once."""


def mask_distance(hidden: NDArray[np.bool_]) -> float:
    """Mean Euclidean distance of hidden pixels from the nearest visible pixel; neighbours are 1 apart.

    Args:
        hidden: bool [S, S], True = hidden.

    Raises:
        HarnessError: all pixels are hidden, or none.
    """
    if hidden.all() or not hidden.any():
        raise HarnessError(f"a mask that hides {'all' if hidden.all() else 'none'} of the image has no AvgDist")
    return float(distance_transform_edt(hidden)[hidden].mean())


def exact_average_distance(mask: Mask, image_size: int) -> float | None:
    """AvgDist over all masks of a spec, in pixels; None where they are too many or not equally likely.

    Squares are enumerated at every place, random masks if there are `ENUMERATED` or fewer.

    Raises:
        HarnessError: a mask hides all pixels or none.
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
    return float(np.mean(_distances(torch.stack(list(every)), image_size)))


def _distances(units: Tensor, image_size: int) -> list[float]:
    """Average distance of each mask, in pixels. units: bool [B, units, units], True = hidden."""
    parts = torch.split(units, BATCH)  # not all masks at once in pixels
    return [mask_distance(pixels) for part in parts for pixels in spread(part, image_size).numpy()]


def _combinations(units: int, count: int) -> Iterator[Tensor]:
    """Every mask of `count` hidden units: bool [units, units], True = hidden."""
    for members in itertools.combinations(range(units**2), count):
        hidden = torch.zeros(units**2, dtype=torch.bool)
        hidden[list(members)] = True
        yield hidden.view(units, units)


def _places(units: int, side: int) -> Iterator[Tensor]:
    """Every place of a hidden square of `side` units: bool [units, units], True = hidden."""
    for top, left in itertools.product(range(units - side + 1), repeat=2):
        hidden = torch.zeros(units, units, dtype=torch.bool)
        hidden[top : top + side, left : left + side] = True
        yield hidden


@dataclass(frozen=True)
class Average:
    """Mean over masks and its standard error, which is NaN for a single mask."""

    mean: float
    error: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Average:
        """Mean and standard error of one value a mask."""
        error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return cls(float(np.mean(values)), error)


@dataclass(frozen=True, kw_only=True)
class Difficulty:
    """Difficulty of a mask over some draws; each average is taken over a mask first, then over the masks.

    ratio: hidden share of the image. avgdist: mean distance of a hidden pixel from the nearest visible one, in pixels.
    visible: number of visible patches among the four that share a side with a hidden patch. isolated: share of hidden
    patches without a visible neighbour. distinct: number of different masks. draws: masks that hide something.
    """

    ratio: Average
    avgdist: Average
    visible: Average
    isolated: Average
    distinct: int
    draws: int


def visible_neighbours(hidden: Tensor) -> Tensor:
    """Number of visible patches among the four neighbours of each patch; none is visible outside the image.

    Args:
        hidden: bool [B, h, w], True = hidden.

    Returns:
        int64 [B, h, w].
    """
    seen = F.pad((~hidden).long(), (1, 1, 1, 1))
    return seen[:, :-2, 1:-1] + seen[:, 2:, 1:-1] + seen[:, 1:-1, :-2] + seen[:, 1:-1, 2:]


def difficulty(mask: Mask, image_size: int, patch: int, *, draws: int, seed: int = 0) -> Difficulty:
    """Difficulty of a mask that does not depend on the image, over masks of the first training step.

    Args:
        image_size: side of the image in pixels. patch: side of a patch in pixels, the unit in which neighbours are
            counted; it divides the mask's unit.
        draws: number of masks, 1 or more. Masks that hide nothing, which BEiT's own count allows, count for the ratio
            only. Of a mask with several views the first is measured.

    Raises:
        HarnessError: the mask does not hide blindly; a mask hides all, or none hides any; the patch does not fit.
    """
    if not mask.hides_blindly:
        raise HarnessError(f"a {mask.kind} mask hides no places that are known without the image: it has no difficulty")
    if mask.size % patch:
        raise HarnessError(f"a patch of {patch} px does not divide the mask's unit of {mask.size} px")
    units = make_mask(mask, image_size=image_size, seed=seed, step=0, steps=1, positions=torch.arange(draws))
    return measured(spread(units, image_size // patch), patch)


def measured(hidden: Tensor, patch: int) -> Difficulty:
    """Difficulty of given masks. hidden: bool [B, h, h], True = hidden, over patches of `patch` pixels.

    Raises:
        HarnessError: a mask hides all patches, or none hides any.
    """
    some = hidden[hidden.flatten(1).any(1)]
    if not len(some):
        raise HarnessError(f"none of {len(hidden)} masks hides any of the image: there is no AvgDist")
    count = some.flatten(1).sum(1)
    beside = visible_neighbours(some)
    return Difficulty(
        ratio=Average.of(hidden.flatten(1).double().mean(1).tolist()),
        avgdist=Average.of(_distances(some, some.shape[-1] * patch)),
        visible=Average.of(((beside * some).flatten(1).sum(1) / count).tolist()),
        isolated=Average.of((((beside == 0) & some).flatten(1).sum(1) / count).tolist()),
        distinct=len({tuple(mask) for mask in hidden.flatten(1).tolist()}),
        draws=len(some),
    )
