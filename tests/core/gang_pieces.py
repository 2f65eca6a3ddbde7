"""Pieces as a user would write them, for runs in several processes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def ragged(random: Callable[..., Tensor], grid: tuple[int, int], step: Tensor, steps: int) -> Tensor:
    """From one unit to nearly all of them hidden, another number for each image."""
    units = grid[0] * grid[1]
    order = random(units).argsort(dim=1).argsort(dim=1)
    count = 1 + (random(1) ** 2 * (units - 2)).long()
    return (order < count).view(-1, *grid)


def raising(random: Callable[..., Tensor], grid: tuple[int, int], step: Tensor, steps: int) -> Tensor:
    """Raises in the middle, in rank 2 alone."""
    if bool((step == 2).any()) and torch.distributed.get_rank() == 2:
        raise ValueError("the third process has a hole")
    return random(*grid) < 0.5


class Normed(nn.Module):
    """A head with a batch norm and a parameter that is not used."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 1, bias=False)  # a bias would have no gradient but rounding
        self.norm, self.last = nn.BatchNorm2d(width), nn.Conv2d(width, out, 1)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(nn.functional.gelu(self.norm(self.first(x))))
        return found


def normed(width: int, out: int) -> nn.Module:
    """A head with a batch norm."""
    return Normed(width, out)


def spread(
    encoder: Callable[[Tensor], Tensor], train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]
) -> dict[str, float]:
    """How far features lie apart."""
    return {"spread": encoder(test[0]).std().item()}
