"""What an executor lends to a run: a place to write, a device, and two ways of talking while it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from harness.core.runtime.distributed import Group
from harness.store import Attempt


class Interrupted(Exception):
    """The executor asked the run to stop; it has saved a checkpoint and can go on later."""


class Diverged(Exception):
    """The loss is not finite, or the predictions collapsed."""


def _silent(line: dict[str, Any]) -> None:
    del line


@dataclass
class Session:
    """Attributes:
    attempt: the owned attempt folder; where several processes compute the run, all have one to call alike.
    workers: loader processes. micro_batch: images that fit the device at once; None for all that this process takes.
    checkpoint_seconds: time between checkpoints.
    report: receives each metrics line as it is written.
    stopping: whether the executor wants the run to save and stop; one process of several that says so stops all.
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
