"""Coordinator of a search: asks the sampler for cells, submits their runs, tells the sampler the results.

The coordinator has no state of its own. Each pass (`step`) reads the trials from Optuna's storage and the runs from the
store and decides what to do next, so it can be killed at any point and started again. Runs that are at work are left
alone. Runs that nobody works on any more are submitted again and continue from their checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import fmean

import optuna
from optuna.trial import FrozenTrial, TrialState

from harness.launch.executor import Place
from harness.search import trials as noted
from harness.search.declaration import Search
from harness.search.jobs import Jobs
from harness.search.measure import Candidate, Measure, with_starts
from harness.search.pruning import PrunerView
from harness.search.sampling import Proposals, Proposed
from harness.search.space import cell_id, with_axes
from harness.search.trials import first_of_each_cell, fruitless_in_a_row, is_twin
from harness.spec import HarnessError, Run, key
from harness.store import Store

PROMISING = 3
"""A trial is promising if it ranks in the best third so far."""

Places = Mapping[str, Place]


class Coordinator:
    """Search at one scale, driven by repeated calls of `step`.

    Args:
        budget: number of distinct cells to compute, including those of earlier calls.
        parallel: number of cells that may be open at a time.
        say: receives a line on each event.
        check: called before writes that must not happen twice; raises if another process has taken the search over.
    """

    def __init__(
        self,
        study: optuna.Study,
        measure: Measure,
        store: Store,
        jobs: Jobs,
        proposals: Proposals,
        *,
        budget: int,
        parallel: int,
        say: Callable[[str], None] = lambda line: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.study, self._measure, self._store, self._jobs = study, measure, store, jobs
        self._proposals, self._budget, self._parallel = proposals, budget, parallel
        self._say, self._check = say, check
        self._pruner = PrunerView(study, measure, store)
        self._reachable = reachable(proposals, measure)

    @property
    def search(self) -> Search:
        """The declaration of the search."""
        return self._measure.search

    def step(self) -> bool:
        """One pass: tell, prune, ask. Returns True while anything is still to come."""
        self._check()
        self._settle()  # before asking, so that the sampler knows all results
        asked = False
        while self._wants_more():
            self._check()
            self._place(self._proposals.ask(self.study))
            asked = True
        if asked:
            self._settle()  # submits the runs of the new trials in one batch
        return bool(self._trials(TrialState.RUNNING)) or not self.ending()

    def ending(self) -> str:
        """Reason why no further cell is asked for; empty while there is room for one."""
        trials = self._trials()
        # Imported cells and duplicates are free: the budget counts computed cells only.
        if (count := noted.computed(trials)) >= self._budget:
            return f"{count} cells are computed"
        if self._reachable is not None and self._reachable <= set(first_of_each_cell(trials)):
            return "every cell of the space is known"
        if len(row := fruitless_in_a_row(trials)) >= self.search.duplicates:
            reason = row[0].user_attrs.get(noted.EXCLUDED, "")
            return f"none of the last {len(row)} proposals was a new cell that can run" + (
                f": {reason}" if reason else ""
            )
        return ""

    def _wants_more(self) -> bool:
        # A twin needs no computing, so it takes no place among the open cells.
        open_cells = sum(not is_twin(trial) for trial in self._trials(TrialState.RUNNING))
        return open_cells < self._parallel and not self.ending()

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    def _place(self, proposed: Proposed) -> None:
        """Classify a proposal: duplicate of a known cell, excluded, or to be computed."""
        others = [trial for trial in self._trials() if trial.number != proposed.number]
        if (twin := first_of_each_cell(others).get(cell_id(proposed.cell))) is not None:
            proposed.note({noted.TWIN: twin.number})
            self._follow(self._trials()[proposed.number], twin)
            return
        seeds = self._measure.seed_range(self.search.seeds)
        candidate = self._measure.candidate(proposed.cell, seeds) if not proposed.excluded else None
        if candidate is None or candidate.excluded:
            reason = candidate.excluded if candidate is not None else proposed.excluded
            proposed.note({noted.EXCLUDED: reason})
            # Optuna has no state for a cell that cannot run. PRUNED rather than FAIL: TPE counts it among the bad
            # cells, and so learns to avoid such ones.
            self._tell(self._trials()[proposed.number], TrialState.PRUNED, f"excluded: {reason}")
            return
        # Runs may have come into the store since finished ones were imported, from another study.
        missing = [run for run in self._measure.wanted(candidate) if self._store.result(key(run)) is None]
        proposed.note({noted.COMPUTED: bool(missing), noted.IMPORTED: not missing})
        self._say(f"trial {proposed.number} asked: {with_axes(proposed.cell)}")

    def _follow(self, trial: FrozenTrial, twin: FrozenTrial) -> None:
        """Give a duplicate the values and the state of its twin, once that has ended."""
        if not twin.state.is_finished():
            return
        for step, value in twin.intermediate_values.items():
            noted.note_value(self.study, trial, step, value)
        values = list(twin.values or ()) if twin.state is TrialState.COMPLETE else None
        self.study.tell(trial.number, values, state=twin.state)

    def _settle(self) -> None:
        """Tell the trials that have ended, and submit the runs that are missing."""
        for trial in self._trials(TrialState.RUNNING):
            if trial.user_attrs.get(noted.CELL) is None:  # the coordinator was killed while it asked
                self._place(self._proposals.ask_again(self.study, trial))
        running = self._trials(TrialState.RUNNING)
        candidates = {trial.number: self._candidate(trial) for trial in running if not is_twin(trial)}
        runs = {number: with_starts(self._measure.wanted(candidate)) for number, candidate in candidates.items()}
        rungs = {
            trial.number: self._pruner.runs(trial, candidates[trial.number])
            for trial in running
            if trial.number in candidates
        }
        everything = {name: run for group in (*runs.values(), *rungs.values()) for name, run in group.items()}
        # One question for all trials: on a cluster it costs a call of Slurm.
        places = self._jobs.states(everything) if everything else {}
        missing: dict[str, Run] = {}
        for trial in running:
            if (candidate := candidates.get(trial.number)) is not None:
                # Runs that two cells share must survive when one of these is pruned or fails.
                others = {name for number, group in runs.items() if number != trial.number for name in group}
                missing |= self._advance(trial, candidate, rungs[trial.number], places, others)
        if missing:
            self._check()
            self._jobs.add(missing)
        # Last, and from the storage again: a twin may have ended just now.
        trials = self._trials()
        for trial in trials:
            if trial.state is TrialState.RUNNING and is_twin(trial):
                self._follow(trial, trials[trial.user_attrs[noted.TWIN]])

    def _candidate(self, trial: FrozenTrial) -> Candidate:
        """Cell of a trial at its number of seeds, which is higher for a promising one."""
        seeds = trial.user_attrs.get(noted.SEEDS, self.search.seeds)
        return self._measure.candidate(trial.user_attrs[noted.CELL], self._measure.seed_range(seeds))

    def _advance(
        self, trial: FrozenTrial, candidate: Candidate, rungs: Mapping[str, Run], places: Places, others: set[str]
    ) -> dict[str, Run]:
        """Advance one open trial as far as its finished runs allow; returns the runs to submit for it.

        Args:
            rungs: evaluations of snapshots for the pruner. others: keys that other open trials need.
        """
        hopeless = self._pruner.judge(trial, candidate)
        wanted = self._measure.wanted(candidate)
        undone = [run for run in wanted if places[key(run)].word != "done"]
        if not undone:
            return self._finish(trial, candidate)
        needed = with_starts(undone)
        if failed := [name for name in needed if places[name].word == "failed"]:
            self._jobs.drop(_own(needed | dict(rungs), others))
            self._fail(trial, places[failed[0]].detail)
            return {}
        if hopeless:
            self._jobs.drop(_own(needed | dict(rungs), others))
            self._tell(trial, TrialState.PRUNED, "pruned")
            return {}
        if any(places[name].word == "interrupted" for name in needed):
            # Before the runs are submitted: a pre-training reads the requests when it begins.
            self._pruner.request(candidate)
        else:
            needed = {}
        return needed | {name: run for name, run in rungs.items() if places[name].word == "interrupted"}

    def _finish(self, trial: FrozenTrial, candidate: Candidate) -> dict[str, Run]:
        """Tell a trial whose evaluations are done, unless it is promising and gets more seeds.

        Returns:
            Runs of the further seeds, by key.
        """
        try:
            per_seed = self._measure.values(candidate, self._store)
        except HarnessError as error:
            self._fail(trial, str(error))
            return {}
        values = [fmean(of_seeds) for of_seeds in per_seed]
        # Optuna refuses NaN, and an infinite value would spoil the model of a sampler.
        if not all(map(math.isfinite, values)):
            self._fail(trial, f"its value is {values}")
            return {}
        most = self.search.most_seeds
        # A trial whose runs the store had costs nothing, and gets no further seeds either.
        if len(candidate.rows) < most and trial.user_attrs.get(noted.COMPUTED) and self._promising(values[0]):
            noted.set_attribute(self.study, trial, noted.SEEDS, most)
            self._say(f"trial {trial.number} is promising: {most} seeds")
            more = self._measure.candidate(candidate.cell, self._measure.seed_range(most))
            self._pruner.request(more)
            return with_starts([run for run in self._measure.wanted(more) if self._store.result(key(run)) is None])
        noted.set_attribute(self.study, trial, noted.PER_SEED, per_seed)
        self.study.tell(trial.number, values)
        self._say(f"trial {trial.number} told: {', '.join(f'{value:.4g}' for value in values)}")
        return {}

    def _promising(self, value: float) -> bool:
        """True if a value ranks in the best third of it and the complete trials; the best one always does."""
        told = [t.value for t in self._trials(TrialState.COMPLETE) if not is_twin(t) and t.value is not None]
        sign = 1 if self.search.directions[0] == "maximize" else -1
        better = sum(sign * other > sign * value for other in told)
        # Its own place counts among the ranked ones, so that the first trial is promising.
        return better * PROMISING < len(told) + 1

    def _fail(self, trial: FrozenTrial, reason: str) -> None:
        """Tell a trial as failed, with its reason."""
        noted.set_attribute(self.study, trial, noted.ERROR, reason)
        self._tell(trial, TrialState.FAIL, f"failed: {reason}")

    def _tell(self, trial: FrozenTrial, state: TrialState, text: str) -> None:
        """Tell a trial without values, and say so in a line."""
        self.study.tell(trial.number, state=state)
        self._say(f"trial {trial.number} {text}")


def _own(runs: Mapping[str, Run], others: set[str]) -> dict[str, Run]:
    """Runs that no other open trial needs; only these may be stopped."""
    return {name: run for name, run in runs.items() if name not in others}


def reachable(proposals: Proposals, measure: Measure) -> set[str] | None:
    """Ids of the cells of a finite space that can run at this scale; None for an endless space."""
    points = proposals.space.points
    if points is None:
        return None
    seeds = measure.seed_range(measure.search.seeds)
    return {
        cell_id(point.cell)
        for point in points
        if not point.excluded and not measure.candidate(point.cell, seeds).excluded
    }
