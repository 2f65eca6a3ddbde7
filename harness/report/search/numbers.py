"""Results of a search as numbers: its best cells, and the fresh seeds of these and of the reference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.search.confirmation import candidates
from harness.search.measure import Candidate, Measure, metric_of
from harness.search.space import cell_id, present
from harness.search.trials import Trial
from harness.spec import HarnessError, Scalar, key
from harness.stats.intervals import ERROR, half_width, paired, tails
from harness.stats.simultaneous import holm
from harness.store import Store


@dataclass(frozen=True)
class Confirmed:
    """A cell with fresh seeds.

    found: the value of its trial, NaN for a reference that was none. n: fresh seeds with a value. mean, half: of these
    and half the width of its t-interval, NaN below two. difference, difference_half: from the reference, over the
    `pairs` seeds that both have. p: of a paired t-test, two-sided, corrected by Holm over the cells. test, test_sd:
    over fresh seeds.
    """

    cell: dict[str, Scalar]
    reference: bool
    found: float
    n: int
    mean: float
    half: float
    difference: float = math.nan
    difference_half: float = math.nan
    p: float = math.nan
    test: float = math.nan
    test_sd: float = math.nan
    pairs: int = 0


def confirmed(trials: Sequence[Trial], measure: Measure, store: Store) -> list[Confirmed]:
    """The reference and the best cells with fresh seeds, the reference first, by the first metric."""
    chosen = candidates(trials, measure)
    by_cell = {cell_id(trial.cell): trial.values[0] for trial in trials if trial.values and trial.twin is None}
    reference_id = cell_id(present(measure.search.reference))
    values = {cell_id(found.cell): _fresh(found, measure, store) for found in chosen}
    base = values.get(reference_id, {})
    rows = []
    for candidate in chosen:
        name = cell_id(candidate.cell)
        own = values[name]
        mean, half = interval(list(own.values()))
        shared = [own[seed] - base[seed] for seed in own if seed in base] if name != reference_id else []
        difference, difference_half = interval(shared)
        tested = _tests(candidate, measure, store)
        rows.append(
            Confirmed(
                cell=dict(present(candidate.cell)),
                reference=name == reference_id,
                found=by_cell.get(name, math.nan),
                n=len(own),
                mean=mean,
                half=half,
                difference=difference,
                difference_half=difference_half,
                p=paired_p(shared),
                test=float(np.mean(tested)) if tested else math.nan,
                test_sd=float(np.std(tested, ddof=1)) if len(tested) > 1 else math.nan,
                pairs=len(shared),
            )
        )
    return _corrected(rows)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its t-interval of 95 %; NaN where there are too few values."""
    found = paired([list(values)] if values else [[math.nan]])
    return float(found.value[0]), float(half_width(found.error, np.ones(1), found.df)[0])


def paired_p(differences: Sequence[float]) -> float:
    """p-value of the two-sided paired t-test, from the differences; NaN below two, 0 or 1 where all are equal."""
    return float(tails(paired([list(differences) or [math.nan]]))[0])


def verdict(rows: Sequence[Confirmed], direction: str) -> str:
    """Sentence on the winner against the reference: better or worse beyond noise, or too few fresh seeds."""
    sign = 1 if direction == "maximize" else -1
    others = [row for row in rows if not row.reference and row.n]
    if not others:
        return "The best cells have not been evaluated with fresh seeds yet."
    winner = max(others, key=lambda row: sign * row.mean)
    if math.isnan(winner.p):
        return "Too few fresh seeds of the winner and the reference to tell them apart."
    size = f"{winner.difference:+.2f} ± {winner.difference_half:.2f}"
    text = f"{size} against the default (p = {winner.p:.2g}, n = {winner.pairs})"
    if winner.p < ERROR:
        better = sign * winner.difference > 0
        return f"The winner {'beats' if better else 'is worse than'} the default beyond noise: {text}."
    return f"The winner cannot be told from the default: {text}."


def _fresh(candidate: Candidate, measure: Measure, store: Store) -> dict[int, float]:
    found = {}
    for row in candidate.rows:
        alone = Candidate(candidate.cell, (row,))
        if all(store.result(key(run)) for run in measure.wanted(alone)):
            try:
                found[row.seed] = measure.values(alone, store)[0][0]
            except HarnessError:
                continue
    return found


def _tests(candidate: Candidate, measure: Measure, store: Store) -> list[float]:
    column = measure.search.test
    runs = [row.evaluations[column] for row in candidate.rows if column in row.evaluations]
    return [metric_of(run, run.shown_metric, store) for run in runs if store.result(key(run))]


def _corrected(rows: Sequence[Confirmed]) -> list[Confirmed]:
    """A difference is beyond noise if its p-value, corrected by Holm, is below ERROR."""
    corrected = holm([row.p for row in rows])
    return [replace(row, p=float(p)) for row, p in zip(rows, corrected, strict=True)]


def best_so_far(trials: Sequence[Trial], direction: str) -> list[tuple[int, float]]:
    """Trial numbers and the best value up to each, of the first metric."""
    choose = max if direction == "maximize" else min
    found: list[tuple[int, float]] = []
    for trial in trials:
        if trial.values:
            best = choose(trial.values[0], found[-1][1]) if found else trial.values[0]
            found.append((trial.number, best))
    return found


def front(trials: Sequence[Trial], directions: Sequence[str]) -> list[Trial]:
    """The trials that no other one beats in every metric, in the order of the first."""
    from harness.search.confirmation import best

    chosen = best(trials, directions, len(trials))
    return sorted(chosen, key=lambda trial: trial.values[0])


def means_by_pair(trials: Sequence[Trial], left: str, right: str) -> Mapping[tuple[object, object], tuple[float, int]]:
    """Mean value and count of the trials with each pair of values of two parameters."""
    groups: dict[tuple[object, object], list[float]] = {}
    for trial in trials:
        if trial.values and left in trial.params and right in trial.params:
            groups.setdefault((trial.params[left], trial.params[right]), []).append(trial.values[0])
    return {pair: (float(np.mean(values)), len(values)) for pair, values in groups.items()}
