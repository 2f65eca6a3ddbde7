"""Everything a run needs from its executor: output folder, device, progress callback, stop flag."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import torch

from harness.core.runtime.distributed import Group
from harness.store import Attempt

Ready = Callable[[], bool]
"""Says whether the device has computed what a run waits for."""
Computation = Generator[Ready]
"""A run being computed, as a generator. It hands over where it would wait for the device, having enqueued all work up
to its next metrics line; asked for more before that is ready, it waits. So one process advances several runs in turns.
"""


class Interrupted(Exception):
    """The run stopped because its executor asked for it; it has saved a checkpoint and can be resumed."""


class Diverged(Exception):
    """The loss is not finite, or the predictions collapsed."""


def _silent(line: dict[str, Any]) -> None:
    del line


@dataclass
class Session:
    """Resources of one attempt to compute a run.

    Attributes:
    attempt: the owned attempt folder; with several processes, each has one and all call its methods together.
    workers: loader processes. micro_batch: images that fit the device at once; None for all rows of this process.
    checkpoint_seconds: time between checkpoints.
    report: callback that receives each metrics line when it is written.
    stopping: returns True once the executor wants the run to save and stop; True in one process stops all.
    group: the processes that compute the run.
    """

    attempt: Attempt
    device: torch.device
    workers: int = 0
    micro_batch: int | None = None
    checkpoint_seconds: float = 60.0
    report: Callable[[dict[str, Any]], None] = _silent
    stopping: Callable[[], bool] = lambda: False
    group: Group = field(default_factory=Group)

    def mark(self) -> Ready:
        """Whether the device is done with what is enqueued on its current stream now; always true on a CPU."""
        if self.device.type != "cuda":
            return lambda: True
        reached: Ready = torch.cuda.current_stream(self.device).record_event().query
        return reached
