"""Pruners by name, and the values that they compare: metrics of snapshots during pre-training, or of seeds."""

from __future__ import annotations

import warnings
from statistics import fmean
from typing import assert_never, cast

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner, WilcoxonPruner
from optuna.trial import FrozenTrial

from harness.search.declaration import REDUCTION, PrunerName, Search
from harness.search.measure import Candidate, Measure, metric_of
from harness.search.trials import note_value
from harness.spec import HarnessError, Run, Scale, key
from harness.store import Store
from harness.store.snapshots import ask_for_snapshot, snapshot_of

STARTUP_TRIALS = 5
"""Trials that the median pruner lets finish before it compares."""


def pruner_of(search: Search, scale: Scale) -> BasePruner:
    """Pruner of a search at a scale; one that never prunes where the scale has no rungs."""
    rungs = search.rung_epochs(scale)
    if search.pruner != "wilcoxon" and not rungs:
        return NopPruner()
    match cast(PrunerName, search.pruner):
        case "none":
            return NopPruner()
        case "halving":
            return SuccessiveHalvingPruner(min_resource=rungs[0], reduction_factor=REDUCTION)
        case "hyperband":
            # Hyperband has to know the end of a training, which may lie behind the last rung.
            longest = max(scale.pretrain.epochs, rungs[-1])
            return HyperbandPruner(min_resource=rungs[0], max_resource=longest, reduction_factor=REDUCTION)
        case "median":
            return MedianPruner(n_startup_trials=STARTUP_TRIALS)
        case "wilcoxon":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return WilcoxonPruner()
        case other:
            assert_never(other)


class PrunerView:
    """Intermediate values of trials, as the pruner of a study sees them."""

    def __init__(self, study: optuna.Study, measure: Measure, store: Store) -> None:
        self._study, self._measure, self._store = study, measure, store
        self._by_seeds = measure.search.pruner == "wilcoxon"

    def request(self, candidate: Candidate) -> None:
        """Request the snapshots that rungs will evaluate; must come before the candidate's pre-trainings begin."""
        for epoch in self._measure.rungs:
            for first, _ in self._measure.rung(candidate, epoch):
                ask_for_snapshot(self._store, self._store.register(first), epoch)

    def runs(self, trial: FrozenTrial, candidate: Candidate) -> dict[str, Run]:
        """Rung evaluations, by key, whose snapshot exists and whose value the pruner has not seen."""
        ready: dict[str, Run] = {}
        for epoch in self._measure.rungs:
            if epoch not in trial.intermediate_values:
                for first, evaluation in self._measure.rung(candidate, epoch):
                    if snapshot_of(self._store, key(first), epoch) is not None:
                        ready[key(evaluation)] = evaluation
        return ready

    def judge(self, trial: FrozenTrial, candidate: Candidate) -> bool:
        """Report a trial's new intermediate values; returns True if the pruner would stop it at one of them."""
        new = self._by_seed(candidate) if self._by_seeds else self._by_epoch(candidate)
        stop = False
        for step, value in sorted(new.items()):
            if step not in trial.intermediate_values:
                note_value(self._study, trial, step, value)
                # Asked after each: a pruner takes the latest value for that of the rung at which it stands.
                stop = stop or self._stops(trial.number)
        return stop

    def _stops(self, number: int) -> bool:
        # Read again, to see the values that were just reported.
        trial = self._study.get_trials(deepcopy=True)[number]
        return bool(self._study.pruner.prune(self._study, trial))

    def _by_epoch(self, candidate: Candidate) -> dict[int, float]:
        """Mean metric of the rungs up to the first that is not complete, by epoch."""
        values = {}
        for epoch in self._measure.rungs:
            evaluations = [run for _, run in self._measure.rung(candidate, epoch)]
            # A mean over a part of the seeds cannot be compared with one over all. Later rungs wait for it.
            if not all(self._store.result(key(run)) for run in evaluations):
                break
            if evaluations:
                values[epoch] = fmean(metric_of(run, run.shown_metric, self._store) for run in evaluations)
        return values

    def _by_seed(self, candidate: Candidate) -> dict[int, float]:
        """First metric of the seeds that are done, by seed."""
        values = {}
        for row in candidate.rows:
            # One seed at a time, as the signed-rank test pairs trials seed by seed.
            alone = Candidate(candidate.cell, (row,))
            if all(self._store.result(key(run)) for run in self._measure.wanted(alone)):
                try:
                    values[row.seed] = self._measure.values(alone, self._store)[0][0]
                except HarnessError:
                    continue  # a result without the metric: the trial fails for it when it ends
        return values
