"""Executor that computes runs in this process."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable

from harness.launch.executor import PROGRAM, Here, Report
from harness.launch.flight import Flight
from harness.launch.queue import Event
from harness.launch.resources import Resources
from harness.spec import HarnessError
from harness.store import Store

POLL_SECONDS = 0.5


class Inline(Here):
    """This process computes runs, one after the other or several in turns.

    Raises:
        HarnessError: several processes a run are asked for.
    """

    def __init__(self, store: Store, resources: Resources, *, program: str = PROGRAM) -> None:
        if resources.processes > 1:
            raise HarnessError(f"--processes {resources.processes}: runs in this process have 1; use --on local")
        super().__init__(store, resources, program=program)
        self._flight: Flight | None = None
        self._closing = False

    def wait(self, report: Report, stopping: Callable[[], bool]) -> None:
        """Compute until a run ends or another one fits; with nothing to compute, see what other processes have done."""
        self._report, self._stopping = report, stopping
        flight, events = self._in_flight(), self.queue.blocked()
        while flight.room() and (name := self.queue.take()) is not None:
            flight.begin(self.queue.run(name), retry=self.queue.retry)
            events += self._turn(flight)
        if not flight:
            events += self.queue.look_elsewhere()
            time.sleep(0.0 if events else POLL_SECONDS)
        while flight and not events:  # one turn at least: idle runs may be waiting for one in flight
            events += self._turn(flight)
            if self.queue.idle() and flight.room():
                break
        for event in events:
            report(event)

    def close(self, report: Report) -> None:
        """Have runs in flight save and stop, and end all others as interrupted."""
        self._closing = True
        while self._flight:
            for event in self._turn(self._flight):
                report(event)
        self._closing = False
        self.queue.interrupt(self.queue.open())

    def _in_flight(self) -> Flight:
        if self._flight is None:  # torch is loaded only now
            self._flight = Flight(
                self.store,
                self.resources,
                importlib.import_module(self.program),
                report=lambda event: self._report(event),
                stopping=lambda name: self._closing or self._stopping() or name in self.cancelled,
            )
        return self._flight

    def _turn(self, flight: Flight) -> list[Event]:
        ended = flight.turn()
        return ended + [event for one in ended for event in self.queue.end(one)]
