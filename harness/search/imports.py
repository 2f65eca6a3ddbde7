"""Finished runs become trials before anything is asked, so that a search starts informed and pays for nothing twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from harness.search.measure import Measure, mean
from harness.search.space import KnownSpace, cell_id, present
from harness.search.trials import CELL, IMPORTED, PER_SEED, first_of_each_cell
from harness.spec import HarnessError, Scalar, key
from harness.store import Store


def import_finished(
    study: optuna.Study, earlier: optuna.Study | None, measure: Measure, space: KnownSpace, store: Store
) -> int:
    """Add to a study the cells whose runs the store has already; returns how many.

    Looked at are all points of a finite space, the grid of the search's study, and the trials of an earlier version.
    """
    finished = set(store.keys())
    known = set(first_of_each_cell(study.get_trials(deepcopy=False)))
    count = 0
    for params, cell in _candidates(earlier, measure, space) if finished else ():
        if (name := cell_id(cell)) not in known:
            known.add(name)
            count += _import(study, params, cell, measure, space, store, finished)
    return count


def _candidates(
    earlier: optuna.Study | None, measure: Measure, space: KnownSpace
) -> Iterator[tuple[dict[str, Any], Mapping[str, Scalar]]]:
    for point in space.points or ():
        if not point.excluded:
            yield point.params, point.cell
    for cell in measure.search.study.cells if measure.search.study is not None else ():
        if (params := space.params_of(cell)) is not None:
            yield params, present(cell)
    for trial in earlier.get_trials(deepcopy=False) if earlier is not None else ():
        if (found := space.cell_of(trial.params)) is not None:
            yield dict(trial.params), found


def _import(
    study: optuna.Study,
    params: dict[str, Any],
    cell: Mapping[str, Scalar],
    measure: Measure,
    space: KnownSpace,
    store: Store,
    finished: set[str],
) -> bool:
    candidate = measure.candidate(cell, range(measure.search.seeds))
    wanted = {key(run) for run in measure.wanted(candidate)}
    if candidate.excluded or not wanted <= finished or not all(store.result(name) for name in wanted):
        return False
    try:
        per_seed = measure.values(candidate, store)
    except HarnessError:  # a result without the metric: proposed, it fails with that reason
        return False
    by_seeds = measure.search.pruner == "wilcoxon"
    study.add_trial(
        create_trial(
            state=TrialState.COMPLETE,
            params=params,
            distributions=space.distributions_of(params),
            values=[mean(values) for values in per_seed],
            intermediate_values=dict(enumerate(per_seed[0])) if by_seeds else None,
            user_attrs={CELL: present(cell), IMPORTED: True, PER_SEED: per_seed},
        )
    )
    return True
