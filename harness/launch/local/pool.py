"""Pool of worker processes on this machine, one in each slot, reused from run to run."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from harness.launch.executor import PROGRAM, Here, Report
from harness.launch.inline import POLL_SECONDS
from harness.launch.local.worker import CANCEL, COMPUTE, RETRY, STOPPED, Member, serve
from harness.launch.queue import Event, last_line
from harness.launch.resources import Resources
from harness.spec import HarnessError
from harness.store import Store
from harness.store.files import write_atomically

PATIENCE = 7.0
"""Seconds that runs have to save and end when they are asked to."""
MOURNING_SECONDS = 30.0
"""Seconds that the first process of a group has to report the death of another before it is killed."""


def gpus() -> list[str]:
    """CUDA names of the GPUs that this process may use, found without loading torch."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name.strip() and name.strip() != "-1"]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines()) if listed.returncode == 0 else 0
    return [str(index) for index in range(count)]


def default_slots(resources: Resources) -> int:
    """Number of slots: one a GPU (or a group of GPUs for runs of several processes), else as many as the CPUs allow.

    Raises:
        HarnessError: there are fewer GPUs than one run takes.
    """
    processes = resources.processes
    if resources.device != "cpu" and (found := gpus()):
        if len(found) < processes > 1:
            raise HarnessError(f"--processes {processes}: each takes its own GPU, and there are {len(found)} here")
        return len(found) // processes
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, allowed // (resources.threads * processes))


def forked(resources: Resources, found: list[str]) -> bool:
    """True if workers are forked from a process that has loaded torch, which takes 0.05 s instead of seconds.

    Not if they use a GPU, as CUDA cannot be used after a fork; nor outside Linux, where system libraries cannot either.

    Args:
        found: the GPUs of this machine.
    """
    return sys.platform == "linux" and (resources.device == "cpu" or not found)


def start_server(program: str) -> None:
    """Start the fork server unless it runs; it imports `program` with the import path of this process."""
    found = {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path), "PYTHONSAFEPATH": "1"}
    kept = {name: os.environ.pop(name, None) for name in found}
    os.environ.update(found)
    try:
        forkserver.set_forkserver_preload([program])
        forkserver.ensure_running()
    finally:
        for name, value in kept.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value


class Worker:
    """One slot: a process that computes runs in turns, or a group that computes one. Rank 0 sends the events.

    Attributes:
        names: keys of runs that it was given and that have not ended. room: True if it may be given another.
    """

    def __init__(self, slot: int, root: Path, resources: Resources, *, program: str = PROGRAM) -> None:
        self.slot, self._root, self._resources, self._program = slot, root, resources, program
        self.names: list[str] = []
        self._start()

    @property
    def connection(self) -> Connection:
        """Connection to rank 0, which sends the events."""
        return self._connections[0]

    @property
    def process(self) -> BaseProcess:
        """Rank 0."""
        return self.processes[0]

    @property
    def followers(self) -> list[BaseProcess]:
        """The other ranks."""
        return self.processes[1:]

    def _start(self) -> None:
        # Groups meet in the store, before there is an attempt, and stay together from run to run. The dot keeps the
        # file out of the list of runs.
        self._meeting = self._root / f".group-{uuid.uuid4().hex[:8]}"
        self._lost_since: float | None = None
        self._cancelled: set[str] = set()
        self.room = True
        self._asked = False
        self._connections: list[Connection] = []
        self.processes: list[BaseProcess] = []
        for rank in range(self._resources.processes):
            self._spawn(rank)

    def _spawn(self, rank: int) -> None:
        found, size = gpus(), self._resources.processes
        fork = forked(self._resources, found)
        context = multiprocessing.get_context("forkserver") if fork else multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        gpu = found[(self.slot * size + rank) % len(found)] if found else None
        member = Member(self._meeting, rank, size, gpu)
        target = (theirs, self._root, self._resources, member, self._program, dict(os.environ))
        # No daemon: those may not have loader processes. It ends by itself when this process does.
        name = f"slot {self.slot}" + (f" rank {rank}" if rank else "")
        process: BaseProcess = context.Process(target=serve, args=target, daemon=False, name=name)
        held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})  # Slurm sends it to every process of a job
        resource_tracker.ensure_running()  # else starting the process starts it, which lets the signal through again
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the new process can ignore it
        try:
            if fork:  # the server holds back what is held here; so do its forks, until they can answer
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
                start_server(self._program)
            else:
                process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
        if fork:  # waits until the server has loaded everything, so a signal must get through
            process.start()
        theirs.close()
        self._connections.append(ours)
        self.processes.append(process)

    def give(self, name: str, *, retry: bool = False) -> None:
        """Send the key of the next run to all ranks. retry: compute it though it failed."""
        order = RETRY if retry else COMPUTE
        try:
            self._send(name, order)
        except OSError:
            if self.names:  # it died: `receive` will find that, and end these runs
                self.names.append(name)
                return
            self._replace()  # one died while it had nothing to do
            self._send(name, order)
        self.names.append(name)
        self.room = False
        self._cancelled.discard(name)

    def _send(self, name: str, order: str) -> None:
        if not all(process.is_alive() for process in self.followers):
            raise BrokenPipeError
        for connection in reversed(self._connections):  # the first one last: once it has the name, all have
            connection.send((name, order))

    def cancel(self, name: str) -> None:
        """Ask once that a run saves and stops; the others go on."""
        if name not in self._cancelled:
            self._cancelled.add(name)
            with contextlib.suppress(OSError):
                self.connection.send((name, CANCEL))

    def receive(self, store: Store) -> list[Event]:
        """Next event, if any; the death of a process becomes events about its runs, and the group is started again."""
        try:
            message: Event | str = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            events = [_death(store, name, self.process.exitcode) for name in self.names]
            self.names = []
            self._replace()
            return events
        if isinstance(message, str):
            self.room = True
            return []
        if message.kind not in ("started", "line"):
            self.names.remove(message.name)
            self.room = self.room or not self.names
            if self.followers and message.kind != "done":  # the group may be broken
                self._replace()
        return [message]

    def mourn(self) -> None:
        """Kill rank 0 if another rank has died and rank 0 has not reported it within MOURNING_SECONDS.

        A process that waits in a GPU collective does not notice that its partner is gone.
        """
        if not self.names or all(process.is_alive() for process in self.followers):
            return
        self._lost_since = self._lost_since or time.monotonic()
        if time.monotonic() - self._lost_since > MOURNING_SECONDS:
            self.process.kill()

    def _replace(self) -> None:
        self.close()
        self._start()

    def stop(self) -> None:
        """Ask rank 0 once to save its runs and exit; it tells the other ranks."""
        if not self._asked:
            self._asked = True
            self.process.terminate()

    def close(self) -> None:
        """End all processes of the slot."""
        for connection in self._connections:
            connection.close()
        if self.followers:
            for process in self.processes:
                process.kill()
        for process in self.processes:
            process.join()
        self._meeting.unlink(missing_ok=True)


class Local(Here):
    """Worker processes in `slots`, each with one run at a time or several in flight.

    Args:
        slots: runs side by side; None for `default_slots`.
        patience: seconds that runs have to save when they are asked to end; those that take longer are killed, and go
            on from their last checkpoints.
    """

    def __init__(
        self,
        store: Store,
        resources: Resources,
        slots: int | None = None,
        *,
        program: str = PROGRAM,
        patience: float = PATIENCE,
    ) -> None:
        super().__init__(store, resources, program=program)
        self.slots = slots or default_slots(resources)
        self.patience = patience
        self.workers: list[Worker] = []

    def wait(self, report: Report, stopping: Callable[[], bool]) -> None:
        """Give runs to idle workers, and report what happens within POLL_SECONDS."""
        del stopping
        events = self.queue.blocked() + self.queue.look_elsewhere()
        for worker in self.workers:
            for name in self.cancelled.intersection(worker.names):
                worker.cancel(name)
        while (free := self._free()) is not None and (taken := self.queue.take()) is not None:
            self.store.register(self.queue.run(taken))
            free.give(taken, retry=self.queue.retry)
        busy = {worker.connection: worker for worker in self.workers if worker.names}
        ready = wait(list(busy), timeout=POLL_SECONDS) if busy else []
        for worker in busy.values():
            worker.mourn()
        if not busy:
            time.sleep(POLL_SECONDS)
        for connection, worker in busy.items():
            if connection in ready:
                for event in worker.receive(self.store):
                    events += [event, *self.queue.end(event)]
        for event in events:
            report(event)

    def close(self, report: Report) -> None:
        """Have all workers save and end, within `patience` seconds."""
        for worker in self.workers:
            worker.stop()
        try:
            self._await_endings(report, time.monotonic() + self.patience)
        finally:  # also if whoever asked does not want to wait any more
            for worker in self.workers:
                if worker.process.is_alive():
                    worker.process.kill()
                worker.close()
            self.workers = []
            self.queue.interrupt(self.queue.open())

    def _await_endings(self, report: Report, deadline: float) -> None:
        """Report how the runs at work end, until the deadline."""
        for worker in self.workers:
            while worker.names and time.monotonic() < deadline:
                if not worker.connection.poll(POLL_SECONDS):
                    continue
                try:
                    event: Event | str = worker.connection.recv()
                except (EOFError, OSError):
                    break
                if isinstance(event, str):
                    continue
                if event.kind not in ("started", "line"):
                    worker.names.remove(event.name)
                    self.queue.end(event)
                report(event)
            worker.process.join(max(0.0, deadline - time.monotonic()))
            for name in worker.names if worker.process.is_alive() else ():
                text = f"had not saved within {self.patience:g} s: its last checkpoint stays"
                report(Event("interrupted", name, text))

    def _free(self) -> Worker | None:
        """A worker with nothing to do, started if need be, else one with room; None if there is none."""
        free = [worker for worker in self.workers if worker.room]
        if all(worker.names for worker in free) and len(self.workers) < self.slots and self.queue.idle():
            free.append(Worker(len(self.workers), self.store.root, self.resources, program=self.program))
            self.workers.append(free[-1])
        return min(free, key=lambda worker: len(worker.names), default=None)


DEATH = "its process "
"""First words of an error text written for a process that died without one."""


def _cause(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = ", perhaps for lack of memory" if name == "SIGKILL" else ""
        return f"{DEATH}was killed by {name}{hint}"
    return f"{DEATH}ended with exit code {exitcode}"


def _death(store: Store, name: str, exitcode: int | None) -> Event:
    """Ending of a run whose process died, by the state of the run in the store."""
    state = store.state(name)
    if state.word == "done":  # it died between the result and telling so
        return Event("done", name)
    if state.word == "running":  # another process has it
        return Event("elsewhere", name)
    if exitcode in (STOPPED, -signal.SIGTERM):  # asked to stop before it began
        return Event("interrupted", name)
    text = _cause(exitcode)
    if state.word == "interrupted" and (words := store.folder(name).attempt(state.attempt).rank_errors()):
        text = words[0].read_text(errors="replace")
    if state.word == "interrupted":
        with contextlib.suppress(HarnessError):  # a full disk leaves it interrupted
            write_atomically(store.folder(name).attempt(state.attempt).error, text.encode())
    return Event("failed", name, last_line(text))
