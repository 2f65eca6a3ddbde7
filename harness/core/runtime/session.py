"""Everything a run needs from its executor: output folder, device, progress callback, stop flag."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import nn

from harness.core.runtime.distributed import Group
from harness.store import Attempt

Ready = Callable[[], bool]
"""Gives True once the device has computed what a run waits for; does not wait itself."""
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
        workers: number of loader processes.
        micro_batch: images that fit the device at once; None for all rows of this process.
        checkpoint_seconds: time between checkpoints.
        report: callback that receives each metrics line when it is written.
        stopping: returns True once the executor wants the run to save and stop; True in one process stops all.
        group: the processes that compute the run.
        shares: True if other runs of this process use the device in turns with this one.
        capture: True records a training step as a CUDA graph and replays it, where that is possible.
        compile: True compiles models for the forward passes of training.
        recompute: True lets blocks compute their activations again in the backward pass instead of keeping them.
    """

    attempt: Attempt
    device: torch.device
    workers: int = 0
    micro_batch: int | None = None
    checkpoint_seconds: float = 60.0
    report: Callable[[dict[str, Any]], None] = _silent
    stopping: Callable[[], bool] = lambda: False
    group: Group = field(default_factory=Group)
    shares: bool = False
    capture: bool = False
    compile: bool = False
    recompute: bool = False

    def own_stream(self) -> torch.cuda.Stream | None:
        """A new stream for the run's work on a GPU, where it needs one; None for the stream that is current."""
        # So that runs overlap; and a graph cannot be recorded on the default stream.
        if self.device.type != "cuda" or not (self.shares or self.capture):
            return None
        return torch.cuda.Stream(self.device)

    def compiled(self, model: nn.Module) -> nn.Module:
        """A model for the forward passes of training, with the same weights; compiled if the session says so."""
        if not self.compile:
            return model
        self.attempt.note({"compiled": True})
        return cast(nn.Module, torch.compile(model))

    def mark(self) -> Ready:
        """A function that gives True once the device has done all work enqueued so far; on a CPU it always does."""
        if self.device.type != "cuda":
            return lambda: True
        reached: Ready = torch.cuda.current_stream(self.device).record_event().query
        return reached
