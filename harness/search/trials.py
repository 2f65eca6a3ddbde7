"""Trials of a search: the attributes stored with them, known cells, importance of parameters."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from harness.search.space import cell_id
from harness.spec import Scalar

CELL = "cell"
"""Attribute: the cell without the axes that it lacks. Written last: a trial without a cell was never begun."""
COMPUTED = "computed"
"""Attribute: True if runs were computed for this trial, which then counts against the budget."""
TWIN = "duplicate of"
"""Attribute: number of the earlier trial with the same cell."""
IMPORTED = "imported"
"""Attribute: True if the store had all runs before the search asked for them."""
EXCLUDED = "excluded"
"""Attribute: reason why the cell cannot run."""
ERROR = "error"
"""Attribute: reason why the trial failed."""
SEEDS = "seeds"
"""Attribute: number of seeds of a promising trial, which gets more than the others."""
LEAST_TRIALS = 10
"""Fewest finished trials from which importances are estimated."""
PER_SEED = "values by seed"
"""Attribute: values by metric and seed."""


@dataclass(frozen=True)
class Trial:
    """A trial without Optuna's types, for reports.

    state: complete, pruned, failed, running, waiting or excluded. values: one a metric, empty unless complete.
    rungs: intermediate values by epoch or seed, as the pruner saw them. twin: number of the trial with the same cell.
    """

    number: int
    state: str
    cell: dict[str, Scalar]
    params: dict[str, Any]
    values: tuple[float, ...] = ()
    per_seed: tuple[tuple[float, ...], ...] = ()
    rungs: dict[int, float] = field(default_factory=dict)
    computed: bool = False
    imported: bool = False
    twin: int | None = None
    excluded: str = ""
    error: str = ""


WORDS = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def plain(trial: FrozenTrial) -> Trial:
    """An Optuna trial as a `Trial`."""
    held = trial.user_attrs
    return Trial(
        number=trial.number,
        # Optuna has no such state: an excluded trial is PRUNED there.
        state="excluded" if held.get(EXCLUDED) else WORDS[trial.state],
        cell=dict(held.get(CELL, {})),
        params=dict(trial.params),
        values=tuple(trial.values or ()) if trial.state is TrialState.COMPLETE else (),
        per_seed=tuple(tuple(values) for values in held.get(PER_SEED, ())),
        rungs=dict(trial.intermediate_values),
        computed=bool(held.get(COMPUTED)),
        imported=bool(held.get(IMPORTED)),
        twin=held.get(TWIN),
        excluded=str(held.get(EXCLUDED, "")),
        error=str(held.get(ERROR, "")),
    )


def is_twin(trial: FrozenTrial) -> bool:
    """True if an earlier trial has the same cell."""
    return trial.user_attrs.get(TWIN) is not None


def first_of_each_cell(trials: Iterable[FrozenTrial]) -> dict[str, FrozenTrial]:
    """First trial of each cell, by `cell_id`; trials that were never begun are left out."""
    first: dict[str, FrozenTrial] = {}
    for trial in trials:
        if (cell := trial.user_attrs.get(CELL)) is not None and not is_twin(trial):
            first.setdefault(cell_id(cell), trial)
    return first


def computed(trials: Iterable[FrozenTrial]) -> int:
    """Number of distinct cells that were computed for the search."""
    return sum(bool(trial.user_attrs.get(COMPUTED)) for trial in trials)


def fruitless_in_a_row(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials at the end, the last one first, that are duplicates or of cells that cannot run."""
    return list(takewhile(lambda trial: is_twin(trial) or EXCLUDED in trial.user_attrs, reversed(trials)))


def note_value(study: optuna.Study, trial: FrozenTrial, step: int, value: float) -> None:
    """Store an intermediate value, as `optuna.Trial.report` does."""
    # Optuna gives a Trial object only to the process that asked; trials of an earlier one exist as FrozenTrial.
    study._storage.set_trial_intermediate_value(trial._trial_id, step, value)


def set_attribute(study: optuna.Study, trial: FrozenTrial, name: str, value: Any) -> None:
    """Store an attribute of a trial."""
    study._storage.set_trial_user_attr(trial._trial_id, name, value)


def importances(study: optuna.Study) -> dict[str, float]:
    """Importance of each parameter for the best trials by the first metric (PED-ANOVA), as shares, largest first.

    Only parameters that all finished trials have are compared, and each cell counts once. Empty where fewer than
    `LEAST_TRIALS` are finished or all values are equal.
    """
    finished = [t for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if not is_twin(t)]
    values = {trial.values[0] for trial in finished if trial.values}
    if len(finished) < LEAST_TRIALS or len(values) < 2:
        return {}
    # Under a condition a parameter is missing in some trials, which no importance can be compared over.
    common = set.intersection(*(set(trial.params) for trial in finished))
    names = sorted(name for name in common if len({trial.params[name] for trial in finished}) > 1)
    if not names:
        return {}
    copy = optuna.create_study(directions=study.directions)  # in memory, without the duplicates
    copy.add_trials(finished)
    evaluator = PedAnovaImportanceEvaluator()
    if len(study.directions) == 1:
        shares = get_param_importances(copy, evaluator=evaluator, params=names)
    else:
        # With a target function the evaluator takes low values for the good ones, and warns of it.
        sign = -1 if study.directions[0] is StudyDirection.MAXIMIZE else 1
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "PedAnovaImportanceEvaluator computes")
            shares = get_param_importances(
                copy, evaluator=evaluator, params=names, target=lambda trial: sign * trial.values[0]
            )
    return {name: float(share) for name, share in shares.items()}
