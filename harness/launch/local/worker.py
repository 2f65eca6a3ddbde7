"""Main function of a worker process, which computes the runs it is sent: in turns, or one by one with its group."""

from __future__ import annotations

import contextlib
import functools
import importlib
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from harness.launch.flight import Flight
from harness.launch.queue import Event
from harness.launch.resources import Resources
from harness.store import Store

STOPPED = 128 + signal.SIGTERM
"""Exit code of a worker that was asked to stop."""
BROKEN = 70
"""Exit code of a worker that left its group in the middle of a run."""
COMPUTE, RETRY, CANCEL = "compute", "retry", "cancel"
"""Orders to a worker about a run; `retry` computes it even if it failed."""
ROOM = "room"
"""Sent by a worker that has runs in flight and memory for another."""


@dataclass(frozen=True)
class Member:
    """A process's place in its group: the file where they meet, its rank, their number, and its GPU, if any."""

    meeting: Path
    rank: int
    size: int
    gpu: str | None


def serve(
    connection: Connection,
    root: Path,
    resources: Resources,
    member: Member,
    program: str,
    environment: dict[str, str],
) -> None:
    """The main function of a worker process.

    Args:
        program: the module whose `prepare`, `work_in_turns` and `room` it calls.
        environment: the variables of the process that starts it; a fork would have those of its server.
    """
    stopped = False

    def stop(*_: Any) -> None:
        nonlocal stopped
        stopped = True
        if not working:
            os._exit(STOPPED)

    working = False
    _stopped_by_parent_alone(stop)
    os.environ.clear()
    os.environ.update(environment)
    if member.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = member.gpu
    parent = multiprocessing.parent_process()
    assert parent is not None
    inbox, store = _Inbox(connection), Store(root)

    def stopping(name: str) -> bool:
        inbox.read()
        return stopped or inbox.closed or name in inbox.cancelled or not parent.is_alive()

    computing = importlib.import_module(program)
    report = functools.partial(_send, connection)
    flight = Flight(store, resources, computing, report=report, stopping=stopping, logged=True)
    with _group(member, flight.device) as group:
        more = {} if group is None else {"group": group}
        while not ((stopped or inbox.closed) and not flight):
            inbox.read(wait=not flight and not inbox.waiting)
            working = True
            while inbox.waiting and flight.room() and not stopped:
                name, retry = inbox.waiting.popleft()
                flight.begin(store.spec(name), retry=retry, **more)
            for ended in flight.turn():
                if member.rank == 0:
                    _send(connection, ended)
            if group is not None and group.broken:
                os._exit(BROKEN)  # at once: those who wait for this process notice by its end
            if flight and not inbox.asked and flight.room():
                inbox.asked = True
                _send(connection, ROOM)
            working = bool(flight or inbox.waiting)
    sys.exit(STOPPED if stopped else 0)


def _stopped_by_parent_alone(stop: Callable[..., None]) -> None:
    """Call `stop` at TERM, which a parent sends, and ignore signals that reach every process: the parent decides."""
    for asked, answer in ((signal.SIGINT, signal.SIG_IGN), (signal.SIGUSR2, signal.SIG_IGN), (signal.SIGTERM, stop)):
        signal.signal(asked, answer)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {asked})


class _Inbox:
    """Orders from the parent.

    waiting: key of each run to compute, and True to retry it. cancelled: keys of runs to save and stop.
    closed: True once the parent is gone. asked: True if room was offered since the last order to compute.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.waiting: deque[tuple[str, bool]] = deque()
        self.cancelled: set[str] = set()
        self.closed = self.asked = False

    def read(self, *, wait: bool = False) -> None:
        """Take in what has come. wait: until something comes."""
        try:
            while not self.closed and (wait or self._connection.poll()):
                name, order = self._connection.recv()
                wait = False
                if order == CANCEL:
                    self.cancelled.add(name)
                else:
                    self.cancelled.discard(name)
                    self.waiting.append((name, order == RETRY))
                    self.asked = False
        except (EOFError, OSError):
            self.closed = True


def _group(member: Member, device: Any) -> contextlib.AbstractContextManager[Any]:
    if member.size == 1:
        return contextlib.nullcontext()
    from harness.core.runtime.distributed import join

    return join(member.meeting, member.rank, member.size, device)


def _send(connection: Connection, message: Event | str) -> None:
    with contextlib.suppress(OSError):  # the parent is gone; the store has the truth
        connection.send(message)
