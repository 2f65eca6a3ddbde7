"""What Optuna's trials say of a search: attributes by name, which trials are open, what is known of a cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from harness.search.space import cell_id
from harness.spec import Scalar

CELL = "cell"
"""Attribute: the cell, an axis that it lacks left out. Written last: a trial without it was never begun."""
COMPUTED = "computed"
"""Attribute: true if runs were computed for this trial, so that it counts against the budget."""
TWIN = "duplicate of"
"""Attribute: the number of the trial that has the same cell."""
IMPORTED = "imported"
"""Attribute: true if the store had the runs before the search asked for them."""
EXCLUDED = "excluded"
"""Attribute: why the cell cannot run."""
ERROR = "error"
"""Attribute: why the trial failed."""
SEEDS = "seeds"
"""Attribute: replicates, where a promising trial got more than the others."""
PER_SEED = "values by seed"
"""Attribute: for each metric the value of each seed."""


@dataclass(frozen=True)
class Trial:
    """A trial as a report needs it.

    state: complete, pruned, failed, running or waiting. values: what was told, empty if nothing was.
    rungs: the values by epoch, or by seed, that a pruner saw.
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
    """A trial without Optuna."""
    held = trial.user_attrs
    return Trial(
        number=trial.number,
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


def identity(trial: FrozenTrial) -> str | None:
    """What equal cells share; None for a trial that was never begun."""
    cell = trial.user_attrs.get(CELL)
    return None if cell is None else cell_id(cell)


def is_twin(trial: FrozenTrial) -> bool:
    """Whether the trial proposed a cell that the search knew already."""
    return trial.user_attrs.get(TWIN) is not None


def first_of_each_cell(trials: Iterable[FrozenTrial]) -> dict[str, FrozenTrial]:
    """The trial that stands for each cell."""
    found: dict[str, FrozenTrial] = {}
    for trial in trials:
        name = identity(trial)
        if name is not None and not is_twin(trial):
            found.setdefault(name, trial)
    return found


def computed(trials: Iterable[FrozenTrial]) -> int:
    """Distinct cells that were computed for the search."""
    return sum(bool(trial.user_attrs.get(COMPUTED)) for trial in trials)


def duplicates_in_a_row(trials: Sequence[FrozenTrial]) -> int:
    """How many of the last proposals were of cells that the search knew already."""
    row = 0
    for trial in reversed(trials):
        if not is_twin(trial):
            break
        row += 1
    return row


def note_value(study: optuna.Study, trial: FrozenTrial, step: int, value: float) -> None:
    """Write down an intermediate value, as `Trial.report` does; a trial of an earlier process has only its number."""
    study._storage.set_trial_intermediate_value(trial._trial_id, step, value)


def set_attribute(study: optuna.Study, trial: FrozenTrial, name: str, value: Any) -> None:
    """Write down an attribute of a trial."""
    study._storage.set_trial_user_attr(trial._trial_id, name, value)
