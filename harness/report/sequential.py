"""Looking at claims after more and more seeds, without more false verdicts than one look would give.

A verdict is reached as soon as the bounds of some look allow it, so each look's bounds have a smaller error than a
single look would need. That error is found by simulating the t-values that are used, with their degrees of freedom:
quantiles of the normal distribution would be far too small for three seeds. The intervals hold at all looks together
(repeated confidence intervals: Jennison and Turnbull 1989, J. R. Stat. Soc. B 51: 305), so every kind of verdict is
covered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy import stats

from harness.report.claim_contrasts import sides
from harness.report.collect import runs_frame
from harness.report.verdicts import ERROR, Alphas, Scored, Verdict, compared_cells, scored, verdict
from harness.stats.intervals import Floats
from harness.stats.simultaneous import groups, largest_below
from harness.store import Store
from harness.study import Plan, expand
from harness.study.claims import Claim

_DRAWS = 40_000
_PAIRED_DRAWS = 200_000
_BOUNDS = np.concatenate([np.linspace(-3, 15, 361), np.geomspace(15.5, 1e5, 120)])


@lru_cache(maxsize=256)
def error_of_a_look(looks: tuple[int, ...], cells: int, members: int, candidates: int) -> float:
    """One-sided error at each look that makes ERROR / 2 of all looks together.

    Simulated are the largest t of `candidates` comparisons with one cell, with the residual variance of the whole
    study, and the t of one comparison with its own variance; the smaller error of both is taken, less two standard
    errors of the simulation. The generator is fixed, so the same study always gets the same bounds.

    Args:
        looks: numbers of seeds. cells: of the study, all with the first number of seeds. members: those that the claim
            compares, which get more. candidates: on the side of the claim that is chosen from.
    """
    if len(looks) == 1:
        return ERROR / 2
    pooled = np.min(list(_pooled(looks, cells, max(members, candidates + 1), candidates)), axis=0)
    own = np.min(list(_paired(looks)), axis=0)
    return min(_quantile(pooled, ERROR / 2), candidates * _quantile(own, ERROR / 2 / candidates))


def _quantile(smallest: Floats, error: float) -> float:
    """The p-value that the smallest of all looks falls below with this probability, on the safe side."""
    rank = error * len(smallest) - 2 * np.sqrt(error * (1 - error) * len(smallest))
    return float(np.partition(smallest, int(rank))[int(rank)])


def _pooled(looks: tuple[int, ...], cells: int, members: int, candidates: int) -> Iterator[Floats]:
    """At each look the p-values of the largest t where all cells are equal."""
    generator = np.random.default_rng(1989)
    values = generator.standard_normal((_DRAWS, candidates + 1, looks[-1]))
    rest, before = np.zeros(_DRAWS), 0
    for number in looks:
        # Cells that take no part, and those that do but are not simulated one by one, add to the variance only.
        others, more = (cells, number - 1) if not before else (members, number - before)
        if (df := (max(others, candidates + 1) - 1 - candidates) * more) > 0:
            rest += generator.chisquare(df, _DRAWS)
        seen = values[:, :, :number]
        means = seen.mean(axis=2)
        residuals = seen - means[:, :, None] - seen.mean(axis=1, keepdims=True) + means.mean(axis=1)[:, None, None]
        total = (max(cells, candidates + 1) - 1) * (looks[0] - 1) + (members - 1) * (number - looks[0])
        variance = ((residuals**2).sum(axis=(1, 2)) + rest) / total
        largest = (means[:, 1:].max(axis=1) - means[:, 0]) / np.sqrt(variance * 2 / number)
        comparisons = groups(1.0, np.ones(candidates))
        yield np.interp(largest, _BOUNDS, 1 - largest_below(_BOUNDS, comparisons, total, two_sided=False))
        before = number


def _paired(looks: tuple[int, ...]) -> Iterator[Floats]:
    """At each look the p-values of a paired t of no difference."""
    values = np.random.default_rng(1990).standard_normal((_PAIRED_DRAWS, looks[-1]))
    for number in looks:
        seen = values[:, :number]
        t = seen.mean(axis=1) / np.sqrt(seen.var(axis=1, ddof=1) / number)
        yield np.asarray(stats.t.sf(t, number - 1))


@dataclass(frozen=True)
class Standing:
    """Where a claim stands: its verdict at the last look that is complete.

    wanted: (cell, seed) of the next look, none once it is decided or the last look was taken. waits: for how many seeds
    it waits, 0 if for none.
    """

    verdict: Verdict
    wanted: frozenset[tuple[int, int]] = frozenset()
    waits: int = 0


def standing(claim: Claim, plan: Plan, runs: pd.DataFrame) -> Standing:
    """Replay the looks of a study from its results: nothing else is remembered.

    A look at n seeds sees n seeds of the cells that the claim compares, and of all others those of the first look,
    whatever more there may be: so what was decided once stays decided.
    """
    looks, found = plan.study.looks, None
    for number in looks:
        data = _at_look(claim, plan, runs, number)
        found = verdict(claim, data, errors(claim, data))
        if found.word == "not testable at this scale":
            break
        used = compared_cells(claim, data)
        seen = runs[runs["cell"].isin(used) & (runs["seed"] < number) & (runs["state"] != "excluded")]
        named = seen[seen["evaluation"] == data.evaluation]
        have = set(
            zip(named.loc[named["value"].notna(), "cell"], named.loc[named["value"].notna(), "seed"], strict=True)
        )
        wanted = {(cell, seed) for cell in used for seed in range(number)}
        if wanted - have:
            return Standing(_waiting(found, number), frozenset(wanted), number)
        if not found.open:
            break
    assert found is not None
    return Standing(
        found if not found.open else replace(found, needed=None, reason=f"open after all {looks[-1]} seeds")
    )


def _waiting(found: Verdict, number: int) -> Verdict:
    return replace(found, word="inconclusive", reason=f"waits for {number} seeds", needed=None)


def _at_look(claim: Claim, plan: Plan, runs: pd.DataFrame, number: int) -> Scored:
    first = scored(plan, runs[runs["seed"] < plan.study.looks[0]])
    if number == plan.study.looks[0]:
        return first
    used = compared_cells(claim, first)
    seen = runs["seed"] < np.where(runs["cell"].isin(used), number, plan.study.looks[0])
    return scored(plan, runs[seen])


def errors(claim: Claim, data: Scored) -> Alphas:
    """Errors of the lower and of the upper bound of a claim."""
    compared = sides(claim, data.plan.study.cells, data.excluded)
    if isinstance(compared, str):
        return ERROR / 2, ERROR / 2
    cells, members = len(data.values) - len(data.excluded), len(compared_cells(claim, data))
    looks, candidates = data.plan.study.looks, (len(compared.left), len(compared.right))
    low, high = (error_of_a_look(looks, cells, members, many) for many in candidates)
    return low, high


def scheduled(plan: Plan, store: Store) -> Plan:
    """The runs that undecided claims want: the first look of all cells, and what is needed to go on from there.

    Raises:
        HarnessError: a cell of a further seed is refused.
    """
    study = plan.study
    whole = expand(study, scale=plan.scale.name, seeds=study.looks[-1])
    runs = runs_frame(whole, store)
    wanted = {place for claim in study.claims for place in standing(claim, whole, runs).wanted}
    return _limited(whole, wanted, runs)


def looked(plan: Plan, store: Store) -> Plan:
    """The first look of all cells and whatever was begun of further ones: what there is to report."""
    study = plan.study
    whole = expand(study, scale=plan.scale.name, seeds=study.looks[-1])
    return _limited(whole, set(), runs_frame(whole, store))


def _limited(whole: Plan, wanted: set[tuple[int, int]], runs: pd.DataFrame) -> Plan:
    """A plan with the first look of all cells, further wanted rows, and further rows that were begun."""
    begun = runs[(runs["state"] != "missing") & (runs["state"] != "excluded")]
    kept = wanted | set(zip(begun["cell"], begun["seed"], strict=True))
    numbers = {tuple(cell.values()): number for number, cell in enumerate(whole.study.cells)}
    first = whole.study.looks[0]
    rows = (row for row in whole.rows if row.seed < first or (numbers[tuple(row.axes.values())], row.seed) in kept)
    return replace(whole, rows=tuple(rows))
