"""Numbers that a schedule sets before each step: learning rates, and the momentum of averages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Schedule = Callable[[int], float]
"""A number at a step, counted from 0."""
STEPS = 200
"""Steps whose numbers are sent to a GPU in one copy."""


class Rates:
    """The numbers of the current step, one for each schedule.

    On a CPU they are floats. On a GPU they are scalar tensors at fixed addresses: the host sets them without waiting,
    and a recorded step reads the new values where it found the old ones.

    Args:
        device: where the scalars are; None for floats.
    """

    def __init__(self, schedules: Sequence[Schedule], device: torch.device | None) -> None:
        self.schedules, self.now = schedules, list[float | Tensor]()
        self.first, self.block = 0, torch.empty(0, len(schedules))
        # float32 is what torch's fused optimisers read on a GPU; on a CPU they read Python's precision.
        dtype = torch.float32 if device is not None and device.type == "cuda" else torch.float64
        self.values = None if device is None else torch.zeros(len(schedules), device=device, dtype=dtype)
        if self.values is not None:
            self.now = [*self.values.unbind()]

    def move(self, step: int) -> None:
        """Go to a step, counted from 0."""
        if self.values is None:
            self.now = [at(step) for at in self.schedules]
            return
        if not self.first <= step < self.first + len(self.block):
            self.first, self.block = step, self._block(step, self.values)
        self.values.copy_(self.block[step - self.first])

    def _block(self, first: int, like: Tensor) -> Tensor:
        rows = [[at(step) for at in self.schedules] for step in range(first, first + STEPS)]
        block = torch.tensor(rows, dtype=like.dtype)
        # From pinned memory, as a copy from other memory would wait until the device is done with all before it.
        return block.pin_memory().to(like.device, non_blocking=True) if like.is_cuda else block
