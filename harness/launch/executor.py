"""Executors compute runs; commands and searches use all of them by one interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

from harness.launch.queue import Event, Queue, last_line
from harness.launch.resources import Resources
from harness.spec import HarnessError, Run, key
from harness.store import State, StateName, Store
from harness.store.states import failed_upstream

ExecutorName = Literal["inline", "local", "slurm"]

PROGRAM = "harness.launch.job"
"""Module whose `prepare` and `work` compute runs."""
Report = Callable[[Event], None]


@dataclass(frozen=True)
class Place:
    """State of a run. detail: the reason in words. job: id of the live job that is to compute it, if any.

    submissions: how often it was given to a cluster.
    """

    word: StateName
    detail: str
    state: State
    job: str = ""
    submissions: int = 0


@dataclass(frozen=True)
class Overview:
    """States of runs by key. silent: reason why the cluster did not answer, empty if it did."""

    places: dict[str, Place] = field(default_factory=dict)
    silent: str = ""


@dataclass(frozen=True)
class Submitted:
    """Counts of a submission. runs, jobs, arrays: submitted now. left: runs for which the queue had no room.

    waiting: runs that were queued or running before. refused: error of the cluster, empty if there was none.
    """

    runs: int = 0
    jobs: int = 0
    arrays: int = 0
    left: int = 0
    waiting: int = 0
    refused: str = ""


class Executor(Protocol):
    """Computes runs. A cluster does by itself; this machine does while `wait` is called."""

    def submit(self, runs: Mapping[str, Run], *, retry: bool = False) -> Submitted:
        """Take runs with all unfinished ones that they start from; returns at once.

        Done runs and those that wait or are at work are left alone; failed ones too unless `retry`.
        """

    def states(self, runs: Mapping[str, Run]) -> Overview:
        """The state of each run."""

    def cancel(self, runs: Mapping[str, Run]) -> tuple[list[str], list[str]]:
        """Take runs out of the queue, and have those at work save and stop.

        Returns:
            Keys that were cancelled, and keys that were spared because another study waits for them.
        """

    def logs(self, runs: Mapping[str, Run]) -> dict[str, Path]:
        """Files with what was printed outside the attempts of runs, as by the job around them, where there are any."""

    def pending(self) -> bool:
        """True if there are runs that only go on while `wait` is called; a cluster has none."""

    def wait(self, report: Report, stopping: Callable[[], bool]) -> None:
        """Let a moment pass. Runs of this machine go on meanwhile: their events are reported."""

    def close(self, report: Report) -> None:
        """End what this process computes: runs at work save, and count as interrupted with those that wait."""


def open_executor(
    name: str,
    store: Store,
    resources: Resources,
    *,
    study: str,
    project: Path,
    slots: int | None = None,
    program: str = PROGRAM,
) -> Executor:
    """The executor of this name.

    Args:
        study: in whose name runs are queued on a cluster. project: folder whose profile says how.
        slots: runs side by side; None for what suits this machine.

    Raises:
        HarnessError: there is none of this name, or it cannot be used here.
    """
    from harness.launch.inline import Inline
    from harness.launch.local.pool import Local
    from harness.launch.slurm.submit import Slurm

    match name:
        case "inline":
            return Inline(store, resources, program=program)
        case "local":
            return Local(store, resources, slots, program=program)
        case "slurm":
            if resources.processes > 1:
                site = "on Slurm the site profile says nodes and processes_per_node"
                raise HarnessError(f"--processes belongs to --on local; {site}")
            return Slurm.ready(store, resources, study=study, project=project, program=program)
    raise HarnessError(f"no executor {name!r}; valid: inline, local, slurm")


def clusters(store: Store, study: str = "") -> list[Executor]:
    """The executors that may have runs of a store in their queues, to look at and to cancel in the name of a study."""
    from harness.launch.slurm.submit import Slurm

    return [Slurm(store, study)]


def overview(runs: Mapping[str, Run], store: Store) -> Overview:
    """States of runs by the files of the store and by all clusters."""
    seen = [cluster.states(runs) for cluster in clusters(store)]
    # A cluster that does not know a run says what the files say.
    places = {
        name: max((one.places[name] for one in seen), key=lambda place: (bool(place.job), place.submissions))
        for name in runs
    }
    return Overview(places, "; ".join(one.silent for one in seen if one.silent))


def drive(
    executor: Executor,
    report: Report = lambda event: None,
    *,
    stopping: Callable[[], bool] = lambda: False,
    feed: Callable[[], bool] = lambda: False,
) -> None:
    """Wait until an executor has computed what it was given, or until `stopping`, whereupon its runs save and end.

    Args:
        feed: called in every turn; may submit runs; returns whether more may come.
    """
    try:
        while (feed() or executor.pending()) and not stopping():
            executor.wait(report, stopping)
    finally:
        executor.close(report)


class Here:
    """Base of the executors of this machine: a queue that lives as long as this process. Runs go on after one fails."""

    def __init__(self, store: Store, resources: Resources, *, program: str = PROGRAM) -> None:
        self.store, self.resources, self.program = store, resources, program
        self.queue = Queue({}, store)
        self.cancelled: set[str] = set()

    def submit(self, runs: Mapping[str, Run], *, retry: bool = False) -> Submitted:
        """Add runs to the queue; nothing is computed yet."""
        before, self.queue.retry = len(self.queue), retry
        self.cancelled -= set(runs)
        self.queue.add(runs)
        return Submitted(runs=len(self.queue) - before, waiting=before)

    def states(self, runs: Mapping[str, Run]) -> Overview:
        """States by the files of the store, and by the queue."""
        waiting, places = set(self.queue.open()), from_files(self.store.states(runs))
        for name in waiting & set(runs):
            if places[name].word not in ("done", "running"):  # begun again: an error is that of an earlier attempt
                places[name] = Place("queued", "", places[name].state)
        return Overview(with_blocked(runs, places, self.store))

    def cancel(self, runs: Mapping[str, Run]) -> tuple[list[str], list[str]]:
        """Take runs out of the queue; those at work save and stop at the next `wait`."""
        chosen = set(runs) & set(self.queue.open())
        self.cancelled |= chosen
        self.queue.interrupt(chosen & set(self.queue.idle()))
        return sorted(chosen), []

    def logs(self, runs: Mapping[str, Run]) -> dict[str, Path]:
        """No files: all that is printed is in the attempts."""
        del runs
        return {}

    def pending(self) -> bool:
        """True if a run has not ended."""
        return bool(len(self.queue))


def from_files(states: Mapping[str, State]) -> dict[str, Place]:
    """Places of runs by their files alone."""
    return {name: Place(state.word, _detail(state), state) for name, state in states.items()}


def _detail(state: State) -> str:
    if state.word != "interrupted":
        return last_line(state.error)
    return f"harness run {'goes on from its last checkpoint' if state.saved else 'begins it again: nothing was saved'}"


def with_blocked(runs: Mapping[str, Run], places: dict[str, Place], store: Store) -> dict[str, Place]:
    """The same places, but `blocked` where a run waits for one that failed."""
    found = dict(places)
    for name, run in runs.items():
        failed = failed_upstream(run, lambda other: found[other].word if other in found else store.state(other).word)
        if failed is not None:
            found[name] = replace(found[name], word="blocked", detail=f"waits for {key(failed)}, which failed")
    return found
