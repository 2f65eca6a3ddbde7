"""States of a run: the one vocabulary of store, launchers, report and command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from harness.spec import Run, key, upstreams
from harness.store.lease import Owner

StateName = Literal["done", "running", "queued", "failed", "blocked", "cancelled", "interrupted", "missing"]
"""State of a run.

done: it has a valid result. running: a live process owns it. failed: it raised; only `retry` runs it again.
interrupted: its process was told to stop, or vanished; `run` goes on from its last checkpoint. missing: never begun.
These five follow from the store's files. queued, cancelled: known only to the executor that was given the run.
blocked: a run that it starts from failed; see `failed_upstream`.
"""

STATES: tuple[StateName, ...] = get_args(StateName)


@dataclass(frozen=True)
class Result:
    """Result of a finished run.

    metrics: by name. attempt: number of the attempt that finished. seconds: computing time, over all attempts.
    weights: SHA-256 of the weights file, empty if the run keeps none. files: SHA-256 of the other files of the attempt,
        by path relative to it; empty for results of schema 1, which did not record them.
    cpu_seconds: CPU time of the process and its loaders, which a busy machine does not stretch; None for runs that went
        on in a second attempt, shared a process or had several, and in results of earlier versions.
    """

    metrics: dict[str, float]
    attempt: int
    seconds: float
    weights: str
    files: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    cpu_seconds: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class State:
    """State of a run as its files say it.

    word: done, running, failed, interrupted or missing. attempt: number of the latest attempt, 0 for none.
    error: traceback of a failed run. progress: last line of the metrics of an unfinished run.
    saved: step of the last checkpoint of an interrupted run, from which it goes on; 0 if there is none.
    """

    word: StateName
    result: Result | None = None
    attempt: int = 0
    owner: Owner | None = None
    error: str = ""
    progress: dict[str, Any] = field(default_factory=dict)
    saved: int = 0


MISSING = State("missing")


def failed_upstream(run: Run, state_of: Callable[[str], StateName]) -> Run | None:
    """The failed run that an unfinished run waits for in vain, which makes it `blocked`; None if there is none.

    Args:
        state_of: state of a run, by its key: of `run` itself and of those that it starts from.
    """
    if state_of(key(run)) not in ("missing", "cancelled", "queued", "interrupted"):
        return None
    for first in reversed(upstreams(run)):
        match state_of(key(first)):
            case "failed":
                return first
            case "done":  # the run needs its weights alone: what came before does not matter any more
                return None
    return None
