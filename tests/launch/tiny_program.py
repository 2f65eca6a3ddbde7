"""What a worker process runs in place of harness.launch.job: no torch, and endings by the run's seed."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Generator

from harness.launch.queue import Event, last_line
from harness.launch.resources import Resources
from harness.spec import Run, key
from harness.store import Attempt, Store

BREAKS = 100
"""Seeds from here on raise."""
WAITS = 200
"""Seeds from here on go on until they are told to save."""
REFUSED = 300
"""The seed whose disk refuses."""


def ready() -> bool:
    return True


def prepare(resources: Resources) -> str:
    assert resources.device == "cpu"
    return "cpu"


def room(device: str, most: int) -> bool:
    return True


def work_in_turns(
    store: Store,
    run: Run,
    device: str,
    resources: Resources,
    *,
    retry: bool,
    report: Callable[[Event], None],
    stopping: Callable[[], bool],
    begin: Callable[[Attempt], None] = lambda attempt: None,
) -> Generator[Callable[[], bool], None, Event]:
    attempt = store.acquire(run, retry=retry)
    if not isinstance(attempt, Attempt):
        return Event("done" if attempt.word == "done" else "failed", key(run))
    begin(attempt)
    report(Event("started", key(run)))
    try:
        if run.seed == REFUSED:
            return Event("interrupted", key(run), "cannot write there: Input/output error")
        while run.seed >= WAITS and not stopping():
            time.sleep(0.01)
            yield ready
        if run.seed >= WAITS:
            attempt.write_checkpoint(7, lambda file: file.write(b"state"))
            return Event("interrupted", key(run), "saved at step 7")
        if run.seed >= BREAKS:
            raise ValueError(f"seed {run.seed}")
        attempt.finish({"loss": 0.5}, 1.0, b"weights")
    except ValueError:
        attempt.fail(traceback.format_exc())
        return Event("failed", key(run), last_line(traceback.format_exc()))
    finally:
        attempt.release()
    return Event("done", key(run))
