"""Confidence bounds for the best of some cells minus the best of others, and for single differences as a special case.

With A candidates on the left and B on the right, theta = max_a min_b (mu_a - mu_b). A lower bound is max_a min_b L_ab
with bounds L_ab that hold for all a and one b at once: it fails only if L_ab > theta for some a and the b that is truly
best. So A comparisons with one control count, not A x B, and for the upper bound B of them (Dunnett's one-sided
bounds). Choosing the best of 20 costs more than choosing the best of 3, as it should.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.stats.additive import Additive
from harness.stats.intervals import Floats, t_quantile
from harness.stats.simultaneous import critical, groups


@dataclass(frozen=True)
class Bound:
    """One bound of theta, -inf or inf where the data say nothing, with the comparison that it comes from.

    error, df, own: of that comparison, as in harness.stats.intervals.Estimate.
    """

    value: float
    error: float
    df: float
    own: bool


@dataclass(frozen=True)
class Bounds:
    """Estimate of theta with a lower and an upper bound; pair: the left and the right candidate that it is from."""

    effect: float
    lower: Bound
    upper: Bound
    pair: tuple[int, int] = (0, 0)

    @property
    def low(self) -> float:
        """The lower bound."""
        return self.lower.value

    @property
    def high(self) -> float:
        """The upper bound."""
        return self.upper.value


def bounds(
    model: Additive, left: Floats, right: Floats, *, shift: Floats, offset: float, alphas: tuple[float, float]
) -> Bounds:
    """Bounds for max over left - max over right + shift.

    Args:
        left, right: float [candidates, cells], weights that sum to one.
        shift: float [cells], weights that sum to zero, added to every difference. offset: a number added to it.
        alphas: error of the lower and of the upper bound.
    """
    tables = [_column(model, left, control, len(left), len(right), shift, alphas) for control in right]
    value, low, high, error, df, own = (np.stack(parts, axis=1) for parts in zip(*tables, strict=True))
    low, high = np.nan_to_num(low + offset, nan=-np.inf), np.nan_to_num(high + offset, nan=np.inf)
    effect = np.nan if np.isnan(value).any() else (value + offset).min(axis=1).max()
    best = int(value.min(axis=1).argmax())
    row, column = int(low.min(axis=1).argmax()), int(high.max(axis=0).argmin())
    places = (low, (row, int(low[row].argmin()))), (high, (int(high[:, column].argmax()), column))
    lower, upper = (Bound(float(side[at]), float(error[at]), float(df[at]), bool(own[at])) for side, at in places)
    return Bounds(float(effect), lower, upper, (best, int(value[best].argmin())))


def _column(
    model: Additive, left: Floats, control: Floats, many: int, others: int, shift: Floats, alphas: tuple[float, float]
) -> tuple[Floats, ...]:
    """Difference of each left candidate from one right one: value, bounds, error, df, own."""
    weights = left - control + shift
    found = model.contrasts(weights)
    n = np.maximum(model.n, 1)
    spread, base = (left**2 / n).sum(axis=1), float((control**2 / n).sum())
    low = np.where(
        found.own, t_quantile(1 - alphas[0] / many, found.df), critical(alphas[0], groups(base, spread), model.df)
    )
    # For the upper bound the left candidate is the control, and all right ones are tried against it.
    sizes, places = np.unique(spread.round(9), return_inverse=True)
    upper = np.array([critical(alphas[1], groups(one, np.full(others, base)), model.df) for one in sizes])[places]
    high = np.where(found.own, t_quantile(1 - alphas[1] / others, found.df), upper)
    moved = weights.any(axis=1)  # else a cell against itself
    parts = (found.value, found.value - low * found.error, found.value + high * found.error)
    return *(np.where(moved, part, 0.0) for part in parts), found.error, found.df, found.own
