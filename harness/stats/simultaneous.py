"""Simultaneous comparisons: Holm's correction, and the distribution of the largest t against a common control.

Dunnett (1955, J. Am. Stat. Assoc. 50: 1096): comparisons with a control share the control's error and one estimate of
the variance, so their t-values are correlated by l_i l_j with l_i^2 = v0 / (v0 + v_i), v being variances of means.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats
from scipy.special import ndtr

from harness.stats.intervals import Floats

Groups = tuple[tuple[float, int], ...]
"""Comparisons as pairs of l_i and its count."""

# Nodes of the error that all comparisons share; less than 1e-16 of a normal distribution lies beyond 8.5.
_NORMAL = np.linspace(-8.5, 8.5, 171)
_WEIGHTS = stats.norm.pdf(_NORMAL) * (_NORMAL[1] - _NORMAL[0])
_SCALES = 121
_CLOSEST = 0.99


def holm(p_values: ArrayLike) -> Floats:
    """Holm's step-down correction (1979, Scand. J. Statist. 6: 65); NaN stays NaN and counts for nothing."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")[: int(np.isfinite(p).sum())]  # NaN is sorted to the end
    found = np.full(p.shape, np.nan)
    found[order] = np.maximum.accumulate(np.minimum(p[order] * np.arange(len(order), 0, -1), 1.0))
    return found


def groups(control: float, others: Floats) -> Groups:
    """Groups of comparisons with a control, from the variances of the means.

    l_i is at most 0.99, where the quadrature still holds; a smaller one asks for wider bounds.
    """
    shares = Counter(np.round(np.minimum(np.sqrt(control / (control + others)), _CLOSEST), 4).tolist())
    return tuple(sorted(shares.items()))


def largest_below(bound: Floats, comparisons: Groups, df: float, *, two_sided: bool) -> Floats:
    """Probability that the largest t (or |t|) of all comparisons is below a bound, elementwise."""
    scales, weights = _scale(df)
    flat = np.atleast_1d(np.asarray(bound, dtype=float))
    total = np.ones((flat.size, scales.size, _NORMAL.size))
    limit = (flat.reshape(-1, 1) * scales)[..., None]
    for share, count in comparisons:
        rest = np.sqrt(1 - share**2)
        inside = ndtr((limit + share * _NORMAL) / rest)
        if two_sided:
            inside = inside - ndtr((share * _NORMAL - limit) / rest)
        # Given the shared error and the variance, comparisons are independent.
        total *= np.clip(inside, 0.0, 1.0) ** count
    found: Floats = np.clip(np.einsum("bsz,s,z->b", total, weights, _WEIGHTS), 0.0, 1.0).reshape(np.shape(bound))
    return found


@lru_cache(maxsize=4096)
def critical(alpha: float, comparisons: Groups, df: float, *, two_sided: bool = False) -> float:
    """Critical value that the largest t (or |t|) of all comparisons exceeds with probability alpha."""
    if df <= 0 or not comparisons:
        return np.nan
    number = sum(count for _, count in comparisons)
    sides = 2 if two_sided else 1
    single, all_ = (float(stats.t.isf(alpha / sides / many, df)) for many in (1, number))
    if number == 1:
        return single

    def excess(bound: float) -> float:
        return 1 - alpha - float(largest_below(np.array(bound), comparisons, df, two_sided=two_sided))

    # Between a single comparison's value and Bonferroni's, with a margin as the quadrature is not exact.
    return float(optimize.brentq(excess, single * 0.98, all_ * 1.02, xtol=1e-4))


def _scale(df: float) -> tuple[Floats, Floats]:
    """Nodes and weights of the standard deviation over the true one, on a logarithmic grid."""
    if df > 1e5:  # as good as a known variance
        return np.ones(1), np.ones(1)
    ends = np.log(stats.chi2.ppf([1e-9, 1 - 1e-12], df) / df) / 2
    nodes = np.linspace(float(ends[0]), float(ends[1]), _SCALES)
    squares = np.exp(2 * nodes)
    density = stats.chi2.pdf(df * squares, df) * 2 * df * squares
    return np.exp(nodes), density / density.sum()
