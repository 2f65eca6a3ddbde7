"""Resources of one run. None of them is part of a spec, so none changes a run's key."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.spec import FineTune, HarnessError, Pretrain, Run
from harness.store.files import text_of

Choice = Literal["auto", "on", "off"]

CPU_FACTS = Path("/proc/cpuinfo")
BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Names in Linux of the instructions that make bf16 faster than fp32, on x86 and Arm."""


@dataclass(frozen=True)
class Resources:
    """Devices, processes and settings that one run is computed with.

    device: `auto` takes a GPU where there is one.
    in_flight: most runs that share one process and its device, in turns; fewer where memory does not suffice.
    processes: processes that compute one run together, each on its own GPU where there are GPUs. The result is that
        of one process up to rounding, which depends on their number.
    threads: CPU threads of each process. Results on CPU are equal bit for bit only for equal numbers of threads.
    workers: loader processes of each process, for sets that do not fit into memory.
    micro_batch: images that fit a device at once; gradients of slices are added up. None for all that a process takes.
    checkpoint_seconds: time between checkpoints.
    deterministic: only deterministic algorithms on a GPU, which is slower.
    compile: `on` compiles models by torch.compile, which changes rounding. `auto`: see `compiled`.
    capture: `on` captures a step as a CUDA graph and replays it, with every bit as it was. `auto`: see `captured`.
    recompute: True computes activations again in the backward pass instead of keeping them, with every bit as it was:
        less memory, about a third more arithmetic.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    in_flight: int = 1
    processes: int = 1
    threads: int = 1
    workers: int = 0
    micro_batch: int | None = None
    checkpoint_seconds: float = 60.0
    deterministic: bool = False
    compile: Choice = "auto"
    capture: Choice = "auto"
    recompute: bool = False

    def __post_init__(self) -> None:
        if self.in_flight > 1 and self.processes > 1:
            raise HarnessError(f"--in-flight {self.in_flight}: a run of {self.processes} processes is computed alone")

    def compiled(self, run: Run, *, gpu: bool) -> bool:
        """True if a run's model is compiled: as asked for, else where it pays.

        It pays on a GPU, in a training of at least COMPILE_STEPS steps, unless only deterministic algorithms are asked
        for: compiled kernels round in another way than those of the same run elsewhere.
        """
        if not isinstance(run, Pretrain | FineTune):
            return False
        if self.compile != "auto":
            return self.compile == "on"
        steps = steps_of(run)
        return gpu and not self.deterministic and (steps is None or steps >= COMPILE_STEPS)

    def captured(self, *, gpu: bool) -> bool:
        """True if steps are captured as a CUDA graph: as asked for; with `auto` on a GPU if CAPTURES is True."""
        return gpu and (CAPTURES if self.capture == "auto" else self.capture == "on")


COMPILE_STEPS = 5_000
"""Steps after which compiling has paid: it takes about a minute, and a step becomes some ten milliseconds shorter."""

CAPTURES = False
"""True captures steps on a GPU unasked: not before tests/bench/gpu.py has passed on a GPU (results/bench/gpu.json)."""


def steps_of(run: Pretrain | FineTune) -> int | None:
    """Steps of a training; None where they are stated in epochs and its data set has to be read, as a folder has."""
    images = run.data.known_images(labelled=not isinstance(run, Pretrain))
    return run.recipe.steps if images is None else run.recipe.total_steps(images // run.recipe.batch_size)


def free_memory() -> float:
    """Bytes that this process can still take, by Linux and by its control group; infinite where neither tells."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", text_of(Path("/proc/meminfo")))
    free = 1024.0 * int(found[1]) if found else math.inf
    limit, used = (text_of(Path(f"/sys/fs/cgroup/memory.{name}")).strip() for name in ("max", "current"))
    return min(free, float(limit) - float(used)) if limit.isdigit() and used.isdigit() else free


def slow_bf16(runs: Iterable[Run], device: str, gpus: Callable[[], list[str]]) -> list[str]:
    """A line where runs in bf16 would be computed by a CPU; none where nothing is known of it.

    Args:
        device: as in `Resources`. gpus: finds those that there are here.
    """
    count = sum(getattr(getattr(run, "recipe", None), "precision", "") == "bf16" for run in runs)
    if not count or device == "cuda" or (device == "auto" and gpus()):
        return []
    known = set(text_of(CPU_FACTS).split())
    if not known:
        return []
    if BF16 & known:
        # As measured with 0.1 to 0.7M parameters and AMX: casts cost more there than faster products save.
        return [
            f"{count} runs in bf16 on a CPU: small models are 1.8 to 3.3 times as fast in fp32; bench measures both"
        ]
    return [f"{count} runs in bf16, for which this CPU has no instructions: fp32 is faster"]
