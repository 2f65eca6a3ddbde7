"""Runs in worker processes of this machine: a slot each, reused from run to run."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from harness.launch.inline import POLL_SECONDS
from harness.launch.queue import Event, Queue
from harness.launch.resources import Resources
from harness.spec import HarnessError
from harness.store import Attempt, Store
from harness.store.files import write_atomically

STOP_SECONDS = 60.0
STOPPED = 128 + signal.SIGTERM
"""Exit code of a worker that was asked to stop."""


def gpus() -> list[str]:
    """The GPUs this process may use, as CUDA names them, found without loading torch."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name.strip() and name.strip() != "-1"]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines()) if listed.returncode == 0 else 0
    return [str(index) for index in range(count)]


def default_slots(resources: Resources) -> int:
    """One slot a GPU, or as many as the CPUs allow."""
    if resources.device != "cpu" and (found := gpus()):
        return len(found)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, allowed // resources.threads)


class Worker:
    """One slot: a process that computes the runs it is sent, one at a time."""

    def __init__(self, slot: int, root: Path, resources: Resources, *, retry: bool, program: str) -> None:
        self.slot, self._arguments = slot, (root, resources, retry, program)
        self.name: str | None = None
        self.stopped = False
        self.connection: Connection
        self.process: BaseProcess
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        found = gpus()
        gpu = found[self.slot % len(found)] if found else None
        target = (theirs, *self._arguments, gpu, os.getpid())
        # No daemon: those may not have loader processes. It ends by itself when this process does.
        self.process = context.Process(target=_serve, args=target, daemon=False, name=f"slot {self.slot}")
        held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})  # Slurm sends it to every process of a job
        resource_tracker.ensure_running()  # else starting the process starts it, which lets the signal through again
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the new process can ignore it
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
        theirs.close()

    def give(self, name: str) -> None:
        """Have the run of this key computed."""
        self.name = name
        if self.stopped:
            self._replace()
        try:
            self.connection.send(name)
        except OSError:  # it died while it had nothing to do
            self._replace()
            self.connection.send(name)

    def receive(self, store: Store) -> Event:
        """The next event; a process that died becomes the failure of its run, and is replaced."""
        try:
            event: Event = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            event = _death(store, self.name or "", self.process.exitcode)
            self._replace()
        if event.kind not in ("started", "line"):
            self.name = None
        return event

    def _replace(self) -> None:
        self.connection.close()
        self.process.join()
        self._start()
        self.stopped = False

    def stop(self) -> None:
        """Ask the run to save and end, and the process with it; another one takes the next run."""
        self.stopped = True
        self.process.terminate()


def run_local(
    queue: Queue,
    store: Store,
    resources: Resources,
    slots: int,
    *,
    report: Callable[[Event], None],
    stopping: Callable[[], bool] = lambda: False,
    unwanted: Callable[[str], bool] = lambda name: False,
    program: str = "harness.launch.job",
) -> None:
    """Compute what is to be computed in `slots` processes. A failed run, or a process that dies, leaves the others

    running. When `stopping` turns true, the runs save a checkpoint and end.

    Args:
        unwanted: whether a run was cancelled; one at work saves and ends, one that waits is not begun.
        program: the module whose `prepare` and `work` the processes call.
    """
    for event in queue.blocked():
        report(event)
    if not len(queue):
        return
    workers = [
        Worker(slot, store.root, resources, retry=queue.retry, program=program)
        for slot in range(min(slots, len(queue)))
    ]
    try:
        while len(queue) and not stopping():
            queue.interrupt(name for name in queue.idle() if unwanted(name))
            for worker in workers:
                if worker.name is not None and unwanted(worker.name):
                    worker.stop()
                if worker.name is None and (name := queue.take()) is not None:
                    store.register(queue.run(name))
                    worker.give(name)
            _pass_on(workers, queue, store, report)
    finally:
        _end(workers, queue, store, report)


def _pass_on(workers: list[Worker], queue: Queue, store: Store, report: Callable[[Event], None]) -> None:
    busy = {worker.connection: worker for worker in workers if worker.name}
    events = queue.look_elsewhere()
    ready = wait(list(busy), timeout=POLL_SECONDS) if busy else []
    if not busy:
        time.sleep(POLL_SECONDS)
    for connection, worker in busy.items():
        if connection in ready:
            event = worker.receive(store)
            events += [event, *queue.end(event)]
    for event in events:
        report(event)


def _end(workers: list[Worker], queue: Queue, store: Store, report: Callable[[Event], None]) -> None:
    for worker in workers:
        worker.stop()
    deadline = time.monotonic() + STOP_SECONDS
    for worker in workers:
        while worker.name and time.monotonic() < deadline:
            if not worker.connection.poll(POLL_SECONDS):
                continue
            try:
                event: Event = worker.connection.recv()
            except (EOFError, OSError):
                break
            if event.kind not in ("started", "line"):
                worker.name = None
                queue.end(event)
            report(event)
        worker.process.join(max(0.0, deadline - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
        worker.connection.close()
    queue.interrupt(queue.open())


def _cause(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = ", perhaps for lack of memory" if name == "SIGKILL" else ""
        return f"its process was killed by {name}{hint}"
    return f"its process ended with exit code {exitcode}"


def _death(store: Store, name: str, exitcode: int | None) -> Event:
    """What the death of the process that was given a run means for that run, by what the store says."""
    state = store.state(name)
    if state.word == "done":  # it died between the result and telling so
        return Event("done", name)
    if state.word == "running":  # another process has it
        return Event("elsewhere", name)
    if exitcode in (STOPPED, -signal.SIGTERM):  # asked to stop before it began
        return Event("interrupted", name)
    text = _cause(exitcode)
    if state.word == "lost":
        with contextlib.suppress(HarnessError):  # a full disk leaves it lost
            write_atomically(store.folder(name).attempt(state.attempt).error, text.encode())
    return Event("failed", name, text)


def _serve(
    connection: Connection, root: Path, resources: Resources, retry: bool, program: str, gpu: str | None, parent: int
) -> None:
    """The main function of a worker process."""
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
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    computing = importlib.import_module(program)
    device = computing.prepare(resources)
    store = Store(root)
    while not stopped:
        try:
            name = connection.recv()
        except (EOFError, OSError):
            return
        working = True
        ended = computing.work(
            store,
            store.spec(name),
            device,
            resources,
            retry=retry,
            report=lambda event: _send(connection, event),
            stopping=lambda: stopped or os.getppid() != parent,
            begin=_redirect,
        )
        sys.stdout.flush()
        sys.stderr.flush()
        _send(connection, ended)
        working = False
    sys.exit(STOPPED)


def _send(connection: Connection, event: Event) -> None:
    with contextlib.suppress(OSError):  # the parent is gone; the store has the truth
        connection.send(event)


def _redirect(attempt: Attempt) -> None:
    """Send what this process prints from now on to the attempt's log."""
    log = os.open(attempt.files.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
