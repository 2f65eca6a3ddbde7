"""What a worker process does: computes the runs that it is sent, alone or with the others of its group."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from harness.launch.queue import Event
from harness.launch.resources import Resources
from harness.store import Attempt, Store

STOPPED = 128 + signal.SIGTERM
"""Exit code of a worker that was asked to stop."""
BROKEN = 70
"""Exit code of a worker that left its group in the middle of a run."""


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
        program: the module whose `prepare` and `work` it calls.
        environment: the variables of the process that starts it; a fork would have those of its server.
    """
    stopped = False

    def stop(*_: Any) -> None:
        nonlocal stopped
        stopped = True
        if not working:
            os._exit(STOPPED)

    working = False
    for asked in (signal.SIGINT, signal.SIGUSR2):  # these reach every process; the parent decides
        signal.signal(asked, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {asked})
    signal.signal(signal.SIGTERM, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.environ.clear()
    os.environ.update(environment)
    if member.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = member.gpu
    computing = importlib.import_module(program)
    device = computing.prepare(resources)
    store = Store(root)
    parent = multiprocessing.parent_process()
    assert parent is not None
    with _group(member, device) as group:
        while not stopped:
            try:
                name, retry = connection.recv()
            except (EOFError, OSError):
                break
            working = True
            ended = computing.work(
                store,
                store.spec(name),
                device,
                resources,
                retry=retry,
                report=lambda event: _send(connection, event),
                stopping=lambda: stopped or not parent.is_alive(),
                begin=redirect,
                **({} if group is None else {"group": group}),
            )
            sys.stdout.flush()
            sys.stderr.flush()
            if member.rank == 0:
                _send(connection, ended)
            working = False
            if group is not None and group.broken:
                os._exit(BROKEN)  # at once: those who wait for this process notice by its end
    sys.exit(STOPPED if stopped else 0)


def _group(member: Member, device: Any) -> contextlib.AbstractContextManager[Any]:
    if member.size == 1:
        return contextlib.nullcontext()
    from harness.core.runtime.distributed import join

    return join(member.meeting, member.rank, member.size, device)


def _send(connection: Connection, event: Event) -> None:
    with contextlib.suppress(OSError):  # the parent is gone; the store has the truth
        connection.send(event)


def redirect(attempt: Attempt) -> None:
    """Send what this process prints from now on to the attempt's log."""
    log = os.open(attempt.files.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
