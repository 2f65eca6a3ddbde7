"""Runs in this process, one after the other."""

from __future__ import annotations

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
) -> None:
    """Compute what is to be computed. A failed run leaves the others running.

    Raises:
        HarnessError: several processes a run are asked for.
    """
    if resources.processes > 1:
        raise HarnessError(f"--processes {resources.processes}: runs in this process have 1; use --on local")
    from harness.launch.job import prepare, work

    device = prepare(resources)
    for event in queue.blocked():
        report(event)
    while len(queue) and not stopping():
        name = queue.take()
        if name is None:
            for event in queue.look_elsewhere():
                report(event)
            time.sleep(POLL_SECONDS)
            continue
        ended = work(store, queue.run(name), device, resources, retry=queue.retry, report=report, stopping=stopping)
        for event in (ended, *queue.end(ended)):
            report(event)
    queue.interrupt(queue.open())
