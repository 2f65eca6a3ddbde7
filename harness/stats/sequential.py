"""Error of repeated looks at growing data, by simulation of t statistics.

A verdict is reached as soon as the bounds of some look allow it, so each look needs a smaller error than a single look
would. The error is simulated with the degrees of freedom in use, because normal quantiles are far too small for three
seeds. The intervals hold at all looks together (repeated confidence intervals: Jennison and Turnbull 1989, J. R. Stat.
Soc. B 51: 305), so every kind of verdict is covered.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from scipy import stats

from harness.stats.intervals import Floats
from harness.stats.simultaneous import groups, largest_below

_DRAWS = 40_000
# More of these, as their error is divided by the candidates: the quantile lies farther out in the tail.
_PAIRED_DRAWS = 200_000
# The distribution of the largest t is computed at these and interpolated: one quadrature for all draws.
_BOUNDS = np.concatenate([np.linspace(-3, 15, 361), np.geomspace(15.5, 1e5, 120)])


@lru_cache(maxsize=256)
def error_of_a_look(looks: tuple[int, ...], cells: int, members: int, candidates: int, error: float) -> float:
    """One-sided error per look that keeps the error of all looks together at error / 2.

    Two statistics are simulated without any true difference: the largest t of `candidates` comparisons with one cell
    under the pooled residual variance, and one paired t with its own variance. The smaller error of both is used, less
    two standard errors of the simulation. The generator is seeded, so a study always gets the same bounds.

    Args:
        looks: numbers of seeds, ascending. cells: number of cells of the study, all with the seeds of the first look.
        members: cells that the claim compares, which get further seeds. candidates: cells on the side of the claim from
            which the best is chosen. error: two-sided error of a claim.
    """
    if len(looks) == 1:
        return error / 2
    pooled = np.min(list(_pooled(looks, cells, max(members, candidates + 1), candidates)), axis=0)
    own = np.min(list(_paired(looks)), axis=0)
    return min(_quantile(pooled, error / 2), candidates * _quantile(own, error / 2 / candidates))


def _quantile(smallest: Floats, error: float) -> float:
    """Quantile at `error` of the smallest p-value of all looks, lowered by two standard errors of the simulation."""
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
