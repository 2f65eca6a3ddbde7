"""Block-wise masks: BEiT's algorithm, computed for a whole batch at once. True = hidden."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from harness.core.masks.units import Draw, listed
from harness.spec import BlockMask

TRIES = 10
"""Number of times that BEiT draws a block before it stops."""

AT_ONCE, NOISE = 32, 2**22
"""Most blocks whose noise is drawn at a time, and most words of it, 32 MiB as int64; one block may need more."""

AT_ONCE_ON_CPU = 4
"""Most blocks on a CPU: most masks have stopped after ten, and small tensors stay in the cache."""


class _Noise(NamedTuple):
    """Random numbers of the candidates of one block, float64.

    share: [B, TRIES], in [0, 1), of the way from the smallest area to the largest. aspect: [B, TRIES], height by width.
    place: [B, 2, TRIES], in [0, 1), of the way from the first row and column to the last.
    """

    share: Tensor
    aspect: Tensor
    place: Tensor


def block_masks(mask: BlockMask, draw: Draw) -> Tensor:
    """Block-wise masks; see `BlockMask` for the algorithm.

    All candidates of a block are drawn at once and the first that fits is taken, which equals drawing them one by one.
    As many blocks are tried as the longest mask may need, so that the host does not wait for a device to say when all
    masks have stopped; on a CPU it looks.

    Returns:
        bool [B, units, units], on the device of the draw.
    """
    units, target = draw.image_size // mask.size, _targets(mask, draw)
    smallest, largest = mask.smallest_block(draw.image_size), mask.largest_block(draw.image_size)
    # float64 throughout: every device rounds to the same side, and autocast leaves it alone.
    visible = target.new_ones(draw.batch, units, units)
    places = torch.arange(units, device=target.device, dtype=target.dtype)
    left = target.clone()
    # Behind the candidates stands one that hides nothing and always fits, so that it is taken where no other is.
    inside = target.new_zeros(draw.batch, 2, TRIES + 1, units)  # rows and columns of each candidate
    new = target.new_zeros(draw.batch, TRIES + 1)
    fits = torch.ones_like(new, dtype=torch.uint8)
    for noise in _noise(mask, draw, most_blocks(mask, draw.image_size)):
        # As in BEiT, a block hides at most what is still missing, and never more than the largest block.
        missing = left.clamp(max=largest)[:, None]
        _draw(noise, smallest, missing, places, out=inside[:, :, :TRIES])
        rows, columns = inside[:, :, :TRIES].unbind(1)
        # Only units that are still visible count as newly hidden.
        torch.sum(rows @ visible * columns, 2, out=new[:, :TRIES])
        torch.logical_and(new[:, :TRIES] > 0, new[:, :TRIES] <= missing, out=fits[:, :TRIES])
        first = fits.argmax(1, keepdim=True)
        # An image of which no candidate fits has stopped for good: then nothing is left to be hidden.
        new[:, TRIES] = left
        left -= new.gather(1, first)[:, 0]
        row, column = inside.gather(2, first[:, None, :, None].expand(-1, 2, -1, units)).unbind(1)
        visible.addcmul_(visible, row.mT * column, value=-1)
        if left.is_cpu and not left.any():
            break
    hidden = visible == 0
    return topped_up(hidden, target, draw) if mask.count == "exact" else hidden


def most_blocks(mask: BlockMask, image_size: int) -> int:
    """Number of blocks after which a mask stops, more than BEiT's algorithm needs.

    Each block hides a unit at least. Where units are many, far fewer blocks do: of 300,000 masks of 14 x 14 units at
    ratio 0.75 the longest has 23 blocks, where 52 are tried, and each further block is had by a third as many masks.
    """
    target = mask.hidden_units(image_size)
    return min(target, 48 + 4 * -(-target // mask.largest_block(image_size)))


def _targets(mask: BlockMask, draw: Draw) -> Tensor:
    """Number of units to hide in each image, float64 [B]; a fraction is left only where iBOT does not round."""
    if not mask.ratio_spread:
        return torch.full((draw.batch,), mask.hidden_units(draw.image_size), device=draw.positions.device).double()
    place = draw.words("mask ratio", 1)[:, 0].double() * 2.0**-32
    target = (draw.image_size // mask.size) ** 2 * (mask.ratio + (2 * place - 1) * mask.ratio_spread)
    return target.ceil() if mask.count == "exact" else target


def _noise(mask: BlockMask, draw: Draw, blocks: int) -> Iterator[_Noise]:
    """Noise of one block after another, drawn for many blocks at a time."""
    most = AT_ONCE_ON_CPU if draw.positions.is_cpu else AT_ONCE
    # Each candidate takes four numbers: area, aspect, row and column.
    many = min(most, max(1, NOISE // (4 * TRIES * max(1, draw.batch))))
    for first in range(0, blocks, many):
        numbers = range(first, min(first + many, blocks))
        words = draw.words_of([f"mask block {number}" for number in numbers], 4 * TRIES)
        uniform = words.view(len(numbers), -1, 4, TRIES).double() * 2.0**-32
        # Log-uniform from min_aspect to its inverse, so that high and wide blocks are equally likely.
        aspect = torch.exp((1 - 2 * uniform[:, :, 1]) * math.log(mask.min_aspect))
        yield from map(_Noise._make, zip(uniform[:, :, 0], aspect, uniform[:, :, 2:], strict=True))


def _draw(noise: _Noise, smallest: int, missing: Tensor, places: Tensor, out: Tensor) -> None:
    """Draw candidate rectangles: 1 in their rows and columns, float64 [B, 2, TRIES, units], else 0.

    A rectangle that is as long as the image has no rows or no columns.

    Args:
        missing: [B, 1], the largest area in units. places: [units], counted from 0.
    """
    units = len(places)
    area = noise.share * (missing - smallest) + smallest
    length = torch.stack((area * noise.aspect, area / noise.aspect), dim=1).sqrt_().round_()
    # Places that it may begin at, of which a rectangle that is too long has none: it begins at infinity.
    starts = torch.threshold(units + 1 - length, 1, math.inf)
    start = starts.mul_(noise.place).floor_()[..., None]
    torch.logical_and(places >= start, places < start + length[..., None], out=out)


def topped_up(hidden: Tensor, target: Tensor, draw: Draw) -> Tensor:
    """Masks grown at their border until each hides its target number of units, which is less than all.

    Units are drawn at random among those that share a side with a hidden one. Where these are too few, all of them are
    taken and the next ring is drawn from. Where nothing is hidden, any unit may be drawn.

    Args:
        hidden: bool [B, units, units]. The result is like it; rows that hide their target or more stay as they are.
        target: float64 [B], whole numbers.
    """
    # The number of its ring orders the units, and noise those of one ring; hidden ones come first, as ring 0.
    ring = _distance(hidden).flatten(1)
    order = (ring << 32 | draw.words("mask top-up", hidden[0].numel())).argsort(dim=1, stable=True)
    return listed(order, target).view_as(hidden) | hidden


def _distance(hidden: Tensor) -> Tensor:
    """Steps from each unit to the nearest hidden one, along sides: int64 [B, units, units].

    Where nothing is hidden, the same number at all units.
    """
    units = hidden.shape[-1]
    places = torch.arange(units, device=hidden.device)
    found = (~hidden) * (2 * units)  # further than any two units are apart
    # The distance is a sum over both axes, so its minimum is taken along one axis and then along the other.
    for axis, along in ((1, places[:, None]), (2, places)):
        behind = (found - along).cummin(axis).values + along
        ahead = (found + along).flip(axis).cummin(axis).values.flip(axis) - along
        found = torch.minimum(behind, ahead)
    return found
