"""Which parameters of a space the value depends on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from harness.search.trials import is_twin

LEAST_TRIALS = 10
"""Fewer finished trials than this say nothing of importance."""


def importances(study: optuna.Study) -> dict[str, float]:
    """The share of each parameter in what sets the best trials apart (PED-ANOVA), by the first metric; largest first.

    Only parameters that every finished trial has are compared; a cell counts once, however often it was proposed.
    Empty where too few are finished, or all are equal.
    """
    finished = [t for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if not is_twin(t)]
    values = {trial.values[0] for trial in finished if trial.values}
    if len(finished) < LEAST_TRIALS or len(values) < 2:
        return {}
    common = set.intersection(*(set(trial.params) for trial in finished))
    names = sorted(name for name in common if len({trial.params[name] for trial in finished}) > 1)
    if not names:
        return {}
    study = _only(study, finished)
    evaluator = PedAnovaImportanceEvaluator()
    if len(study.directions) == 1:
        found = get_param_importances(study, evaluator=evaluator, params=names)
    else:
        sign = -1 if study.directions[0] is StudyDirection.MAXIMIZE else 1
        with warnings.catch_warnings():
            # that low values of a target are the good ones, which is seen to
            warnings.filterwarnings("ignore", "PedAnovaImportanceEvaluator computes")
            found = get_param_importances(
                study, evaluator=evaluator, params=names, target=lambda trial: sign * trial.values[0]
            )
    return {name: float(share) for name, share in found.items()}


def _only(study: optuna.Study, trials: Sequence[FrozenTrial]) -> optuna.Study:
    """A study in memory with some of the trials."""
    copy = optuna.create_study(directions=study.directions)
    copy.add_trials(trials)
    return copy
