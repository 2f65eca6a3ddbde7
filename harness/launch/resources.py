"""What one run gets to compute with. None of it is part of a spec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Resources:
    """Attributes:
    device: `auto` takes a GPU where there is one.
    processes: processes that compute one run together, each on its own GPU where there are GPUs. The result is that
        of one process up to rounding, which depends on their number.
    threads: CPU threads of each process. Results on CPU are equal bit for bit only for equal numbers of threads.
    workers: loader processes of each process, for sets that do not fit into memory.
    micro_batch: images that fit a device at once; gradients of slices are added up. None for all that a process takes.
    checkpoint_seconds: time between checkpoints.
    deterministic: only deterministic algorithms on a GPU, which is slower.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    processes: int = 1
    threads: int = 1
    workers: int = 0
    micro_batch: int | None = None
    checkpoint_seconds: float = 60.0
    deterministic: bool = False
