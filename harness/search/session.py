"""A search, opened: the space, the measure, the storage and the study in it; and run on an executor."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import optuna

from harness.launch.inline import run_inline
from harness.launch.local.pool import run_local
from harness.launch.queue import Event
from harness.launch.resources import Resources
from harness.search.confirmation import Confirmation, candidates
from harness.search.coordinator import Coordinator
from harness.search.declaration import Search
from harness.search.imports import import_finished
from harness.search.jobs import Jobs, QueuedJobs, SlurmJobs
from harness.search.measure import Measure
from harness.search.ownership import leased, require_held
from harness.search.proposals import Proposals
from harness.search.samplers import check_sampler, pruner_of, quiet
from harness.search.space import KnownSpace, explore
from harness.search.storage import SETTINGS, begin, open_storage, resume, versions
from harness.search.trials import Trial, plain
from harness.spec import HarnessError, Scale
from harness.store import Store
from harness.store.layout import SearchFolder, search_folder
from harness.store.lease import Lease
from harness.study.grid import check_alike

PASS_SECONDS = 1.0
"""Time between two looks at the store while jobs run on a cluster."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Opened:
    """A search at a scale, checked. Nothing is written yet."""

    search: Search
    scale: Scale
    space: KnownSpace
    measure: Measure
    store: Store
    folder: SearchFolder
    url: str | None

    @property
    def name(self) -> str:
        """The search and its scale, as its study in the storage is called."""
        return f"{self.search.name}-{self.scale.name}"


def open_search(
    search: Search, store: Store, *, scale: str | None = None, sampler: str | None = None, url: str | None = None
) -> Opened:
    """Check a search before anything is asked.

    Raises:
        HarnessError: the space, the metric, the sampler or the scale are refused.
    """
    if sampler is not None:
        search = replace(search, sampler=sampler)
    chosen = search.scale(scale)
    space = explore(search.space)
    check_sampler(search.sampler, space, len(search.metrics))
    known = search.study.cells if search.study is not None else ()
    check_alike([search.reference, *known, *(point.cell for point in space.points or ())])
    axes = (*space.axes, *(search.study.grid.axes if search.study is not None else ()))
    measure = Measure(search, chosen, axes)
    quiet()
    folder = search_folder(store.root, f"{search.name}-{chosen.name}")
    return Opened(search, chosen, space, measure, store, folder, url)


def settings(opened: Opened, seed: int) -> dict[str, Any]:
    """What must not change while a search goes on."""
    search = opened.search
    return {
        "space": opened.space.record(),
        "metric": list(search.metrics),
        "direction": list(search.directions),
        "sampler": search.sampler,
        "seed": seed,
        "seeds": search.seeds,
        "pruner": search.pruner,
        "rungs": list(opened.measure.rungs),
    }


def history(opened: Opened) -> tuple[list[Trial], optuna.Study]:
    """The trials of the latest version of a search, and the study for what only Optuna can tell. Writes nothing.

    Raises:
        HarnessError: it was never begun, or its storage does not read.
    """
    storage = open_storage(opened.folder, opened.url, writing=False)
    names = versions(storage, opened.name)
    if not names:
        raise HarnessError(f"there is no search {opened.name} yet; the same command without --status begins it")
    study = optuna.load_study(storage=storage, study_name=names[-1])
    return [plain(trial) for trial in study.get_trials(deepcopy=False)], study


@contextlib.contextmanager
def coordinating(opened: Opened, *, seed: int | None, new: bool) -> Iterator[tuple[optuna.Study, int, Lease]]:
    """Be the only writer of a search: its study, with what the store has imported, and its seed.

    Args:
        seed: of the sampler; None for the one that the search was begun with, or 0.
        new: begin a new version, from the runs in the store.

    Raises:
        HarnessError: another process runs it, it was begun otherwise, or its storage is corrupt.
    """
    with leased(opened.store, opened.folder) as lease:
        storage = open_storage(opened.folder, opened.url, writing=True)
        names = versions(storage, opened.name)
        pruner, search = pruner_of(opened.search, opened.scale), opened.search
        earlier = optuna.load_study(storage=storage, study_name=names[-1]) if names else None
        if earlier is None or new:
            used = seed or 0
            study = begin(storage, opened.name, search.directions, settings(opened, used), pruner)
        else:
            used = int(earlier.user_attrs.get(SETTINGS, {}).get("seed", 0)) if seed is None else seed
            study, earlier = resume(storage, names[-1], settings(opened, used), pruner), None
        import_finished(study, earlier, opened.measure, opened.space, opened.store)
        yield study, used, lease


@dataclass(frozen=True)
class Executor:
    """Where the runs of a search are computed.

    kind: inline, local or slurm. parallel: cells at a time. jobs: for Slurm. program: as for `run_local`.
    """

    kind: str
    parallel: int
    resources: Resources
    jobs: SlurmJobs | None = None
    program: str = "harness.launch.job"


def run_search(
    opened: Opened,
    executor: Executor,
    *,
    budget: int,
    seed: int | None = None,
    new: bool = False,
    confirm: bool = True,
    say: Say = lambda line: None,
    report: Callable[[Event], None] = lambda event: None,
    stopping: Callable[[], bool] = lambda: False,
) -> str:
    """Run a search until its budget is met, and confirm its best cells; returns why it ended, empty if it was stopped.

    Raises:
        HarnessError: as `coordinating`; or sbatch refuses.
    """
    with coordinating(opened, seed=seed, new=new) as (study, used, lease):
        queued = QueuedJobs(opened.store, opened.search.begins)
        jobs: Jobs = executor.jobs or queued
        coordinator = Coordinator(
            study,
            opened.measure,
            opened.store,
            jobs,
            Proposals(opened.search.sampler, used, opened.space),
            budget=budget,
            parallel=executor.parallel,
            say=say,
            check=lambda: require_held(lease),
        )
        feed = _Feed(opened, coordinator, jobs, say, confirm=confirm)
        _drive(feed, executor, queued, opened, report, stopping)
        return feed.ending


class _Feed:
    """What an executor asks between two looks at its work: the search, and then its confirmation."""

    def __init__(self, opened: Opened, coordinator: Coordinator, jobs: Jobs, say: Say, *, confirm: bool) -> None:
        self._opened, self._coordinator, self._jobs, self._say = opened, coordinator, jobs, say
        self._confirm, self.ending = confirm, ""
        self._confirmation: Confirmation | None = None

    def __call__(self) -> bool:
        if not self._over():
            return True
        if self._confirmation is None:
            return False
        return bool(self._confirmation.step())

    def _over(self) -> bool:
        if self.ending:
            return True
        if self._coordinator.step():
            return False
        self.ending = self._coordinator.ending()
        self._say(f"search ended: {self.ending}")
        if self._confirm:
            trials = [plain(trial) for trial in self._coordinator.study.get_trials(deepcopy=False)]
            chosen = candidates(trials, self._opened.measure)
            self._confirmation = Confirmation(chosen, self._opened.measure, self._opened.store, self._jobs)
            if count := len(self._confirmation.undone()):
                self._say(f"confirming {len(chosen)} cells with fresh seeds: {count} evaluations to compute")
        return True


def _drive(
    feed: Callable[[], bool],
    executor: Executor,
    queued: QueuedJobs,
    opened: Opened,
    report: Callable[[Event], None],
    stopping: Callable[[], bool],
) -> None:
    store, resources = opened.store, executor.resources
    match executor.kind:
        case "slurm":
            while not stopping() and feed():
                time.sleep(PASS_SECONDS)
        case "inline":
            run_inline(
                queued.queue, store, resources, report=report, stopping=stopping, feed=feed, program=executor.program
            )
        case "local":
            run_local(
                queued.queue,
                store,
                resources,
                # One more for rungs, which else would wait for a slot until the pre-training they judge is over.
                executor.parallel + bool(opened.measure.rungs),
                report=report,
                stopping=stopping,
                unwanted=queued.unwanted,
                feed=feed,
                program=executor.program,
            )
        case other:
            raise HarnessError(f"no executor {other!r}; valid: inline, local, slurm")
