"""Masks of a whole batch, drawn in one call on the device. True = hidden, everywhere."""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor

from harness.core.masks.blocks import block_masks
from harness.core.masks.frequencies import removed_frequencies
from harness.core.masks.guided import guided_units, hard_units
from harness.core.masks.local import local_units
from harness.core.masks.patterns import checkerboards, colour_units, grids, uniform_units
from harness.core.masks.units import (
    Draw,
    complements,
    disjoint_units,
    random_tokens,
    random_units,
    squares,
    visible_squares,
)
from harness.core.runtime.custom import call, load_function, random_source, steps_of
from harness.spec import (
    BlockMask,
    CheckerboardMask,
    ColourMask,
    ComplementMask,
    CustomMask,
    DisjointMask,
    FrequencyMask,
    GridMask,
    GuidedMask,
    HardMask,
    HarnessError,
    LocalMask,
    Mask,
    RandomMask,
    SquareMask,
    TokenMask,
    UniformMask,
    VisibleSquareMask,
)


def make_mask(
    mask: Mask,
    *,
    image_size: int,
    seed: int,
    step: int | Tensor,
    steps: int,
    positions: Tensor,
    view: int = 0,
    scores: Tensor | None = None,
) -> Tensor:
    """Random mask of each image of a batch.

    Args:
        image_size: side of the input in pixels.
        positions: int64 [B], place of each image in the global batch; row i depends on positions[i] (and scores[i])
            alone.
        step, steps: the training step, counted from 0, and their number. One step for all images, or int64 [B], each
            image's own: so the masks of many steps are drawn in one call, equal to those drawn step by step.
        view: which of the `mask.views` masks of the same images, counted from 0.
        scores: float [B, units, units], or finer by a whole factor and then averaged over each unit, for a mask whose
            `scored_by` is not None, unused by others: how salient a unit is to a teacher's attention, not negative
            (GuidedMask), or the loss that a predictor expects there (HardMask). No gradient flows through them.

    Returns:
        bool [B, units, units], units = image_size / mask.size, on the device of `positions`. Of a FrequencyMask it is
        over the shifted spectrum instead, [B, image_size, image_size], True = removed.

    Raises:
        HarnessError: scores are missing or of another shape; a user's own function returns something else.
    """
    draw = Draw(image_size, seed, step, steps, positions)
    match mask:
        case RandomMask():
            return random_units(mask, draw)
        case TokenMask():
            return random_tokens(mask, draw)
        case SquareMask():
            return squares(mask, draw)
        case VisibleSquareMask():
            return visible_squares(mask, draw)
        case BlockMask():
            return block_masks(mask, draw)
        case GridMask():
            return grids(mask, draw)
        case UniformMask():
            return uniform_units(mask, draw)
        case CheckerboardMask():
            return checkerboards(mask, draw, view)
        case ColourMask():
            return colour_units(mask, draw)
        case ComplementMask():
            return complements(mask, draw, view)
        case DisjointMask():
            return disjoint_units(mask, draw, view)
        case FrequencyMask():
            return removed_frequencies(mask, draw)
        case LocalMask():
            return local_units(mask, draw, view)
        case GuidedMask():
            return guided_units(mask, draw, scores)
        case HardMask():
            return hard_units(mask, draw, scores)
        case CustomMask():
            return _custom(mask, draw)
        case _:
            assert_never(mask)


def make_views(
    mask: Mask,
    *,
    image_size: int,
    seed: int,
    step: int | Tensor,
    steps: int,
    positions: Tensor,
    scores: Tensor | None = None,
) -> Tensor:
    """All masks of a batch: bool [B * mask.views, units, units], the views of an image one after another.

    Arguments as for `make_mask`.
    """
    views = [
        make_mask(
            mask,
            image_size=image_size,
            seed=seed,
            step=step,
            steps=steps,
            positions=positions,
            view=view,
            scores=scores,
        )
        for view in range(mask.views)
    ]
    # Views of an image lie side by side, as `in_views` repeats the images.
    return torch.stack(views, dim=1).flatten(0, 1)


def in_views(mask: Mask, images: Tensor) -> Tensor:
    """Images repeated for the masks of `make_views`: [B, ...] -> [B * mask.views, ...]."""
    return images if mask.views == 1 else images.repeat_interleave(mask.views, dim=0)


def _custom(mask: CustomMask, draw: Draw) -> Tensor:
    """Masks of a user's own function, bool [B, units, units]."""
    function, units = load_function(mask.function, mask.source), draw.image_size // mask.size
    random = random_source(draw.seed, "mask", draw.step, draw.positions)
    step = steps_of(draw.step, draw.positions, 3)
    hidden = call(function, mask.function, random, (units, units), step, draw.steps, **dict(mask.params))
    wanted = (draw.batch, units, units)
    if not isinstance(hidden, Tensor) or hidden.dtype != torch.bool or tuple(hidden.shape) != wanted:
        found = f"{hidden.dtype} {list(hidden.shape)}" if isinstance(hidden, Tensor) else type(hidden).__name__
        raise HarnessError(f"{mask.function} should return a bool tensor {list(wanted)}, not {found}")
    return hidden.to(draw.positions.device)  # a user's function may make its mask on the CPU


def spread(hidden: Tensor, side: int) -> Tensor:
    """Mask on a finer square grid, each unit repeated: bool [B, units, units] -> bool [B, side, side].

    At its own side it is returned itself.
    """
    times = side // hidden.shape[-1]
    if times == 1:
        return hidden
    return hidden.repeat_interleave(times, dim=1).repeat_interleave(times, dim=2)
