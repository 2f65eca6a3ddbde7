"""Confirmation: the best cells and the reference, evaluated with seeds that no trial used.

The best of many noisy values is too good by selection; fresh seeds give an unbiased comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.search.declaration import FIRST_FRESH
from harness.search.jobs import Jobs
from harness.search.measure import Candidate, Measure, with_starts
from harness.search.space import cell_id, present
from harness.search.trials import Trial
from harness.spec import Evaluation, Scalar, key
from harness.store import Store


def best(trials: Sequence[Trial], directions: Sequence[str], count: int) -> list[Trial]:
    """Best trials of distinct cells, best first; with several metrics the Pareto front by its first metric."""
    signs = [1.0 if direction == "maximize" else -1.0 for direction in directions]
    # A twin has the values of the cell it repeats, so it would take a cell's place twice.
    complete = [trial for trial in trials if trial.values and trial.twin is None]
    scores = {trial.number: [s * v for s, v in zip(signs, trial.values, strict=True)] for trial in complete}
    if len(signs) > 1:
        complete = [
            trial for trial in complete if not any(_dominates(scores[o.number], scores[trial.number]) for o in complete)
        ]
    complete.sort(key=lambda trial: (-scores[trial.number][0], trial.number))
    return complete[:count]


def _dominates(left: Sequence[float], right: Sequence[float]) -> bool:
    """True if `left` is at least as good in every score and better in one."""
    return list(left) != list(right) and all(a >= b for a, b in zip(left, right, strict=True))


def candidates(trials: Sequence[Trial], measure: Measure) -> list[Candidate]:
    """The reference and the best cells, each with the fresh seeds; excluded cells are left out."""
    search = measure.search
    # The reference comes first, and once also where it is among the best itself.
    cells: dict[str, Mapping[str, Scalar]] = {cell_id(present(search.reference)): search.reference}
    for trial in best(trials, search.directions, search.confirmed):
        cells.setdefault(cell_id(trial.cell), trial.cell)
    seeds = range(FIRST_FRESH, FIRST_FRESH + search.fresh_seeds)
    fresh = [measure.candidate(cell, seeds) for cell in cells.values()]
    return [candidate for candidate in fresh if not candidate.excluded]


class Confirmation:
    """Computes the candidates of a confirmation, in the columns of the search's metrics and of its test number."""

    def __init__(self, fresh: Sequence[Candidate], measure: Measure, store: Store, jobs: Jobs) -> None:
        test = [measure.search.test] if measure.search.test else []
        wanted = [run for each in fresh for run in (*measure.wanted(each), *each.evaluations(test))]
        self._evaluations = list({key(run): run for run in wanted}.values())
        self._store, self._jobs = store, jobs

    def undone(self) -> list[Evaluation]:
        """Evaluations without a result."""
        return [run for run in self._evaluations if self._store.result(key(run)) is None]

    def step(self) -> bool:
        """Submit what is missing; returns True while anything is still to come. Failed runs are left out."""
        if not (undone := self.undone()):
            return False
        places = self._jobs.states(with_starts(undone))

        def failed(run: Evaluation) -> bool:
            return any(places[name].word == "failed" for name in with_starts([run]))

        # A search is over by now: a cell with failed seeds is confirmed by those that are left.
        left = with_starts([run for run in undone if not failed(run)])
        if any(places[name].word == "interrupted" for name in left):
            self._jobs.add(left)
        return bool(left)
