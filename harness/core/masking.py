"""Masks: one batched call on the device for a whole batch. True = hidden, everywhere."""

from __future__ import annotations

import itertools
from typing import assert_never

import torch
from torch import Tensor

from harness.core.blocks import block_masks
from harness.core.custom import call, load_function
from harness.core.randomness import uniform, words
from harness.spec import BlockMask, CustomMask, HarnessError, Mask, RandomMask, SquareMask, seed_stream


def make_mask(mask: Mask, *, image_size: int, seed: int, step: int, steps: int, positions: Tensor) -> Tensor:
    """Which units are hidden.

    Args:
        image_size: side of the input in pixels.
        positions: int64 [B], place of each image in the global batch; row i depends on positions[i] alone.
        step, steps: the training step and their number.

    Returns:
        bool [B, units, units], units = image_size / mask.size, on the device of `positions`.
    """
    units = image_size // mask.size
    match mask:
        case RandomMask():
            count = mask.hidden_units(image_size)
            stream = seed_stream(seed, "mask")
            return _hide_lowest(words(stream, step, positions, 2 * units * units), count).view(-1, units, units)
        case SquareMask():
            noise = words(seed_stream(seed, "mask"), step, positions, 2)
            return _squares(noise, mask.side(image_size), units)
        case BlockMask():
            return block_masks(mask, image_size=image_size, seed=seed, step=step, positions=positions)
        case CustomMask():
            return _custom(mask, units, seed, step, steps, positions)
        case _:
            assert_never(mask)


def count_varies(mask: Mask) -> bool:
    """Whether a mask may hide more units of one image than of another."""
    match mask:
        case RandomMask() | SquareMask():
            return False
        case BlockMask():
            return mask.count == "beit"
        case CustomMask():
            return True
        case _:
            assert_never(mask)


def _hide_lowest(noise: Tensor, count: int) -> Tensor:
    """Hide the `count` units of lowest 62-bit noise. noise: int64 [B, 2 N] of 32-bit words -> bool [B, N]."""
    high, low = noise.chunk(2, dim=1)
    order = ((high >> 1) << 31 | (low >> 1)).argsort(dim=1, stable=True)
    hidden = torch.zeros_like(order, dtype=torch.bool)
    return hidden.scatter_(1, order[:, :count], value=True)


def _squares(noise: Tensor, side: int, units: int) -> Tensor:
    """A square of `side` units at a random place. noise: int64 [B, 2] of 32-bit words -> bool [B, units, units]."""
    first = noise * (units - side + 1) >> 32  # [B, 2]: first row and column
    places = torch.arange(units, device=noise.device)
    rows, columns = ((places >= start) & (places < start + side) for start in first[:, :, None].unbind(1))
    return rows[:, :, None] & columns[:, None, :]


def _custom(mask: CustomMask, units: int, seed: int, step: int, steps: int, positions: Tensor) -> Tensor:
    function = load_function(mask.function, mask.source)
    calls = itertools.count()

    def random(*shape: int) -> Tensor:
        stream = seed_stream(seed, f"mask {next(calls)}")
        count = int(torch.Size(shape).numel())
        return uniform(stream, step, positions, count).view(-1, *shape)

    hidden = call(function, mask.function, random, (units, units), step, steps, **dict(mask.params))
    wanted = (len(positions), units, units)
    if not isinstance(hidden, Tensor) or hidden.dtype != torch.bool or tuple(hidden.shape) != wanted:
        found = f"{hidden.dtype} {list(hidden.shape)}" if isinstance(hidden, Tensor) else type(hidden).__name__
        raise HarnessError(f"{mask.function} should return a bool tensor {list(wanted)}, not {found}")
    return hidden.to(positions.device)


def spread(hidden: Tensor, side: int) -> Tensor:
    """Repeat each unit to a finer square grid. bool [B, units, units] -> bool [B, side, side]."""
    times = side // hidden.shape[-1]
    return hidden.repeat_interleave(times, dim=1).repeat_interleave(times, dim=2)
