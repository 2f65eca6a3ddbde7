"""Runs in flight: one process computes several in turns, each until it would wait for the device."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from harness.launch.executor import Report
from harness.launch.queue import Event
from harness.launch.resources import Resources
from harness.spec import Run, key
from harness.store import Attempt, Store

Turns = Generator[Callable[[], bool], None, Event]
"""A run being computed. It hands over a function that says whether the device is ready for it; ends with its ending."""


@dataclass
class _One:
    name: str
    turns: Turns
    ready: Callable[[], bool] = lambda: True
    begun: bool = False
    attempt: Attempt | None = None


class Flight:
    """Each run has its own attempt, owner, checkpoints and log; one that fails or is stopped ends alone.

    Args:
        computing: module whose `prepare`, `work_in_turns` and `room` are called.
        stopping: returns True once the run of a key is to save and end. report: receives all events but the endings.
        logged: True sends what runs print to the logs of their attempts.
    """

    def __init__(
        self,
        store: Store,
        resources: Resources,
        computing: ModuleType,
        *,
        report: Report,
        stopping: Callable[[str], bool],
        logged: bool = False,
    ) -> None:
        self._store, self._resources, self._computing = store, resources, computing
        self._report, self._stopping, self._logged = report, stopping, logged
        self.device = computing.prepare(resources)
        self._runs: list[_One] = []
        self._printing: Attempt | None = None
        self._most = 0

    def __len__(self) -> int:
        """Number of runs in flight."""
        return len(self._runs)

    def room(self) -> bool:
        """True if another run may begin: there is memory, and all in flight have shown how much of it they take."""
        self._most = max(self._most, count := len(self._runs))
        if count == 0:
            return True
        measured = count < self._resources.in_flight and all(one.begun for one in self._runs)
        return measured and bool(self._computing.room(self.device, self._most))

    def begin(self, run: Run, *, retry: bool, **more: Any) -> None:
        """Let a run in; it is acquired at its first turn. more: further arguments of `work_in_turns`."""
        name = key(run)

        def owned(attempt: Attempt) -> None:
            one.attempt = attempt
            self._print_to(attempt)

        turns = self._computing.work_in_turns(
            self._store,
            run,
            self.device,
            self._resources,
            retry=retry,
            report=self._report,
            stopping=lambda: self._stopping(name),
            begin=owned,
            **more,
        )
        self._runs.append(one := _One(name, turns))

    def turn(self) -> list[Event]:
        """Advance every run whose device is ready, or the first one if none is; returns the endings."""
        ended = []
        # If none is ready, the first is advanced all the same: it waits for the device, so this loop need not poll.
        for one in [one for one in self._runs if one.ready()] or self._runs[:1]:
            if one.attempt is not None:
                self._print_to(one.attempt)
            try:
                one.ready, one.begun = next(one.turns), True
            except StopIteration as last:
                self._runs.remove(one)
                ended.append(last.value)
            except BaseException:
                self._runs.remove(one)
                raise
        if self._logged:
            sys.stdout.flush()
            sys.stderr.flush()
        return ended

    def _print_to(self, attempt: Attempt) -> None:
        """Send what this process prints to an attempt's log, in the middle of what other runs print."""
        if not self._logged or attempt is self._printing:
            return
        sys.stdout.flush()
        sys.stderr.flush()
        redirect(attempt)
        self._printing = attempt


def redirect(attempt: Attempt) -> None:
    """Send what this process prints from now on to the attempt's log."""
    log = os.open(attempt.files.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
