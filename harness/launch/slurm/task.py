"""Program of a Slurm job: computes the runs of one array element, side by side in its slots.

Or one by one in all its processes: srun starts them on all nodes, and each takes its rows of every batch.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, cast

from harness.launch.executor import drive
from harness.launch.flight import redirect
from harness.launch.local.pool import Local, gpus
from harness.launch.queue import Ending, Event, has_start
from harness.launch.resources import Resources
from harness.spec import Run
from harness.store import Attempt, Store
from harness.store.files import write_atomically
from harness.store.submissions import Entry, Submissions

CANCEL_SECONDS = 5.0
SAVING_SECONDS = 60.0
"""Seconds that runs have to save at the end of a job's time."""


@dataclass(frozen=True)
class Task:
    """One array element, named by its place in the store's submission log.

    Nothing else is pickled, so code edits, upgrades and requeues between submission and start do it no harm.
    """

    store: str
    entry: int
    array: int
    element: int

    def __call__(self) -> str:
        compute(Store(Path(self.store)), self.entry, self.array, self.element)
        return self.store

    def checkpoint(self) -> Any:
        """Asked for by submitit at a signal before `compute` has its own handlers: begin again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def compute(store: Store, number: int, array: int, element: int) -> None:
    """Compute the runs of one element; ends the process with 1 if none of them could be done.

    A run that fails leaves the others alone; so an element of several ends with 0 as long as one is done, and who
    depends on it looks at the results itself. Told to stop by USR2 (time limit, pre-emption), the runs save and the job
    asks to be queued again; by TERM alone, they save and Slurm decides.
    """
    stop = _Stop()
    open_to_group(store.root)
    log = Submissions(store.root)
    entry = log.read(number)
    stage = entry.arrays[array].stage
    settings = entry.settings[stage]
    resources = Resources(**settings["resources"])
    retry, cancelled = bool(entry.settings.get("retry")), _Cancelled(log, entry)
    note = log.folder(number).stopped(array, element)
    if rank() == 0:
        note.unlink(missing_ok=True)  # of the time before it was queued again

    def report(event: Event) -> None:
        _print(event)
        if event.kind == "interrupted":  # noted at once: a group of processes may end before this function does
            write_atomically(note, f"{stop.reason or event.text}\n".encode())

    def wanted() -> dict[str, Run]:
        return _wanted(store, entry, entry.arrays[array].elements[element], settings["attempts"])

    endings: dict[str, Ending]
    if resources.processes > 1:
        place = os.environ.get("SLURM_JOB_ID", ""), os.environ.get("SLURM_RESTART_COUNT", "0")
        meeting = log.folder(number).jobs(array) / f"meeting-{'-'.join(place)}"
        endings = compute_together(
            wanted, store, resources, meeting, retry=retry, report=report, stopping=stop, unwanted=cancelled
        )
        if rank():
            return  # the first process notes, queues again and ends for all
    else:
        local = Local(store, resources, settings["slots"], program=settings["program"], patience=SAVING_SECONDS)
        endings = compute_in_slots(local, wanted(), retry=retry, report=report, stopping=stop, unwanted=cancelled)
    left = [name for name, ending in endings.items() if ending == "interrupted"]
    if left and not note.exists():
        write_atomically(note, f"{stop.reason or 'what it starts from is not done'}\n".encode())
    if stop.reason and left:
        _note(store, left, stop.reason)
        if stop.requeue and requeue():
            time.sleep(60)  # Slurm ends this job to queue it again
        sys.exit(1)
    if not any(store.result(name) for name in entry.arrays[array].elements[element]):
        sys.exit(1)


def rank() -> int:
    """This process's number among those that srun started."""
    return int(os.environ.get("SLURM_PROCID", "0"))


def compute_in_slots(
    local: Local,
    runs: dict[str, Run],
    *,
    retry: bool,
    report: Callable[[Event], None],
    stopping: Callable[[], bool],
    unwanted: Callable[[str], bool],
) -> dict[str, Ending]:
    """Compute runs in the slots of this job; returns how each ended."""
    local.submit(runs, retry=retry)

    def give_up() -> bool:
        local.cancel({name: runs[name] for name in local.queue.open() if unwanted(name)})
        return False

    drive(local, report, stopping=stopping, feed=give_up)
    return {name: local.queue.endings[name] for name in runs}


def compute_together(
    wanted: Callable[[], dict[str, Run]],
    store: Store,
    resources: Resources,
    meeting: Path,
    *,
    retry: bool,
    report: Callable[[Event], None],
    stopping: Callable[[], bool],
    unwanted: Callable[[str], bool],
) -> dict[str, Ending]:
    """Compute runs one after the other, each in all processes of the job.

    Args:
        wanted: the runs that are to be computed; asked on rank 0, which decides for all.
        meeting: a file on the shared disk where the processes meet: node names need not resolve. It lies beside the
            submission rather than in a run's folder, as the group outlives a run and meets before an attempt is owned.

    Returns:
        How each run ended, on every rank.
    """
    local, found = int(os.environ.get("SLURM_LOCALID", "0")), gpus()
    if len(found) > 1:  # one alone: srun has bound this process to its own
        os.environ["CUDA_VISIBLE_DEVICES"] = found[local % len(found)]
    from harness.core.runtime.distributed import join
    from harness.launch.job import prepare, work

    device = prepare(resources)
    endings: dict[str, Ending] = {}
    with join(meeting, rank(), resources.processes, device) as group:
        for name in group.lead(lambda: list(wanted())):
            if group.agree(stopping())[0]:
                endings[name] = "interrupted"
                continue
            if (verdict := group.lead(lambda name=name: _before(name, store, unwanted))) is not None:  # type: ignore[misc]
                endings[name] = verdict
                continue
            ended = work(
                store,
                store.spec(name),
                device,
                resources,
                group=group,
                retry=retry,
                report=report,
                stopping=lambda name=name: stopping() or unwanted(name),
                begin=redirect,
            )
            endings[name] = cast(Ending, ended.kind if group.broken else group.share(ended.kind))
            if rank() == 0:
                report(ended)
            if group.broken:
                os._exit(1)  # at once: those who wait for this process notice by its end
    return endings


def _before(name: str, store: Store, unwanted: Callable[[str], bool]) -> Ending | None:
    """Ending of a run that is not to be begun; None if it is."""
    if unwanted(name):
        return "interrupted"
    return None if has_start(store, store.spec(name)) else "blocked"


def open_to_group(root: Path) -> None:
    """In a store whose folder the group may write, so may everything in it."""
    try:
        shared = root.stat().st_mode & 0o020
    except OSError:
        return
    if shared:
        os.umask(os.umask(0o077) & ~0o070)


def requeue() -> bool:
    """Ask Slurm to queue this job again; False, with a line in the log, where that is not possible from here."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if whole := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{whole}_{os.environ['SLURM_ARRAY_TASK_ID']}"  # one element's own id is that of the whole array
    if shutil.which("scontrol") is None:
        print(
            "there is no scontrol on this node, so the job is not queued again; harness run goes on with it", flush=True
        )
        return False
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"scontrol requeue: {done.stderr.strip()}; harness run goes on with it", flush=True)
    return done.returncode == 0


class _Stop:
    """Notes the signals that ask a job to save: USR2, as it was submitted with, and TERM."""

    def __init__(self) -> None:
        self.reason, self.requeue = "", False
        signal.signal(signal.SIGUSR2, self._note)
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.requeue = self.requeue or number == signal.SIGUSR2
        meaning = "time limit or pre-emption" if number == signal.SIGUSR2 else "cancelled or pre-empted"
        # In a distributed run any process may get the signal first; all agree at the next step.
        self.reason = self.reason or f"{signal.Signals(number).name}: {meaning}"

    def __call__(self) -> bool:
        return bool(self.reason)


class _Cancelled:
    """Tells, as a function of a key, if a run was cancelled after its submission; asks the log every CANCEL_SECONDS."""

    def __init__(self, log: Submissions, entry: Entry) -> None:
        self._log, self._entry, self._read, self._asked = log, entry, entry.number, -CANCEL_SECONDS
        self._names: set[str] = set()

    def __call__(self, name: str) -> bool:
        if time.monotonic() - self._asked >= CANCEL_SECONDS:
            self._asked = time.monotonic()
            for later in self._log.entries(after=self._read, closed=True):
                self._read = later.number
                if later.kind == "cancel":
                    self._names |= set(later.wants)
        return name in self._names


def _wanted(store: Store, entry: Entry, names: Sequence[str], attempts: int) -> dict[str, Run]:
    """The unfinished runs of an element that this job should compute."""
    wanted = {}
    for name in names:
        state = store.state(name)
        if state.word == "failed":
            failed = store.folder(name).attempt(state.attempt).error.stat().st_mtime
            if failed > entry.time:  # in this very job, before it was queued again
                continue
        elif (begun := _begun(store, name)) >= attempts:
            _give_up(store, store.spec(name), begun)
            continue
        wanted[name] = store.spec(name)
    return wanted


def _begun(store: Store, name: str) -> int:
    """Number of attempts at a run since it last failed."""
    count = 0
    for attempt in reversed(store.folder(name).attempts()):
        if attempt.error.exists():
            break
        count += 1
    return count


def _give_up(store: Store, run: Run, begun: int) -> None:
    attempt = store.acquire(run)
    if isinstance(attempt, Attempt):
        reasons = [files.interruption for files in store.folder(attempt.key).attempts()[-begun - 1 :]]
        told = [path.read_text().strip() for path in reasons if path.exists()]
        attempt.fail(f"begun {begun} times without an end ({'; '.join(told) or 'no reason known'}): given up")
        attempt.release()


def _note(store: Store, names: Sequence[str], reason: str) -> None:
    """Record in the latest attempts the reason of their interruption."""
    node = os.environ.get("SLURMD_NODENAME", "")
    for name in names:
        attempts = store.folder(name).attempts()
        if attempts and not attempts[-1].error.exists():  # else not begun in this job
            write_atomically(attempts[-1].interruption, f"{reason}, node {node}\n".encode())


def _print(event: Event) -> None:
    if event.kind != "line":
        print(f"{time.strftime('%H:%M:%S')} {event.name}: {event.kind} {event.text}".rstrip(), flush=True)
