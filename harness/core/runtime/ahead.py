"""Random draws of many steps, made in one call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

STEPS = 50
"""Most steps that are drawn at once: enough for what a call costs to vanish."""
LIMIT = 4 << 20
"""Most bytes that the draws of a block take; what is needed to make them takes up to a hundred times as much."""
CACHED = 1 << 15
"""The same for a CPU, whose cache has to hold all that: more take longer."""


class Ahead:
    """Draws of one step after the other, made for a block of steps at once.

    A draw is a function of its step and of places in the global batch, so it does not depend on where a block begins.

    Args:
        draw: from steps and positions, int64 [N] each, to tensors with N rows, or n N rows, n for each pair in order.
        positions: int64 [B], on the device of the draws.
        steps: end of the training, beyond which nothing is drawn; None draws whole blocks.
        limit: bytes that a block may take, None for `LIMIT` or `CACHED`; a step is drawn alone if it takes more.
    """

    def __init__(
        self,
        draw: Callable[[Tensor, Tensor], tuple[Tensor, ...]],
        positions: Tensor,
        steps: int | None = None,
        limit: int | None = None,
    ) -> None:
        self.draw, self.positions, self.steps = draw, positions, steps
        self.limit = limit or (CACHED if positions.is_cpu else LIMIT)
        self.first, self.block = 0, list[tuple[Tensor, ...]]()
        self.length = 1  # how much a step takes is known once one has been drawn

    def at(self, step: int) -> tuple[Tensor, ...]:
        """The draws of a step, [n B, ...] each: parts of the block's memory, on which nothing may be written."""
        if not 0 <= step - self.first < len(self.block):
            self._make(step)
        return self.block[step - self.first]

    def _make(self, first: int) -> None:
        left = self.length if self.steps is None else self.steps - first
        count, batch = max(1, min(self.length, left)), len(self.positions)
        steps = torch.arange(first, first + count, device=self.positions.device).repeat_interleave(batch)
        drawn = self.draw(steps, self.positions.repeat(count))
        self.first, self.block = first, list(zip(*(rows.chunk(count) for rows in drawn), strict=True))
        taken = sum(rows.nbytes for rows in drawn) / count
        self.length = max(1, min(STEPS, int(self.limit / max(taken, 1))))
