"""A search from its declaration to its end: opening, importing finished runs, running on an executor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from harness.launch.executor import Executor, Report, drive
from harness.search.confirmation import Confirmation, candidates
from harness.search.coordinator import Coordinator
from harness.search.declaration import Search
from harness.search.jobs import Jobs
from harness.search.measure import Measure
from harness.search.pruning import pruner_of
from harness.search.sampling import Proposals, check_sampler, quiet
from harness.search.space import KnownSpace, cell_id, explore, present
from harness.search.storage import SETTINGS, begin, leased, open_storage, require_held, resume, versions
from harness.search.trials import CELL, IMPORTED, PER_SEED, Trial, first_of_each_cell, plain
from harness.spec import HarnessError, Scalar, Scale, key
from harness.store import Store
from harness.store.layout import SearchFolder, search_folder
from harness.store.lease import Lease
from harness.study.grid import check_alike

Say = Callable[[str], None]


@dataclass(frozen=True)
class Opened:
    """A checked search at one scale. Opening it writes nothing."""

    search: Search
    scale: Scale
    space: KnownSpace
    measure: Measure
    store: Store
    folder: SearchFolder
    url: str | None

    @property
    def name(self) -> str:
        """Name of the search and its scale: the name of its Optuna study."""
        return f"{self.search.name}-{self.scale.name}"


def open_search(
    search: Search, store: Store, *, scale: str | None = None, sampler: str | None = None, url: str | None = None
) -> Opened:
    """Check a search at a scale before any trial.

    Raises:
        HarnessError: the space, a metric, the sampler or the scale is invalid.
    """
    if sampler is not None:
        search = replace(search, sampler=sampler)
    at = search.scale(scale)
    space = explore(search.space)
    check_sampler(search.sampler, space, len(search.metrics))
    known = search.study.cells if search.study is not None else ()
    # Values that differ only in their type (1, 1.0 and "1") look equal in tables, but are different runs.
    check_alike([search.reference, *known, *(point.cell for point in space.points or ())])
    axes = (*space.axes, *(search.study.grid.axes if search.study is not None else ()))
    measure = Measure(search, at, axes)
    quiet()
    folder = search_folder(store.root, f"{search.name}-{at.name}")
    return Opened(search, at, space, measure, store, folder, url)


def settings(opened: Opened, seed: int) -> dict[str, Any]:
    """Settings that must not change while a search goes on, as JSON."""
    search, measure = opened.search, opened.measure
    reference = measure.candidate(search.reference, measure.seed_range(1))
    return {
        "space": opened.space.record(),
        # Values of another recipe, cell function or piece of the user's own are of another search.
        "what the reference computes": [key(run) for run in measure.wanted(reference)],
        "metric": list(search.metrics),
        "direction": list(search.directions),
        "sampler": search.sampler,
        # Proposals are a function of seed and history, so another seed would not be the same search.
        "seed": seed,
        "seeds": search.seeds,
        "pruner": search.pruner,
        "rungs": list(measure.rungs),
    }


def history(opened: Opened) -> tuple[list[Trial], optuna.Study]:
    """Trials of the latest version of a search, and its Optuna study. Writes nothing.

    Raises:
        HarnessError: the search was never begun, or its storage cannot be read.
    """
    storage = open_storage(opened.folder, opened.url, writing=False)
    names = versions(storage, opened.name)
    if not names:
        raise HarnessError(f"there is no search {opened.name} yet; the same command without --status begins it")
    study = optuna.load_study(storage=storage, study_name=names[-1])
    return [plain(trial) for trial in study.get_trials(deepcopy=False)], study


def import_finished(study: optuna.Study, earlier: optuna.Study | None, opened: Opened) -> None:
    """Add to a study the cells whose runs are done in the store.

    The search starts informed, and pays for nothing twice. Candidates are all points of a finite space, the cells of
    the search's study, and the trials of an earlier version of the search.
    """
    finished = set(opened.store.keys())
    known = set(first_of_each_cell(study.get_trials(deepcopy=False)))
    for params, cell in _known_points(earlier, opened) if finished else ():
        if (name := cell_id(cell)) not in known:
            # Also where its runs are not done: another point of the same cell has the same runs.
            known.add(name)
            _add_if_finished(study, params, cell, opened, finished)


def _known_points(
    earlier: optuna.Study | None, opened: Opened
) -> Iterator[tuple[dict[str, Any], Mapping[str, Scalar]]]:
    """Parameters and cell of every point that can be known before the search asks."""
    space, search = opened.space, opened.search
    for point in space.points or ():
        if not point.excluded:
            yield point.params, point.cell
    for cell in search.study.cells if search.study is not None else ():
        if (params := space.params_of(cell)) is not None:
            yield params, present(cell)
    for trial in earlier.get_trials(deepcopy=False) if earlier is not None else ():
        if (found := space.cell_of(trial.params)) is not None:
            yield dict(trial.params), found


def _add_if_finished(
    study: optuna.Study, params: dict[str, Any], cell: Mapping[str, Scalar], opened: Opened, finished: set[str]
) -> None:
    """Add a cell as a complete trial if its runs are done. finished: keys of all run folders."""
    measure, store = opened.measure, opened.store
    candidate = measure.candidate(cell, measure.seed_range(measure.search.seeds))
    wanted = {key(run) for run in measure.wanted(candidate)}
    # The set of keys first: reading results of a large grid is slow.
    if candidate.excluded or not wanted <= finished or not all(store.result(name) for name in wanted):
        return
    try:
        per_seed = measure.values(candidate, store)
    except HarnessError:  # a result without the metric: if proposed, the trial fails with that reason
        return
    # The Wilcoxon pruner compares new trials with imported ones too, seed by seed.
    by_seed = {row.seed: value for row, value in zip(candidate.rows, per_seed[0], strict=True)}
    study.add_trial(
        create_trial(
            state=TrialState.COMPLETE,
            params=params,
            distributions=opened.space.distributions_of(params),
            values=[fmean(values) for values in per_seed],
            intermediate_values=by_seed if measure.search.pruner == "wilcoxon" else None,
            user_attrs={CELL: present(cell), IMPORTED: True, PER_SEED: per_seed},
        )
    )


@contextlib.contextmanager
def coordinating(opened: Opened, *, seed: int | None, new: bool) -> Iterator[tuple[optuna.Study, int, Lease]]:
    """Hold a search as its only writer; gives its study with finished runs imported, the sampler's seed, the lease.

    Args:
        seed: seed of the sampler; None for that of the search so far, or 0.
        new: True to begin a new version from the runs in the store.

    Raises:
        HarnessError: another process runs the search, its settings changed, or its storage is corrupt.
    """
    # The lease first: opening for writing repairs the journal, which must have no other writer.
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
            # Its own trials are no candidates for import.
            study, earlier = resume(storage, names[-1], settings(opened, used), pruner), None
        import_finished(study, earlier, opened)
        yield study, used, lease


def run_search(
    opened: Opened,
    executor: Executor,
    *,
    budget: int,
    parallel: int = 1,
    seed: int | None = None,
    new: bool = False,
    confirm: bool = True,
    say: Say = lambda line: None,
    report: Report = lambda event: None,
    stopping: Callable[[], bool] = lambda: False,
) -> str:
    """Run a search until its budget is used, then confirm its best cells.

    Args:
        parallel: number of open cells.

    Returns:
        Reason why the search ended; empty if it was stopped.

    Raises:
        HarnessError: as in `coordinating`, or sbatch refuses.
    """
    with coordinating(opened, seed=seed, new=new) as (study, used, lease):
        jobs = Jobs(executor, opened.store, opened.search.begins)
        coordinator = Coordinator(
            study,
            opened.measure,
            opened.store,
            jobs,
            Proposals(opened.search.sampler, used, opened.space),
            budget=budget,
            parallel=parallel,
            say=say,
            check=lambda: require_held(lease),
        )
        feed = _Feed(opened, coordinator, jobs, say, confirm=confirm)
        drive(executor, report, stopping=stopping, feed=feed)
        return feed.ending


class _Feed:
    """Called by an executor between two passes over its queue: runs the search, then its confirmation.

    Returns True while more runs may come. `ending` is the reason why the search ended, empty before.
    """

    def __init__(self, opened: Opened, coordinator: Coordinator, jobs: Jobs, say: Say, *, confirm: bool) -> None:
        self._opened, self._coordinator, self._jobs, self._say = opened, coordinator, jobs, say
        self._confirm, self.ending = confirm, ""
        self._confirmation: Confirmation | None = None

    def __call__(self) -> bool:
        if not self.ending:  # a search is not reopened while its best cells are confirmed
            if self._coordinator.step():
                return True
            self._end()
        return self._confirmation is not None and self._confirmation.step()

    def _end(self) -> None:
        """Note why the search ended, and prepare its confirmation."""
        self.ending = self._coordinator.ending()
        self._say(f"search ended: {self.ending}")
        if self._confirm:
            trials = [plain(trial) for trial in self._coordinator.study.get_trials(deepcopy=False)]
            fresh = candidates(trials, self._opened.measure)
            self._confirmation = Confirmation(fresh, self._opened.measure, self._opened.store, self._jobs)
            if count := len(self._confirmation.undone()):
                self._say(f"confirming {len(fresh)} cells with fresh seeds: {count} evaluations to compute")
