"""Masks with a defect each."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Random = Callable[..., Tensor]
Grid = tuple[int, int]


def _lowest(noise: Tensor, share: float) -> Tensor:
    flat = noise.flatten(1)
    count = round(flat.shape[1] * share)
    return (flat.argsort(1).argsort(1) < count).view_as(noise)


def sound(random: Random, grid: Grid, step: Tensor, steps: int, *, ratio: float) -> Tensor:
    """None."""
    del step, steps
    return _lowest(random(*grid), ratio)


def inverted(random: Random, grid: Grid, step: Tensor, steps: int, *, ratio: float) -> Tensor:
    """True means visible."""
    return ~sound(random, grid, step, steps, ratio=ratio)


def frozen(random: Random, grid: Grid, step: Tensor, steps: int, *, ratio: float) -> Tensor:
    """The same for every batch."""
    del step, steps
    batch = random(*grid).shape[0]
    return _lowest(torch.rand(batch, *grid, generator=torch.Generator().manual_seed(1)), ratio)


def single(random: Random, grid: Grid, step: Tensor, steps: int, *, ratio: float) -> Tensor:
    """The same for every image."""
    return frozen(random, grid, step, steps, ratio=ratio)[:1].expand(random(*grid).shape[0], -1, -1).contiguous()


def board(random: Random, grid: Grid, step: Tensor, steps: int, *, ratio: float, side: int) -> Tensor:
    """A checkerboard that is not exactly half."""
    del step, steps, ratio
    rows, columns = (torch.arange(length) // side for length in grid)
    phase = (random(1, 1) < 0.5).long()
    return (rows[:, None] + columns + phase) % 2 == 1
