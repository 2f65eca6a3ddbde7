"""How hard a mask is before anything is trained: its share, what surrounds hidden patches, how many masks there are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.analysis.avgdist import BATCH, mask_distance
from harness.core.masks.masking import make_mask, spread
from harness.spec import HarnessError, Mask


@dataclass(frozen=True)
class Average:
    """A mean over masks and the standard error of it, which is 0 where all masks are alike and NaN for a single one."""

    mean: float
    error: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Average:
        """The mean of one value a mask."""
        error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return cls(float(np.mean(values)), error)


@dataclass(frozen=True, kw_only=True)
class Difficulty:
    """Of some draws of a mask, over patches.

    ratio: hidden share of the image. avgdist: mean distance of a hidden pixel from the nearest visible one, in pixels.
    visible: visible patches among the four that share a side with a hidden one. isolated: share of the hidden patches
    that have none. These are averages over each mask first. distinct: how many of the masks differ. draws: masks that
    hide something.
    """

    ratio: Average
    avgdist: Average
    visible: Average
    isolated: Average
    distinct: int
    draws: int


def visible_neighbours(hidden: Tensor) -> Tensor:
    """How many of the four neighbours of each patch are visible; outside of the image nothing is.

    Args:
        hidden: bool [B, h, w], True = hidden.

    Returns:
        int64 [B, h, w].
    """
    seen = F.pad((~hidden).long(), (1, 1, 1, 1))
    return seen[:, :-2, 1:-1] + seen[:, 2:, 1:-1] + seen[:, 1:-1, :-2] + seen[:, 1:-1, 2:]


def difficulty(mask: Mask, image_size: int, patch: int, *, draws: int, seed: int = 0) -> Difficulty:
    """The difficulty of a mask that does not look at the image, over masks of the first step of a training.

    Args:
        image_size: side of the image in pixels. patch: side of a patch in pixels, by which neighbours are counted; it
            divides the mask's unit.
        draws: number of masks, 1 or more. Those that hide nothing, as BEiT's own count allows, count for the ratio
            alone. Of a mask with several views each image gives the first.

    Raises:
        HarnessError: the mask is drawn from scores; it hides all, or none hides any; the patch does not fit.
    """
    if mask.scored_by is not None:
        raise HarnessError(f"a {mask.kind} mask depends on the image: its difficulty is that of no fixed distribution")
    if mask.size % patch:
        raise HarnessError(f"a patch of {patch} px does not divide the mask's unit of {mask.size} px")
    parts = [
        make_mask(mask, image_size=image_size, seed=seed, step=0, steps=1, positions=torch.arange(first, last))
        for first, last in ((first, min(first + BATCH, draws)) for first in range(0, draws, BATCH))
    ]
    return measured(spread(torch.cat(parts), image_size // patch), patch)


def measured(hidden: Tensor, patch: int) -> Difficulty:
    """The difficulty of given masks. hidden: bool [B, h, h], True = hidden, over patches of `patch` pixels.

    Raises:
        HarnessError: one hides all patches, or none hides any.
    """
    some = hidden[hidden.flatten(1).any(1)]
    if not len(some):
        raise HarnessError(f"none of {len(hidden)} masks hides any of the image: there is no AvgDist")
    count = some.flatten(1).sum(1)
    beside = visible_neighbours(some)
    distances = [mask_distance(pixels) for pixels in spread(some, some.shape[-1] * patch).numpy()]
    return Difficulty(
        ratio=Average.of(hidden.flatten(1).double().mean(1).tolist()),
        avgdist=Average.of(distances),
        visible=Average.of(((beside * some).flatten(1).sum(1) / count).tolist()),
        isolated=Average.of((((beside == 0) & some).flatten(1).sum(1) / count).tolist()),
        distinct=len({tuple(mask) for mask in hidden.flatten(1).tolist()}),
        draws=len(some),
    )
