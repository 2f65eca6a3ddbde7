"""Numbers of seeds that would decide open comparisons."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import chdtri, log_ndtr

from harness.stats.bounds import Bounds
from harness.stats.intervals import t_quantile

_NUMBERS = np.unique(np.concatenate([np.arange(2, 31), np.geomspace(30, 1000, 36)]).astype(int))
"""Candidate answers: every number of seeds up to 30, then steps of 10 %."""


def seeds_to_exclude_zero(found: Bounds, n: int, error: float) -> float:
    """Number of seeds of all cells with which these bounds exclude zero with probability 1/2; inf above 1,000.

    The estimates of the effect and of its noise are those with as much probability on either side. A pooled variance is
    below its true value more often than above, the more so the fewer its degrees of freedom. An effect that is asked
    for only because it is still open was seen smaller than it is. An own variance was taken because it was large, which
    makes up for the former.

    Args:
        n: seeds now. error: of one side of the bounds, which fixes how the t of a comparison falls with more seeds.
    """
    side = found.lower if found.effect > 0 else found.upper
    half = abs(found.effect - side.value)
    if half < abs(found.effect):
        return n  # that side is decided
    if not (math.isfinite(half) and found.effect and side.error > 0 and side.df > 0 and n > 1):
        return math.inf
    sd = side.error if side.own else side.error / math.sqrt(float(chdtri(side.df, 0.5)) / side.df)
    now = _median_ratio(abs(found.effect) / sd, half / sd)
    numbers = _NUMBERS[n < _NUMBERS]
    bounds = half / side.error * t_quantile(1 - error, side.df * (numbers - 1) / (n - 1))
    enough = numbers[now * np.sqrt(numbers / n) > bounds / t_quantile(1 - error, side.df)]
    return float(enough[0]) if len(enough) else math.inf


def _median_ratio(ratio: float, bound: float) -> float:
    """The true effect over its error for which, of all ratios below the bound, half are below the one that was seen."""

    def excess(truth: float) -> float:
        return float(log_ndtr(ratio - truth) - log_ndtr(bound - truth)) + math.log(2)

    largest = bound + 60
    return largest if excess(largest) > 0 else float(brentq(excess, ratio, largest))
