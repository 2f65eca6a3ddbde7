"""Rungs: snapshots of a pre-training on its way, evaluated so that a pruner can compare trials."""

from __future__ import annotations

import optuna
from optuna.trial import FrozenTrial

from harness.search.measure import Candidate, Measure, mean, metric_of
from harness.search.trials import note_value
from harness.spec import HarnessError, Run, key
from harness.store import Store
from harness.store.snapshots import ask_for_snapshot, snapshot_of


class Compared:
    """What a pruner sees of the trials of a study."""

    def __init__(self, study: optuna.Study, measure: Measure, store: Store) -> None:
        self._study, self._measure, self._store = study, measure, store
        self._by_seeds = measure.search.pruner == "wilcoxon"

    def request(self, candidate: Candidate) -> None:
        """Ask the pre-trainings of a candidate, before they begin, for the snapshots that will be evaluated."""
        for epoch in self._measure.rungs:
            for first, _ in self._measure.rung(candidate, epoch):
                ask_for_snapshot(self._store, self._store.register(first), epoch)

    def runs(self, trial: FrozenTrial, candidate: Candidate) -> dict[str, Run]:
        """The evaluations of rungs that can be computed now and that the pruner has not seen yet."""
        found: dict[str, Run] = {}
        for epoch in self._measure.rungs:
            if epoch not in trial.intermediate_values:
                for first, evaluation in self._measure.rung(candidate, epoch):
                    if snapshot_of(self._store, key(first), epoch) is not None:
                        found[key(evaluation)] = evaluation
        return found

    def note(self, trial: FrozenTrial, candidate: Candidate) -> bool:
        """Show the pruner what is new of a trial; returns whether anything was."""
        new = self._by_seed(candidate) if self._by_seeds else self._by_epoch(candidate)
        new = {step: value for step, value in new.items() if step not in trial.intermediate_values}
        for step, value in sorted(new.items()):
            note_value(self._study, trial, step, value)
        return bool(new)

    def hopeless(self, number: int) -> bool:
        """Whether the pruner would stop a trial."""
        trial = self._study.get_trials(deepcopy=True)[number]
        return bool(self._study.pruner.prune(self._study, trial))

    def _by_epoch(self, candidate: Candidate) -> dict[int, float]:
        found = {}
        for epoch in self._measure.rungs:
            evaluations = [run for _, run in self._measure.rung(candidate, epoch)]
            if evaluations and all(self._store.result(key(run)) for run in evaluations):
                found[epoch] = mean([metric_of(run, run.shown_metric, self._store) for run in evaluations])
        return found

    def _by_seed(self, candidate: Candidate) -> dict[int, float]:
        found = {}
        for row in candidate.rows:
            alone = Candidate(candidate.cell, (row,))
            if all(self._store.result(key(run)) for run in self._measure.wanted(alone)):
                try:
                    found[row.seed] = self._measure.values(alone, self._store)[0][0]
                except HarnessError:
                    continue  # the trial fails for it when it ends
        return found
