"""Executor that computes runs in this process, one after the other."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from harness.launch.executor import PROGRAM, Here, Report
from harness.launch.resources import Resources
from harness.spec import HarnessError
from harness.store import Store

POLL_SECONDS = 0.5


class Inline(Here):
    """This process computes one run in each `wait`.

    Raises:
        HarnessError: several processes a run are asked for.
    """

    def __init__(self, store: Store, resources: Resources, *, program: str = PROGRAM) -> None:
        if resources.processes > 1:
            raise HarnessError(f"--processes {resources.processes}: runs in this process have 1; use --on local")
        super().__init__(store, resources, program=program)
        self._computing: tuple[ModuleType, Any] | None = None

    def wait(self, report: Report, stopping: Callable[[], bool]) -> None:
        """Compute the next run that can be; without one, see what other processes have done."""
        if self._computing is None:  # torch is loaded only now
            module = importlib.import_module(self.program)
            self._computing = module, module.prepare(self.resources)
        module, device = self._computing
        events, name = self.queue.blocked(), self.queue.take()
        if name is None:
            events += self.queue.look_elsewhere()
            time.sleep(POLL_SECONDS)
        else:
            ended = module.work(
                self.store,
                self.queue.run(name),
                device,
                self.resources,
                retry=self.queue.retry,
                report=report,
                stopping=lambda: stopping() or name in self.cancelled,
            )
            events += [ended, *self.queue.end(ended)]
        for event in events:
            report(event)

    def close(self, report: Report) -> None:
        """End waiting runs as interrupted."""
        del report
        self.queue.interrupt(self.queue.open())
