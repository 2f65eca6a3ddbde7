"""Cost of a training step on this machine: the real loop of a run, timed on pictures of noise.

`measure` computes a run in a store that is thrown away, and ends it after some steps. So what is timed is what a study
gets: the same batches, masks, loop, optimiser and metrics lines.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from harness.core.data.batches import training_batches
from harness.core.data.datasets import load
from harness.core.runtime.operators import Operators
from harness.core.runtime.session import Session
from harness.runs import complexity_of, compute
from harness.spec import Cosine, CustomData, Pretrain
from harness.spec.model.described import costed_model
from harness.store import Attempt, Store

WARM_STEPS = 6
"""Steps before the clock is started: kernels are chosen, memory is reserved, a model is compiled."""

NOISE_BYTES, LONGEST_EPOCH = 400_000_000, 50
"""Pictures of noise take no more than this, and are no more batches, but two at least."""

BACKWARD = 3
"""A training step computes so many times the multiply-adds of a forward pass."""

MATRIX_SIDE = {"cuda": 8192, "cpu": 1024}

PHASES = ("inputs", "masks", "forward", "backward", "clip", "optimiser", "other")


def noise(split: str, count: int, side: int, channels: int) -> tuple[Any, Any]:
    """Pictures of noise: uint8 [count, side, side, channels], and labels int64 [count] of ten classes."""
    del split
    drawn = np.random.default_rng(0)
    return drawn.integers(0, 256, (count, side, side, channels), dtype=np.uint8), np.arange(count) % 10


@dataclass(frozen=True)
class Timing:
    """Measurements of one run.

    batch: images a step. steps: number timed. seconds: of all of them, on the wall.
    first_step: seconds from the beginning of the run to the end of its first step, with the data loaded before.
    warm_up: seconds of the steps between the first and the timed ones.
    peak_bytes: most memory that tensors took on a GPU; on a CPU, that the whole process took.
    flops: of a step's multiply-adds, counted as two each, without those of networks that are not trained, such as a
        momentum encoder. matrix_rate: operations a second of a large matrix product in the run's precision, in this
        process.
    operators: a step's operators by phase, without those that return a view; empty if they were not counted.
    """

    batch: int
    steps: int
    seconds: float
    first_step: float
    warm_up: float
    peak_bytes: int
    flops: float
    matrix_rate: float
    operators: Mapping[str, float] = field(default_factory=dict)

    @property
    def images_per_second(self) -> float:
        return self.batch * self.steps / self.seconds

    @property
    def share(self) -> float:
        """Operations a second of the model, as a share of the matrix rate."""
        return self.flops * self.steps / self.seconds / self.matrix_rate


def prepared(run: Pretrain, *, batch: int, precision: str | None, steps: int) -> Pretrain:
    """The run as it is timed: of this batch size and precision, long enough, on pictures of noise."""
    schedule = {"schedule": Cosine(), "warmup_epochs": 0, "warmup_steps": 0, "warmup_lr": 0.0}
    recipe = run.recipe.replace(batch_size=batch, epochs=1, precision=precision or run.recipe.precision, **schedule)
    needed = WARM_STEPS + steps + 1
    image = batch * run.data.channels * run.image_size**2
    held = max(2, min(LONGEST_EPOCH, NOISE_BYTES // image))  # batches of an epoch, after which there is a metrics line
    size = (("count", held * batch), ("side", run.image_size), ("channels", run.data.channels))
    data = CustomData(function=f"{__name__}:noise", params=size, channels=run.data.channels)
    # Groups of another size than the batch would have to divide it.
    fourier = run.fourier.replace(group=None) if run.fourier and batch % (run.fourier.group or 1) else run.fourier
    return run.replace(data=data, recipe=recipe.replace(epochs=-(-needed // held)), start=None, fourier=fourier)


class _Enough(Exception):
    """The steps that were asked for are done."""


class _Clock:
    """Stands in a session for the executor's wish to stop, which the loop asks for after each step."""

    def __init__(self, device: torch.device, steps: int) -> None:
        self.device, self.steps, self.done = device, steps, 0
        self.begun = time.perf_counter()
        self.marks: dict[int, float] = {}

    def __call__(self) -> bool:
        self.done += 1
        if self.done in (1, WARM_STEPS, WARM_STEPS + self.steps):
            wait(self.device)
            self.marks[self.done] = time.perf_counter()
        if self.done == WARM_STEPS + self.steps:
            raise _Enough
        return False


def measure(
    run: Pretrain,
    device: torch.device,
    *,
    steps: int,
    operators: Mapping[str, float] | None = None,
    **resources: Any,
) -> Timing:
    """Time the steps of a run that `prepared` gave.

    Args:
        operators: what `count_operators` found. resources: fields of the session.
    """
    load(run.data, "pretrain")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    clock = _Clock(device, steps)
    with _attempt(run) as attempt, suppress(_Enough):
        compute(run, Session(attempt, device, checkpoint_seconds=float("inf"), stopping=clock, **resources))
    first, warm, last = (clock.marks[step] for step in (1, WARM_STEPS, WARM_STEPS + steps))
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _process_bytes()
    forward = complexity_of(costed_model(run)).multiply_adds
    return Timing(
        batch=run.recipe.batch_size,
        steps=steps,
        seconds=last - warm,
        first_step=first - clock.begun,
        warm_up=warm - first,
        peak_bytes=peak,
        flops=2.0 * BACKWARD * forward * run.recipe.batch_size * run.mask.views,
        matrix_rate=matrix_rate(device, run.recipe.precision),
        operators=operators or {},
    )


@contextmanager
def _attempt(run: Pretrain) -> Iterator[Attempt]:
    with tempfile.TemporaryDirectory(prefix="harness-bench-") as folder:
        attempt = Store(Path(folder)).acquire(run)
        assert isinstance(attempt, Attempt), "a new store has no runs"
        try:
            yield attempt
        finally:
            attempt.release()


def _process_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_name(device: torch.device) -> str:
    """Name of a GPU, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def matrix_rate(device: torch.device, precision: str) -> float:
    """Operations a second of the product of two large square matrices, the best of ten; two for each multiply-add."""
    side = MATRIX_SIDE[device.type]
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    generator = torch.Generator(device).manual_seed(0)
    one, other = (torch.randn(side, side, device=device, generator=generator).to(dtype) for _ in range(2))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    seconds = []
    for _ in range(13):
        wait(device)
        begun = time.perf_counter()
        one @ other
        wait(device)
        seconds.append(time.perf_counter() - begun)
    torch.set_float32_matmul_precision(before)
    return 2 * side**3 / min(seconds[3:])


def loader_rate(run: Pretrain, device: torch.device, *, workers: int, steps: int) -> float:
    """Images a second of a run's batches alone, without a model, after the first two of them."""
    images = load(run.data, "pretrain").to(device)
    total = steps + 2  # over as many epochs as that takes
    batches = training_batches(
        images, run.recipe.augment, image_size=run.image_size, batch_size=run.recipe.batch_size, seed=run.seed,
        first_step=0, steps=total, device=device, workers=workers,
    )  # fmt: skip
    begun = time.perf_counter()
    for number, _ in enumerate(batches):
        if number == 1:
            wait(device)
            begun = time.perf_counter()
    wait(device)
    return (total - 2) * run.recipe.batch_size / (time.perf_counter() - begun)


# Innermost first: the first frame that one of these fits says what an operator is for.
_PLACES = (
    ("harness.core.masks", "masks"),
    ("harness.core.data", "inputs"),
    ("harness.core.runtime.ahead", "inputs"),
    ("torch.nn.utils.clip_grad", "clip"),
    ("torch.optim", "optimiser"),
    ("timm.optim", "optimiser"),
    ("torch.autograd", "backward"),
    ("harness.core.objective", "forward"),
    ("harness.core.model", "forward"),
    ("harness.core.pretrain.mim", "forward"),
)


def _phase(frame: FrameType | None) -> str:
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module == "harness.core.pretrain.mim" and frame.f_code.co_name == "scores":
            return "masks"  # what a guided mask looks at
        for place, phase in _PLACES:
            if module.startswith(place):
                return phase
        frame = frame.f_back
    return "backward"  # a thread of the autograd engine has no other frames


class _ByPhase(Operators):
    """Counts operators by phase besides."""

    def __init__(self) -> None:
        super().__init__()
        self.phases: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = self.total
        result = super().__torch_dispatch__(func, types, args, kwargs)
        self.phases[_phase(sys._getframe(1))] += self.total - before
        return result


def count_operators(run: Pretrain, device: torch.device, *, steps: int, **resources: Any) -> dict[str, float]:
    """Operators a step by phase: the mean of so many steps behind the first, of a run that `prepared` gave.

    Random inputs are drawn for many steps in one call: count as many for a true share of it.
    """
    counting, done = _ByPhase(), 0

    def step_is_done() -> bool:
        nonlocal done
        done += 1
        if done == 1:
            counting.phases.clear()
        if done == 1 + steps:
            raise _Enough
        return False

    load(run.data, "pretrain")
    with _attempt(run) as attempt:
        session = Session(attempt, device, checkpoint_seconds=float("inf"), stopping=step_is_done, **resources)
        with suppress(_Enough), counting:
            compute(run, session)
    return {phase: counting.phases[phase] / steps for phase in PHASES}
