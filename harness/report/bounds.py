"""Confidence bounds for the best of some cells minus the best of others, and for single differences as a special case.

With A candidates on the left and B on the right, theta = max_a min_b (mu_a - mu_b). A lower bound is max_a min_b L_ab
with bounds L_ab that hold for all a and one b at once: it fails only if L_ab > theta for some a and the b that is truly
best. So A comparisons with one control count, not A x B, and for the upper bound B of them (Dunnett's one-sided
bounds). Choosing the best of 20 costs more than choosing the best of 3, as it should.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import fdtr

from harness.report.additive import Additive, Floats, t_quantile
from harness.report.simultaneous import critical, groups

OWN_ABOVE = 0.5
"""A contrast with an own variance, seed by seed, above this quantile of what the pooled one leads to expect keeps it.

The check of all cells together misses one noisy cell among few seeds, and a verdict must not.
"""


@dataclass(frozen=True)
class Bounds:
    """Estimate of theta with a lower and an upper bound, -inf and inf where the data say nothing."""

    effect: float
    low: float
    high: float


def bounds(
    model: Additive, left: Floats, right: Floats, *, shift: Floats, offset: float, alphas: tuple[float, float]
) -> Bounds:
    """Bounds for max over left - max over right + shift.

    Args:
        left, right: float [candidates, cells], weights that sum to one.
        shift: float [cells], weights that sum to zero, added to every difference. offset: a number added to it.
        alphas: error of the lower and of the upper bound.
    """
    tables = [_column(model, left, control, left.shape[0], right.shape[0], shift, alphas) for control in right]
    value, low, high = (np.stack(parts, axis=1) + offset for parts in zip(*tables, strict=True))
    low, high = np.nan_to_num(low, nan=-np.inf), np.nan_to_num(high, nan=np.inf)
    effect = np.nan if np.isnan(value).any() else value.min(axis=1).max()
    return Bounds(float(effect), float(low.min(axis=1).max()), float(high.max(axis=0).min()))


def _column(
    model: Additive, left: Floats, control: Floats, many: int, others: int, shift: Floats, alphas: tuple[float, float]
) -> tuple[Floats, Floats, Floats]:
    """Difference of each left candidate from one right one, with its bounds."""
    weights = left - control + shift
    pooled, own = model.contrasts(weights, own=False), model.contrasts(weights, own=True)
    alone = np.isfinite(own.error) & (own.df > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = (own.error / pooled.error) ** 2
        noisy = fdtr(np.maximum(own.df, 1), max(model.df, 1), ratio) > OWN_ABOVE
    taken = alone & (noisy | (not model.equal))
    value = np.where(taken, own.value, pooled.value)
    error = np.where(taken, own.error, pooled.error)
    n = np.maximum(model.n, 1)
    spread, base = (left**2 / n).sum(axis=1), float((control**2 / n).sum())
    low = np.where(taken, _single(alphas[0] / many, own.df), critical(alphas[0], groups(base, spread), model.df))
    # For the upper bound the left candidate is the control, and all right ones are tried against it.
    sizes, places = np.unique(spread.round(9), return_inverse=True)
    upper = np.array([critical(alphas[1], groups(one, np.full(others, base)), model.df) for one in sizes])[places]
    high = np.where(taken, _single(alphas[1] / others, own.df), upper)
    zero = ~weights.any(axis=1)  # a cell against itself
    return tuple(np.where(zero, 0.0, part) for part in (value, value - low * error, value + high * error))  # type: ignore[return-value]


def _single(alpha: float, df: Floats) -> Floats:
    return t_quantile(1 - alpha, df)
