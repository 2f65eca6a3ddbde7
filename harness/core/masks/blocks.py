"""Block-wise masks: BEiT's algorithm, computed for a whole batch at once. True = hidden."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.core.masks.units import Draw
from harness.spec import BlockMask

TRIES = 10
"""Number of times that BEiT draws a block before it stops."""


class _Rectangles(NamedTuple):
    """Candidates for the next block of each image, int64 [B, TRIES], in units."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def block_masks(mask: BlockMask, draw: Draw) -> Tensor:
    """Block-wise masks; see `BlockMask` for the algorithm.

    All candidates of a block are drawn at once and the first that fits is taken, which equals drawing them one by one.
    The host waits for the device once for each block, about ten times a batch.

    Returns:
        bool [B, units, units], on the device of the draw.
    """
    units, target = draw.image_size // mask.size, _targets(mask, draw)
    smallest, largest = mask.smallest_block(draw.image_size), mask.largest_block(draw.image_size)
    hidden = torch.zeros(draw.batch, units, units, dtype=torch.bool, device=target.device)
    growing = torch.ones(draw.batch, dtype=torch.bool, device=target.device)
    for number in itertools.count():
        missing = (target - hidden.sum((1, 2))).clamp(max=largest)
        noise = draw.words(f"mask block {number}", 4 * TRIES)
        tried = _draw(noise.view(-1, 4, TRIES), smallest, missing, units, mask.min_aspect)
        fits = _fits(hidden, tried, missing)
        growing &= fits.any(1)  # an image that stopped once has stopped for good
        if not growing.any():
            break
        first = fits.int().argmax(1, keepdim=True)
        hidden |= _painted(_Rectangles(*(values.gather(1, first) for values in tried)), units) & growing[:, None, None]
    return topped_up(hidden, target, draw) if mask.count == "exact" else hidden


def _targets(mask: BlockMask, draw: Draw) -> Tensor:
    """Number of units to hide in each image, float64 [B]; a fraction is left only where iBOT does not round."""
    if not mask.ratio_spread:
        return torch.full((draw.batch,), mask.hidden_units(draw.image_size), device=draw.positions.device).double()
    place = draw.words("mask ratio", 1)[:, 0].double() * 2.0**-32
    target = (draw.image_size // mask.size) ** 2 * (mask.ratio + (2 * place - 1) * mask.ratio_spread)
    return target.ceil() if mask.count == "exact" else target


def _draw(noise: Tensor, smallest: int, missing: Tensor, units: int, min_aspect: float) -> _Rectangles:
    """Candidate rectangles from noise, int64 [B, 4, TRIES] of 32-bit words; lengths are limited to units + 1."""
    uniform = noise.double() * 2.0**-32  # float64, so that every device rounds to the same side
    area = smallest + uniform[:, 0] * (missing[:, None] - smallest)
    aspect = torch.exp((1 - 2 * uniform[:, 1]) * math.log(min_aspect))
    height = (area * aspect).sqrt().round().long().clamp(max=units + 1)
    width = (area / aspect).sqrt().round().long().clamp(max=units + 1)
    top = noise[:, 2] * (units + 1 - height) >> 32
    left = noise[:, 3] * (units + 1 - width) >> 32
    return _Rectangles(top, left, height, width)


def _fits(hidden: Tensor, tried: _Rectangles, missing: Tensor) -> Tensor:
    """Acceptable candidates: bool [B, TRIES], True = shorter than the image, and hides at least one new unit but no
    more than are missing.

    The number of units in a rectangle that are hidden already comes from a summed-area table.
    """
    units = hidden.shape[-1]
    short = (tried.height < units) & (tried.width < units)
    # Long candidates are clamped to the image here; `short` refuses them in any case.
    bottom, right = ((start + length).clamp(max=units) for start, length in (tried[::2], tried[1::2]))
    sums = F.pad(hidden.long().cumsum(1).cumsum(2), (1, 0, 1, 0)).flatten(1)

    def up_to(row: Tensor, column: Tensor) -> Tensor:
        return sums.gather(1, row * (units + 1) + column)

    inside = up_to(bottom, right) - up_to(tried.top, right) - up_to(bottom, tried.left) + up_to(tried.top, tried.left)
    new = tried.height * tried.width - inside
    return short & (new > 0) & (new <= missing[:, None])


def _painted(block: _Rectangles, units: int) -> Tensor:
    """Masks bool [B, units, units], True inside one rectangle for each image, int64 [B, 1]."""
    places = torch.arange(units, device=block.top.device)
    rows, columns = ((places >= start) & (places < start + length) for start, length in (block[::2], block[1::2]))
    return rows[:, :, None] & columns[:, None, :]


def topped_up(hidden: Tensor, target: Tensor, draw: Draw) -> Tensor:
    """Masks grown at their border until each hides its target number of units, which is less than all.

    Units are drawn at random among those that share a side with a hidden one. Where these are too few, all of them are
    taken and the next ring is drawn from. Where nothing is hidden, any unit may be drawn.

    Args:
        hidden: bool [B, units, units]. The result is like it; rows that hide their target or more stay as they are.
        target: float64 [B], whole numbers.
    """
    order = draw.words("mask top-up", hidden[0].numel())
    while len(short := (hidden.sum((1, 2)) < target).nonzero()[:, 0]):
        found = hidden[short]
        around = F.pad(found, (1, 1, 1, 1))
        beside = around[:, :-2, 1:-1] | around[:, 2:, 1:-1] | around[:, 1:-1, :-2] | around[:, 1:-1, 2:]
        beside |= ~found.flatten(1).any(1)[:, None, None]
        ring = (beside & ~found).flatten(1)
        # Random order of the ring's units; all others rank behind them.
        rank = order[short].masked_fill(~ring, 1 << 32).argsort(dim=1, stable=True).argsort(dim=1)
        ring &= rank < (target[short] - found.sum((1, 2)))[:, None]
        hidden = hidden.index_put((short,), found | ring.view_as(found))
    return hidden
