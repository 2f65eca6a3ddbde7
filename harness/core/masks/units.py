"""Draws of masks, and masks of units drawn one by one, squares, and pairs of masks of one image. True = hidden."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from harness.core.runtime.randomness import uniform, words
from harness.spec import (
    ComplementMask,
    DisjointMask,
    RandomMask,
    SquareMask,
    TokenMask,
    VisibleSquareMask,
    seed_stream,
)


class Draw(NamedTuple):
    """Random draws of one batch of masks, keyed by seed, step and position.

    image_size: side in pixels. step: counted from 0, of `steps`; one for all rows, or int64 [B], each row's own.
    positions: int64 [B], places in the global batch.
    """

    image_size: int
    seed: int
    step: int | Tensor
    steps: int
    positions: Tensor

    @property
    def batch(self) -> int:
        """Number of masks."""
        return len(self.positions)

    def words(self, purpose: str, count: int) -> Tensor:
        """Hashed 32-bit words, int64 [B, count]; row i depends on positions[i] alone; purposes are independent."""
        return words(seed_stream(self.seed, purpose), self.step, self.positions, count)

    def words_of(self, purposes: Sequence[str], count: int) -> Tensor:
        """Words of several purposes, int64 [purposes, B, count], each as `words` draws it alone."""
        keys = [self.positions.new_full((1,), seed_stream(self.seed, purpose)) for purpose in purposes]
        step, many = self.step, len(keys)
        rows = torch.cat(keys).repeat_interleave(self.batch, output_size=many * self.batch)
        steps = step.expand(self.batch).repeat(many) if isinstance(step, Tensor) else step
        return words(rows, steps, self.positions.repeat(many), count).view(many, self.batch, count)

    def uniform(self, purpose: str, count: int) -> Tensor:
        """Uniform float32 numbers [B, count] in [0, 1), with 24 random bits; keyed as `words`."""
        return uniform(seed_stream(self.seed, purpose), self.step, self.positions, count)

    def shared(self) -> Draw:
        """The draw of position 0 for every image, which gives one mask for the whole batch."""
        return self._replace(positions=self.positions.new_zeros(self.batch))


def order_of(noise: Tensor) -> Tensor:
    """Random permutations: int64 [B, 2 N] of 32-bit words -> int64 [B, N], one permutation in each row."""
    # Sorting by 62 random bits: with 32 alone, equal keys would favour units that come first.
    high, low = noise.chunk(2, dim=1)
    # 31 bits of each, so that the key stays positive in int64.
    return ((high >> 1) << 31 | (low >> 1)).argsort(dim=1, stable=True)


def listed(order: Tensor, count: int | Tensor) -> Tensor:
    """Membership in the first `count` places of each row: bool [B, N], True = among them.

    Args:
        order: int64 [B, N], a permutation in each row. count: one number for all rows, or int64 [B].
    """
    # A number stays one: made a tensor, it would have to be copied to the device, which the host waits for.
    most = count.view(-1, 1) if isinstance(count, Tensor) else count
    first = torch.arange(order.shape[1], device=order.device) < most
    return torch.zeros_like(order, dtype=torch.bool).scatter_(1, order, first.expand(order.shape))


def random_units(mask: RandomMask, draw: Draw) -> Tensor:
    """Masks of units drawn one by one, bool [B, units, units]; see `RandomMask`."""
    units = draw.image_size // mask.size
    noise = draw.words("mask", 2 * units * units)
    return listed(order_of(noise), mask.hidden_units(draw.image_size)).view(-1, units, units)


def random_tokens(mask: TokenMask, draw: Draw) -> Tensor:
    """Masks of an exact number of tokens, bool [B, units, units]; see `TokenMask`."""
    units = draw.image_size // mask.size
    noise = (draw.shared() if mask.shared else draw).words("mask tokens", 2 * units * units)
    # The first tokens of the order stay visible, as in MAE.
    return ~listed(order_of(noise), units**2 - mask.hidden_units(draw.image_size)).view(-1, units, units)


def squares(mask: SquareMask, draw: Draw) -> Tensor:
    """Masks of one hidden square, bool [B, units, units]; see `SquareMask`."""
    units, side = draw.image_size // mask.size, mask.side(draw.image_size)
    if mask.place == "centre":
        return square_at(draw.positions.new_full((draw.batch, 2), (units - side) // 2), side, units)
    noise = draw.words("mask", 2)
    # A 32-bit word times n, shifted by 32 bits: a whole number below n, from integers alone on every device.
    return square_at(noise * (units - side + 1) >> 32, side, units)


def visible_squares(mask: VisibleSquareMask, draw: Draw) -> Tensor:
    """Masks of all but one square, bool [B, units, units]; see `VisibleSquareMask`."""
    noise = draw.words("mask", 2)
    return ~square_at(
        noise * mask.starts(draw.image_size) >> 32, mask.side(draw.image_size), draw.image_size // mask.size
    )


def square_at(first: Tensor, side: int, units: int) -> Tensor:
    """Squares of `side` units as bool [B, units, units], True inside. first: int64 [B, 2], first row and column."""
    places = torch.arange(units, device=first.device)
    rows, columns = ((places >= start) & (places < start + side) for start in first[:, :, None].unbind(1))
    return rows[:, :, None] & columns[:, None, :]


def complements(mask: ComplementMask, draw: Draw, view: int) -> Tensor:
    """The first mask (view 0) or its inverse (view 1), bool [B, units, units]; see `ComplementMask`."""
    units = draw.image_size // mask.size
    # Both views draw the same words, so that the second is the inverse of the first.
    hidden = listed(order_of(draw.words("mask", 2 * units * units)), mask.hidden_units(draw.image_size))
    return (hidden if view == 0 else ~hidden).view(-1, units, units)


def disjoint_units(mask: DisjointMask, draw: Draw, view: int) -> Tensor:
    """The first mask (view 0) or the second (view 1), bool [B, units, units]; see `DisjointMask`."""
    draw = draw.shared() if mask.shared else draw
    units, count = draw.image_size // mask.size, mask.hidden_units(draw.image_size)
    hidden = listed(order_of(draw.words("mask", 2 * units * units)), count)
    if view == 1:
        # The first mask is drawn again from its own words: no state is kept between views.
        rank = order_of(draw.words("mask second", 2 * units * units)).argsort(dim=1)
        order = (rank + hidden * units**2).argsort(dim=1)  # visible units before hidden ones, each at random
        hidden = listed(order, count)
    return hidden.view(-1, units, units)
