"""Which parameters of a space the value depends on."""

from __future__ import annotations

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

LEAST_TRIALS = 10
"""Fewer finished trials than this say nothing of importance."""


def importances(study: optuna.Study) -> dict[str, float]:
    """The share of each parameter in what sets the best trials apart (PED-ANOVA), by the first metric; largest first.

    Only parameters that every finished trial has are compared. Empty where too few are finished, or all are equal.
    """
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    values = {trial.values[0] for trial in finished if trial.values}
    if len(finished) < LEAST_TRIALS or len(values) < 2:
        return {}
    common = set.intersection(*(set(trial.params) for trial in finished))
    names = sorted(name for name in common if len({trial.params[name] for trial in finished}) > 1)
    if not names:
        return {}
    target = (lambda trial: trial.values[0]) if len(study.directions) > 1 else None
    found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), params=names, target=target)
    return {name: float(share) for name, share in found.items()}
