"""Masks of units drawn one by one, and squares of them. True = hidden."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.core.runtime.draws import Draw
from harness.spec import RandomMask, SquareMask, TokenMask, VisibleSquareMask


def order_of(noise: Tensor) -> Tensor:
    """Places by rising 62-bit noise. noise: int64 [B, 2 N] of 32-bit words -> int64 [B, N], a permutation a row."""
    high, low = noise.chunk(2, dim=1)
    return ((high >> 1) << 31 | (low >> 1)).argsort(dim=1, stable=True)


def listed(order: Tensor, count: int | Tensor) -> Tensor:
    """The first `count` places of each row. order: int64 [B, N]; count: for all rows, or int64 [B] -> bool [B, N]."""
    first = torch.arange(order.shape[1], device=order.device) < torch.as_tensor(count, device=order.device).view(-1, 1)
    return torch.zeros_like(order, dtype=torch.bool).scatter_(1, order, first.expand(order.shape))


def random_units(mask: RandomMask, draw: Draw) -> Tensor:
    """Bool [B, units, units]; see `RandomMask`."""
    units = draw.image_size // mask.size
    noise = draw.words("mask", 2 * units * units)
    return listed(order_of(noise), mask.hidden_units(draw.image_size)).view(-1, units, units)


def random_tokens(mask: TokenMask, draw: Draw) -> Tensor:
    """Bool [B, units, units]; see `TokenMask`."""
    units = draw.image_size // mask.size
    noise = (draw.shared() if mask.shared else draw).words("mask tokens", 2 * units * units)
    return ~listed(order_of(noise), units**2 - mask.hidden_units(draw.image_size)).view(-1, units, units)


def squares(mask: SquareMask, draw: Draw) -> Tensor:
    """Bool [B, units, units]; see `SquareMask`."""
    units, side = draw.image_size // mask.size, mask.side(draw.image_size)
    if mask.place == "centre":
        return square_at(draw.positions.new_full((draw.batch, 2), (units - side) // 2), side, units)
    noise = draw.words("mask", 2)
    return square_at(noise * (units - side + 1) >> 32, side, units)


def visible_squares(mask: VisibleSquareMask, draw: Draw) -> Tensor:
    """Bool [B, units, units]; see `VisibleSquareMask`."""
    noise = draw.words("mask", 2)
    return ~square_at(
        noise * mask.starts(draw.image_size) >> 32, mask.side(draw.image_size), draw.image_size // mask.size
    )


def square_at(first: Tensor, side: int, units: int) -> Tensor:
    """A square of `side` units. first: int64 [B, 2], its first row and column -> bool [B, units, units]."""
    places = torch.arange(units, device=first.device)
    rows, columns = ((places >= start) & (places < start + side) for start in first[:, :, None].unbind(1))
    return rows[:, :, None] & columns[:, None, :]
