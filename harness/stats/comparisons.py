"""Comparisons of all cells with the reference and with the best cell, with simultaneous errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.stats.additive import Additive
from harness.stats.intervals import CONFIDENCE, Estimate, Flags, Floats, t_quantile, tails
from harness.stats.simultaneous import critical, groups, largest_below

LEAST_FOR_BEST = 3
"""Fewest seeds for naming best cells: two seeds cannot show that one cell is noisier."""


@dataclass(frozen=True, eq=False)
class Differences:
    """Differences of all cells from one, arrays [cells].

    Attributes:
        found: value, error, df and own of each difference; the base differs from itself by 0 with no error. All NaN
            without a base.
        half: half the width of the interval at CONFIDENCE. simultaneous: of intervals that hold for all together.
        p: p-values adjusted for the number of differences, so that where no cell differs from the base, a p below 0.05
            anywhere has a probability of 5 %: Dunnett's test, or Sidak's bound for a cell with a variance of its own.
        shared: seeds that a cell and the base both have.
    """

    found: Estimate
    half: Floats
    simultaneous: Floats
    p: Floats
    shared: NDArray[np.int64]


def differences(model: Additive, base: int | None) -> Differences:
    """Differences of all cells from the cell of number `base`."""
    count = len(model.values)
    if base is None or not model.n[base]:
        none, no = np.full(count, np.nan), np.zeros(count, dtype=bool)
        return Differences(Estimate(none, none, none, no), none, none, none, np.zeros(count, dtype=np.int64))
    weights = np.eye(count)
    weights[:, base] -= 1
    found, others = model.contrasts(weights), np.arange(count) != base
    error, df = (np.where(others, part, np.nan) for part in (found.error, found.df))
    found = Estimate(np.where(others, found.value, 0.0), error, df, found.own & others)
    p, several = _adjusted(model, base, found)
    shared = (np.isfinite(model.values) & np.isfinite(model.values[base])).sum(axis=1)
    return Differences(found, t_quantile((1 + CONFIDENCE) / 2, found.df) * found.error, several, p, shared)


def _adjusted(model: Additive, base: int, found: Estimate) -> tuple[Floats, Floats]:
    """p-values and half-widths that hold for all differences from one cell together.

    Dunnett's for cells that share the pooled variance, whether or not the base does; Sidak's for others.
    """
    known = np.isfinite(found.error) & (found.df > 0)
    p, bound, number = np.full(len(known), np.nan), np.full(len(known), np.nan), int(known.sum())
    alike, apart = known & ~model.own, known & model.own
    p[apart] = -np.expm1(number * np.log1p(-np.minimum(tails(found)[apart], 1 - 1e-15)))
    bound[apart] = t_quantile((1 + CONFIDENCE ** (1 / max(number, 1))) / 2, found.df[apart])
    if alike.any():
        size = np.divide(np.abs(found.value), found.error, out=np.full(len(known), 1e6), where=found.error > 0)
        size = np.where(found.value == 0, 0.0, np.minimum(size, 1e6))
        variance = model.variances[base] / model.variance if model.variance > 0 else 1.0
        comparisons = groups(variance / model.n[base], 1 / model.n[known])
        df = round(float(found.df[alike].min()), 3)
        p[alike] = 1 - largest_below(size[alike], comparisons, df, two_sided=True)
        bound[alike] = critical(1 - CONFIDENCE, comparisons, df, two_sided=True)
    return np.clip(p, 0.0, 1.0), bound * found.error


def among_best(model: Additive) -> Flags:
    """bool [cells]: those that simultaneous comparisons cannot tell from the best, each tried as the best one.

    After Hsu (1981, Ann. Statist. 9: 1026). False everywhere without degrees of freedom, and where a cell has values of
    fewer than LEAST_FOR_BEST seeds.
    """
    n, count = model.n, len(model.values)
    present = n > 0
    if model.df <= 0 or present.sum() < 2 or n[present].min() < LEAST_FOR_BEST:
        return np.zeros(count, dtype=bool)
    found = model.pairs()
    own = t_quantile(1 - (1 - CONFIDENCE) / (present.sum() - 1), found.df)
    bound = np.where(found.own, own, _bounds_as_best(model)[:, None])
    worse = np.nan_to_num(-found.value - np.maximum(bound * found.error, 0.0), nan=-1.0) > 0
    best: Flags = present & ~worse.any(axis=1)
    return best


def _bounds_as_best(model: Additive) -> Floats:
    """For each cell the bound of one-sided comparisons of all others with it."""
    bounds = np.zeros(len(model.values))
    for number in set(model.n[model.n > 0].tolist()):
        members = np.flatnonzero(model.n == number)
        others = np.delete(model.n, members[0])
        bounds[members] = critical(1 - CONFIDENCE, groups(1 / number, 1 / others[others > 0]), model.df)
    return bounds
