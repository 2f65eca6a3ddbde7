"""Random draws of many steps, made in one call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

STEPS = 50
"""Most steps that are drawn at once: enough for what a call costs to vanish."""
LIMIT = 4 << 20
"""Most bytes that the draws of a block take on a GPU; while they are made, up to a hundred times as much is needed."""
CACHED = 1 << 15
"""Most bytes on a CPU: a block that its cache cannot hold, with all that is needed to make it, takes longer."""


class Ahead:
    """Draws of one step after the other, made for a block of steps at once.

    A draw is a function of its step and of places in the global batch, so it does not depend on where a block begins.

    Args:
        draw: function of steps and positions, int64 [N] each. It gives tensors of n N rows: n for each pair of a step
            and a position, in the order of the pairs.
        positions: int64 [B], places in the global batch, the same in every step; on the device of the draws.
        steps: number of steps of the training, beyond which nothing is drawn; None draws whole blocks.
        limit: bytes that a block may take, None for `LIMIT` or `CACHED`; a step that takes more is drawn alone.
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
        self.length = 1  # of a block in steps: how much a step takes is known once one has been drawn

    def at(self, step: int) -> tuple[Tensor, ...]:
        """The draws of a step, [n B, ...] each: parts of the block's memory, on which nothing may be written."""
        if not 0 <= step - self.first < len(self.block):
            self._make(step)
        return self.block[step - self.first]

    def _make(self, first: int) -> None:
        left = self.length if self.steps is None else self.steps - first
        count, batch = max(1, min(self.length, left)), len(self.positions)
        # All positions of the first step come first, then those of the next, so that a chunk of the rows is a step.
        steps = torch.arange(first, first + count, device=self.positions.device).repeat_interleave(batch)
        drawn = self.draw(steps, self.positions.repeat(count))
        self.first, self.block = first, list(zip(*(rows.chunk(count) for rows in drawn), strict=True))
        taken = sum(rows.nbytes for rows in drawn) / count
        self.length = max(1, min(STEPS, int(self.limit / max(taken, 1))))
