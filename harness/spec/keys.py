"""All runs there are: their keys, and what has to be done before each."""

from __future__ import annotations

import hashlib
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from harness.machine import HarnessError
from harness.spec.analyses import Fourier, Interactions, Occlusion, RgbStatistics
from harness.spec.base import one_line
from harness.spec.dense.detect import Detect
from harness.spec.dense.segment import Segment
from harness.spec.run import CustomEvaluation, FineTune, Knn, LinearProbe, LogisticProbe, Pretrain, Snapshot

KEY_DIGITS = 20

Analysis = Interactions | Occlusion | Fourier | RgbStatistics
Evaluation = FineTune | LinearProbe | LogisticProbe | Knn | Segment | Detect | CustomEvaluation | Analysis
Run = Pretrain | Evaluation
Training = Pretrain | FineTune | LinearProbe | Segment | Detect
_RUN: TypeAdapter[Run] = TypeAdapter(Annotated[Run, Field(discriminator="kind")])


def key(run: Run) -> str:
    """The name of a run, computed from its content: `finetune-0123456789abcdef0123`."""
    return f"{run.kind}-{run.digest[:KEY_DIGITS]}"


def upstream(run: Run) -> Pretrain | FineTune | None:
    """The run whose weights a run starts from, if any."""
    if isinstance(run, Pretrain) or not run.needs_weights:
        return None
    if isinstance(run.start, Snapshot):
        return run.start.pretrain
    return run.start if isinstance(run.start, Pretrain | FineTune) else None


def snapshot_epoch(run: Run) -> int | None:
    """The epoch of the snapshot that a run starts from, if it starts from one."""
    return run.start.epoch if not isinstance(run, Pretrain) and isinstance(run.start, Snapshot) else None


def upstreams(run: Run) -> tuple[Pretrain | FineTune, ...]:
    """All runs that have to be done before a run, the first to be done first."""
    first = upstream(run)
    return () if first is None else (*upstreams(first), first)


def pretraining(run: Evaluation) -> Pretrain | None:
    """The pre-training that an evaluation goes back to, if any."""
    return next((first for first in upstreams(run) if isinstance(first, Pretrain)), None)


def run_from_json(text: str) -> Run:
    """The run whose `to_plain()` was written as JSON.

    Raises:
        HarnessError: the text is no such run.
    """
    try:
        return _RUN.validate_json(text)
    except ValidationError as error:
        raise HarnessError(one_line(error)) from None


def seed_stream(seed: int, purpose: str) -> int:
    """A 63-bit number for one purpose of one seed index: streams of different purposes are unrelated."""
    word = hashlib.sha256(f"{seed}\0{purpose}".encode()).digest()
    return int.from_bytes(word[:8], "big") >> 1
