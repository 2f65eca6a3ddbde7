"""What one run gets to compute with. None of it is part of a spec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Resources:
    """Attributes:
    device: `auto` takes a GPU where there is one.
    threads: CPU threads of one run. Results on CPU are equal bit for bit only for equal numbers of threads.
    workers: loader processes of one run, for sets that do not fit into memory.
    micro_batch: images that fit the device at once; gradients of slices are added up. None for the whole batch.
    checkpoint_seconds: time between checkpoints.
    deterministic: only deterministic algorithms on a GPU, which is slower.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    workers: int = 0
    micro_batch: int | None = None
    checkpoint_seconds: float = 60.0
    deterministic: bool = False
