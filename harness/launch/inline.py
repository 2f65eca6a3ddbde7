"""Executor that computes runs in this process, one after the other."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable

from harness.launch.queue import Event, Queue
from harness.launch.resources import Resources
from harness.spec import HarnessError
from harness.store import Store

POLL_SECONDS = 0.5


def run_inline(
    queue: Queue,
    store: Store,
    resources: Resources,
    *,
    report: Callable[[Event], None],
    stopping: Callable[[], bool] = lambda: False,
    feed: Callable[[], bool] = lambda: False,
    program: str = "harness.launch.job",
) -> None:
    """Compute a queue. Other runs go on after a run fails.

    Args:
        feed: called in every turn; may add runs to the queue; returns whether more may come.
        program: module whose `prepare` and `work` are called.

    Raises:
        HarnessError: several processes a run are asked for.
    """
    if resources.processes > 1:
        raise HarnessError(f"--processes {resources.processes}: runs in this process have 1; use --on local")
    computing = importlib.import_module(program)
    device = computing.prepare(resources)
    while (feed() or len(queue)) and not stopping():
        for event in queue.blocked():
            report(event)
        name = queue.take()
        if name is None:
            for event in queue.look_elsewhere():
                report(event)
            time.sleep(POLL_SECONDS)
            continue
        ended = computing.work(
            store, queue.run(name), device, resources, retry=queue.retry, report=report, stopping=stopping
        )
        for event in (ended, *queue.end(ended)):
            report(event)
    queue.interrupt(queue.open())
