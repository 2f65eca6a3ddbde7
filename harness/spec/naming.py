"""What a run is called, what it waits for, and how it is read back."""

from __future__ import annotations

from typing import Annotated, assert_never

from pydantic import Field, TypeAdapter, ValidationError

from harness.spec.base import HarnessError, one_line
from harness.spec.run import CustomEvaluation, Evaluation, Pretrain, Run, Snapshot
from harness.spec.start import Checkpoint, Scratch

KEY_DIGITS = 20
_RUN: TypeAdapter[Run] = TypeAdapter(Annotated[Run, Field(discriminator="kind")])


def shown_metric(run: Evaluation) -> str:
    """The metric of an evaluation that tables show."""
    return run.metric if isinstance(run, CustomEvaluation) else run.metrics[0]


def key(run: Run) -> str:
    """The name of a run, computed from its content: `finetune-0123456789abcdef0123`."""
    return f"{run.kind}-{run.digest[:KEY_DIGITS]}"


def upstream(run: Run) -> Pretrain | None:
    """The pre-training that must be done before a run, if any."""
    if isinstance(run, Pretrain):
        return None
    match run.start:
        case Pretrain():
            return run.start
        case Snapshot():
            return run.start.pretrain
        case Scratch() | Checkpoint():
            return None
        case _:
            assert_never(run.start)


def snapshot_epoch(run: Run) -> int | None:
    """The epoch of the snapshot that a run starts from, if it starts from one."""
    return run.start.epoch if not isinstance(run, Pretrain) and isinstance(run.start, Snapshot) else None


def run_from_json(text: str) -> Run:
    """The run whose `to_plain()` was written as JSON.

    Raises:
        HarnessError: the text is no such run.
    """
    try:
        return _RUN.validate_json(text)
    except ValidationError as error:
        raise HarnessError(one_line(error)) from None
