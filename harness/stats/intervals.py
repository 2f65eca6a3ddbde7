"""Student's t: quantiles, intervals of means, paired tests."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

ERROR = 0.05
"""Significance level of every test, and probability of a false verdict on a claim."""
CONFIDENCE = 1 - ERROR
"""Level of every interval shown."""


@dataclass(frozen=True)
class Estimate:
    """Values with standard errors (NaN if unknown) and degrees of freedom (0 if unknown).

    own: True where the error uses the own variance of a single cell instead of only the pooled one.
    """

    value: Floats
    error: Floats
    df: Floats
    own: Flags


def t_quantile(probability: float, df: ArrayLike) -> Floats:
    """Quantile of Student's t for an array of degrees of freedom, NaN where df is 0."""
    values, places = np.unique(df, return_inverse=True)
    found: Floats = np.array([_t(probability, float(value)) for value in values])[places].reshape(np.shape(df))
    return found


@lru_cache(maxsize=4096)
def _t(probability: float, df: float) -> float:
    return float(stdtrit(df, probability)) if df > 0 else np.nan


def tails(found: Estimate) -> Floats:
    """Two-sided p-value of each value against zero: NaN without an error, 0 or 1 where the error is zero."""
    known = np.isfinite(found.error) & (found.df > 0)
    size = np.divide(
        np.abs(found.value), found.error, out=np.full(known.shape, np.inf), where=known & (found.error > 0)
    )
    size = np.where(found.value == 0, 0.0, size)
    return np.where(known, 2 * stdtr(np.maximum(found.df, 1e-9), -size), np.nan)


def half_width(sd: Floats, n: Floats, df: Floats) -> Floats:
    """Half-width of the interval at CONFIDENCE of a mean of n values, from a standard deviation with df degrees."""
    found: Floats = t_quantile((1 + CONFIDENCE) / 2, df) * sd / np.sqrt(np.maximum(n, 1))
    return found


def paired(sums: ArrayLike) -> Estimate:
    """Means with their own standard errors over the last axis, seeds, which holds NaN where one is missing."""
    values = np.asarray(sums, dtype=np.float64)
    count = np.isfinite(values).sum(axis=-1)
    n = np.maximum(count, 1)
    mean = np.where(count > 0, np.nansum(values, axis=-1) / n, np.nan)
    squares = np.nansum((values - mean[..., None]) ** 2, axis=-1)
    error = np.where(count > 1, np.sqrt(squares / np.maximum(n - 1, 1) / n), np.nan)
    return Estimate(mean, error, np.maximum(count - 1, 0).astype(float), count > 1)
