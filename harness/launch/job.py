"""Runs, computed here. The only module of launch that loads torch."""

from __future__ import annotations

import os
import resource
import time
import traceback
from collections.abc import Callable, Generator
from typing import Any

import torch

from harness.core.runtime.distributed import Group, LeaderLeft
from harness.core.runtime.session import Diverged, Interrupted, Ready, Session
from harness.core.runtime.shared_attempt import SharedAttempt
from harness.launch import provenance
from harness.launch.queue import Ending, Event, last_line
from harness.launch.resources import Resources, free_memory
from harness.machine import kernel_cache
from harness.runs import compute_in_turns
from harness.spec import HarnessError, Run, key
from harness.store import Attempt, State, Store, Superseded
from harness.store.files import leaves_interrupted

SPARE = 1.2
"""Memory that has to be free before another run begins, as a multiple of what a run took so far."""
WORD_SECONDS = 10.0
"""Longest wait of rank 0 for the traceback of another process that is gone."""


def prepare(resources: Resources) -> torch.device:
    """Set up torch in this process and return the device that runs use.

    Raises:
        HarnessError: a GPU, or what only a GPU has, was asked for and there is none.
    """
    torch.set_num_threads(resources.threads)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(kernel_cache()))
    found = torch.cuda.is_available()
    if resources.device == "cuda" and not found:
        raise HarnessError("--device cuda: torch sees no GPU here")
    if resources.capture == "on" and not (found and resources.device != "cpu"):
        raise HarnessError("--capture on: only a GPU has graphs of steps; leave it out")
    if found and resources.device != "cpu":
        if resources.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(mode=True)
        return torch.device("cuda")
    return torch.device("cpu")


def work(store: Store, run: Run, device: torch.device, resources: Resources, **how: Any) -> Event:
    """Compute one run, or find out why not; returns how it ended. The arguments are those of `work_in_turns`."""
    turns = work_in_turns(store, run, device, resources, **how)
    while True:
        try:
            next(turns)
        except StopIteration as ended:
            last: Event = ended.value
            return last


def work_in_turns(
    store: Store,
    run: Run,
    device: torch.device,
    resources: Resources,
    *,
    group: Group | None = None,
    retry: bool = False,
    report: Callable[[Event], None],
    stopping: Callable[[], bool] = lambda: False,
    begin: Callable[[Attempt], None] = lambda attempt: None,
) -> Generator[Ready, None, Event]:
    """`work` as a generator, which hands over where the run would wait for the device; returns how it ended.

    Several processes compute a run together if all of them call this with the same run, resources and retry, each with
    its device, and with the group that they have joined; the next run can follow in the same group:

        with join(file, rank, size, device) as group:
            for run in runs:
                work(store, run, device, resources, group=group, report=report, stopping=stopping)
                if group.broken:
                    break

    Rank 0 owns the run, writes and reports; what the others return can be ignored. A signal to stop may reach any rank.
    When a process leaves in the middle, by an exception or by its death, rank 0 fails the run with that process's
    traceback, and the group is broken: all its processes then have to end, as only that tells those who wait for them.

    Args:
        group: the processes that compute the run; None for this one alone.
        begin: called with the attempt as soon as it is owned.
    """
    group = group or Group()
    if group.rank:
        report = _silent
    try:
        attempt = _acquire(store, run, group, retry=retry)
    except HarnessError as error:
        return Event("interrupted" if leaves_interrupted(error) else "failed", key(run), str(error))
    except LeaderLeft as left:
        return Event("failed", key(run), str(left))
    if not isinstance(attempt, Attempt):
        ending: dict[str, Ending] = {"done": "done", "running": "elsewhere", "failed": "failed"}
        return Event(ending[attempt.word], store.register(run), last_line(attempt.error))
    session = _session(attempt, device, resources, group, report, stopping)
    try:
        begin(attempt)
        attempt.alone = group.size == 1 and resources.in_flight == 1
        attempt.write_environment(_environment(device, resources, group), provenance.repository()[1])
        report(Event("started", attempt.key))
        yield from compute_in_turns(run, session)
    except Exception as error:
        return _stopped_by(error, attempt, group)
    finally:
        attempt.release()
    return Event("done", attempt.key)


def _session(
    attempt: Attempt,
    device: torch.device,
    resources: Resources,
    group: Group,
    report: Callable[[Event], None],
    stopping: Callable[[], bool],
) -> Session:
    """The resources as a recipe finds them."""
    gpu = device.type == "cuda"
    compiled = resources.compiled(attempt.run, gpu=gpu)
    return Session(
        attempt,
        device,
        workers=resources.workers,
        micro_batch=resources.micro_batch,
        checkpoint_seconds=resources.checkpoint_seconds,
        report=lambda values: report(Event("line", attempt.key, line=values)),
        stopping=_noting_first_step(attempt, stopping) if compiled else stopping,
        group=group,
        compile=compiled,
        capture=resources.captured(gpu=gpu),
        shares=resources.in_flight > 1,
        recompute=resources.recompute,
    )


def _noting_first_step(attempt: Attempt, stopping: Callable[[], bool]) -> Callable[[], bool]:
    """`stopping`, which a loop asks after each step. The first time it also records the seconds until then.

    All but a few of them are spent compiling.
    """
    begun, noted = time.monotonic(), False

    def stop() -> bool:
        nonlocal noted
        if not noted:
            attempt.note({"first_step_seconds": round(time.monotonic() - begun, 1)})
            noted = True
        return stopping()

    return stop


def room(device: torch.device, most: int) -> bool:
    """True if there is memory for another run as large as those in flight.

    Args:
        most: largest number of runs that this process has had in flight; its peak of memory was for so many.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        peak, free = torch.cuda.max_memory_reserved(device), float(torch.cuda.mem_get_info(device)[0] + unused)
    else:  # with what all runs share, so rather too much
        peak, free = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, free_memory()
    return free > SPARE * peak / most


def _silent(event: Event) -> None:
    del event


def _acquire(store: Store, run: Run, group: Group, *, retry: bool) -> Attempt | State:
    """Attempt or state from `Store.acquire`, called by rank 0 alone; all ranks get an attempt that they call alike."""
    if group.size == 1:
        return store.acquire(run, retry=retry)
    own: Attempt | None = None

    def acquire() -> int | State:
        nonlocal own
        found = store.acquire(run, retry=retry)
        if isinstance(found, State):
            return found
        own = found
        return found.files.number

    found = group.lead(acquire)
    if isinstance(found, State):
        return found
    return SharedAttempt(store, run, store.folder(key(run)).attempt(found), group, own)


def _environment(device: torch.device, resources: Resources, group: Group) -> dict[str, Any]:
    shown = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    facts = {"processes": group.size, "in_flight": resources.in_flight}
    if resources.recompute:
        facts["recompute"] = True
    return provenance.environment(shown, resources.threads) | facts


def _stopped_by(error: Exception, attempt: Attempt, group: Group) -> Event:
    """Ending of a run that an exception stopped, called while it is handled; a failure is recorded in the attempt.

    After an interruption that all processes agreed on, their group goes on with the next run; else it is broken.
    """
    name = attempt.key
    if isinstance(error, Interrupted):
        return Event("interrupted", name, str(error))
    group.broken = group.size > 1
    if isinstance(error, Superseded | LeaderLeft):
        return Event("elsewhere", name, str(error))
    if leaves_interrupted(error):
        return Event("interrupted", name, last_line(str(error)))
    text = _text(error, attempt, group)
    try:
        if not (group.rank and _lost_another(error)):  # the one that was lost leaves word itself
            attempt.fail(text)
    except Superseded as lost:
        return Event("elsewhere", name, str(lost))
    return Event("failed", name, last_line(text))


def _text(error: Exception, attempt: Attempt, group: Group) -> str:
    """Text recorded for a failure: that of the process in which it began."""
    plain = isinstance(error, HarnessError | Diverged)  # these say all there is to say
    text = f"{type(error).__name__}: {error}" if plain else traceback.format_exc()
    if group.rank or not (group.size > 1 and _lost_another(error)):
        return text
    deadline = time.monotonic() + WORD_SECONDS
    while not (words := attempt.files.rank_errors()) and time.monotonic() < deadline:
        time.sleep(0.1)
    if words:
        return words[0].read_text(errors="replace")
    return f"{text}\nanother of the {group.size} processes ended without a word, perhaps killed for lack of memory"


def _lost_another(error: Exception) -> bool:
    """True if an exception is torch's for a failed message to another process."""
    known = ("gloo", "Connection closed by peer", "Connection reset", "NCCL", "ProcessGroup")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in known)
