"""What one run gets to compute with. None of it is part of a spec."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.spec import Run

CPU_FACTS = Path("/proc/cpuinfo")
BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""How Linux calls the instructions that make bf16 faster than fp32, on x86 and Arm."""


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


def slow_bf16(runs: Iterable[Run], device: str, gpus: Callable[[], list[str]]) -> list[str]:
    """A line where runs in bf16 would be computed by a CPU that has no instructions for it; none where that is unknown.

    Args:
        device: as in `Resources`. gpus: finds those that there are here.
    """
    count = sum(getattr(getattr(run, "recipe", None), "precision", "") == "bf16" for run in runs)
    if not count or device == "cuda" or not CPU_FACTS.is_file() or (device == "auto" and gpus()):
        return []
    if BF16 & set(CPU_FACTS.read_text(errors="replace").split()):
        return []
    return [
        f"{count} runs in bf16, for which this CPU has no instructions: fp32 is 1.8 to 3.3 times as fast on such CPUs"
    ]
