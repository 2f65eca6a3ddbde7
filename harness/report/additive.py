"""The model of a table: value = cell + seed + residual, by least squares, with seeds missing here and there.

A seed index gives every cell the same start and data order, so cells are compared within seeds. Residuals are pooled:
with k cells and n seeds the residual variance has (k - 1)(n - 1) degrees of freedom, where a paired t-test of two cells
has n - 1 only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

UNEQUAL = 0.2
"""Cells whose residuals look unequal with a p-value below this are compared with variances of their own.

It is this large because the damage is lopsided: a needless own variance costs power, a wrongly pooled one coverage.
Even so two to five seeds often cannot show that one cell is noisier than the rest. The reference, which enters every
difference, is checked by itself (harness.report.apart), and verdicts on claims take more care (harness.report.bounds).
"""

_DRAWS = 999
_SOME = 0.05
_LARGEST = 4_000_000
"""Simulated numbers held at once."""


@dataclass(frozen=True)
class Estimate:
    """Contrasts of cells: values, standard errors and degrees of freedom, NaN (and 0) where there are none."""

    value: Floats
    error: Floats
    df: Floats


@dataclass(frozen=True, eq=False)
class Additive:
    """A fitted table.

    Attributes:
        values: float [cells, seeds], NaN where there is none.
        cells: float [cells], least-squares means, comparable within a group of linked cells.
        links: float [seeds, seeds], generalised inverse of the seeds' normal equations.
        group: int [cells], equal for cells that are linked by seeds, directly or through others; -1 without a value.
        expected: float [cells], of each cell's squared residuals, summed, in units of the variance.
        variance: of the residuals, pooled; NaN without degrees of freedom.
        df: number of values minus the rank of the model.
        p_equal: p-value of the check that all cells have one residual variance; NaN where it cannot be made.
    """

    values: Floats
    cells: Floats
    links: Floats
    group: NDArray[np.int64]
    expected: Floats
    variance: float
    df: int
    p_equal: float

    @property
    def equal(self) -> bool:
        """Whether one variance is taken for all cells."""
        return not self.p_equal < UNEQUAL

    @property
    def n(self) -> NDArray[np.int64]:
        """int [cells], the number of values of each."""
        counts: NDArray[np.int64] = np.isfinite(self.values).sum(axis=1).astype(np.int64)
        return counts

    def contrasts(self, weights: Floats, *, own: bool | None = None) -> Estimate:
        """Weighted sums of cells, each row of weights [contrasts, cells] summing to zero.

        With one variance for all: least squares, pooled. With own variances: the same sum within each seed that has all
        of its cells, and a t of the seeds, which is exact however the variances differ.

        Args:
            own: take own variances or not; by default as the check says.
        """
        taken = not self.equal if own is None else own
        return self._paired(weights) if taken else self._pooled(weights)

    def pairs(self) -> Estimate:
        """Every cell minus every other: arrays [cells, cells]."""
        if not self.equal:
            rows = [paired(values - self.values) for values in self.values]
            return Estimate(*(np.array(rows_) for rows_ in zip(*((e.value, e.error, e.df) for e in rows), strict=True)))
        n = np.maximum(self.n, 1)
        shares = np.isfinite(self.values) / n[:, None]
        covariance = np.diag(1 / n) + shares @ self.links @ shares.T
        spread = np.diag(covariance)
        sizes = np.maximum(spread[:, None] + spread - 2 * covariance, 0.0)
        known = (self.group[:, None] == self.group) & (self.group >= 0)
        value = np.where(known, self.cells[:, None] - self.cells, np.nan)
        return Estimate(value, np.where(known, np.sqrt(self.variance * sizes), np.nan), np.where(known, self.df, 0.0))

    def sizes(self, weights: Floats, cell: int | None = None) -> Floats:
        """float [contrasts], variances of least-squares contrasts in units of the residual variance.

        Args:
            cell: only the part that comes from the residuals of this cell, those that reach the seeds included.
        """
        counts, present = np.maximum(self.n, 1), np.isfinite(self.values)
        shares = (weights / counts) @ present
        if cell is None:
            both: Floats = (weights**2 / counts).sum(axis=1) + np.einsum("ks,st,kt->k", shares, self.links, shares)
            return both
        seeds = (shares @ self.links)[:, present[cell]]
        spread = ((seeds - seeds.sum(axis=1, keepdims=True) / counts[cell]) ** 2).sum(axis=1)
        part: Floats = weights[:, cell] ** 2 / counts[cell] + spread
        return part

    def _pooled(self, weights: Floats) -> Estimate:
        used = weights != 0
        value = np.where(used, weights, 0.0) @ np.nan_to_num(self.cells)
        low = np.where(used, self.group, np.iinfo(np.int64).max).min(axis=1)
        high = np.where(used, self.group, -1).max(axis=1)
        known = (low == high) & (low >= 0)  # else the seeds do not link them
        error = np.sqrt(self.variance * np.maximum(self.sizes(weights), 0.0))
        return Estimate(np.where(known, value, np.nan), np.where(known, error, np.nan), np.where(known, self.df, 0.0))

    def _paired(self, weights: Floats) -> Estimate:
        absent = (weights != 0).astype(float) @ ~np.isfinite(self.values) > 0
        return paired(np.where(absent, np.nan, weights @ np.nan_to_num(self.values)))


def paired(sums: Floats) -> Estimate:
    """Means with their standard errors over the last axis, seeds, which holds NaN where one is missing."""
    count = np.isfinite(sums).sum(axis=-1)
    n = np.maximum(count, 1)
    mean = np.where(count > 0, np.nansum(sums, axis=-1) / n, np.nan)
    squares = np.nansum((sums - mean[..., None]) ** 2, axis=-1)
    error = np.sqrt(squares / np.maximum(n - 1, 1) / n)
    return Estimate(mean, np.where(count > 1, error, np.nan), np.maximum(count - 1, 0).astype(float))


def fit(values: Floats) -> Additive:
    """Fit the additive model to float [cells, seeds] with NaN for what is missing."""
    present = np.isfinite(values)
    links, components, expected = _design(present.tobytes(), *present.shape)
    cells, residuals = _solve(values, present, links)
    df = _degrees(present, components)
    variance = float((residuals**2).sum() / df) if df > 0 else np.nan
    first = np.argmax(np.hstack([present, np.ones((len(values), 1), dtype=bool)]), axis=1)
    group = np.append(components, -1)[first]  # of the first seed that has a value
    return Additive(values, cells, links, group, expected, variance, df, _check(residuals, present))


def squares(values: Floats) -> tuple[float, int]:
    """Sum of the squared residuals of float [cells, seeds], and its degrees of freedom."""
    present = np.isfinite(values)
    links, components, _ = _design(present.tobytes(), *present.shape)
    return float((_solve(values, present, links)[1] ** 2).sum()), _degrees(present, components)


def _degrees(present: Flags, components: NDArray[np.int64]) -> int:
    """Number of values minus the rank of the model."""
    rank = present.any(axis=1).sum() + present.any(axis=0).sum() - components.max(initial=-1) - 1
    return int(present.sum() - rank)


def _links(present: Flags) -> tuple[Floats, NDArray[np.int64]]:
    """Generalised inverse of the seeds' normal equations, and the group of linked seeds of each seed."""
    counts = np.maximum(present.sum(axis=1), 1)
    shared = present.astype(float).T @ (present / counts[:, None])
    normal = np.diag(present.sum(axis=0).astype(float)) - shared
    groups = np.full(present.shape[1], -1, dtype=np.int64)
    number = 0
    for seed in np.flatnonzero(present.any(axis=0)):
        if groups[seed] < 0:
            reached = np.zeros(len(groups), dtype=bool)
            reached[seed] = True
            while ((wider := reached | (shared[reached] > 0).any(axis=0)) != reached).any():
                reached = wider
            groups[reached] = number
            number += 1
    return np.linalg.pinv(normal, rcond=1e-10, hermitian=True), groups


def _solve(values: Floats, present: Flags, links: Floats) -> tuple[Floats, Floats]:
    """Cells and residuals of float [..., cells, seeds]; residuals are 0 where there is no value."""
    counts = np.maximum(present.sum(axis=1), 1)
    filled = np.where(present, values, 0.0)
    means = filled.sum(axis=-1) / counts
    centred = np.where(present, filled - means[..., None], 0.0)
    seeds = centred.sum(axis=-2) @ links
    shift = (seeds @ present.T) / counts
    residuals = np.where(present, centred - seeds[..., None, :] + shift[..., None], 0.0)
    return np.where(present.any(axis=1), means - shift, np.nan), residuals


@lru_cache(maxsize=64)
def _design(pattern: bytes, cells: int, seeds: int) -> tuple[Floats, NDArray[np.int64], Floats]:
    """What follows from where there are values: links, groups of seeds, expectations of squared residuals."""
    present = np.frombuffer(pattern, dtype=bool).reshape(cells, seeds)
    links, groups = _links(present)
    return links, groups, _expected(present, links)


def _check(residuals: Floats, present: Flags) -> float:
    """p-value of the hypothesis that the residuals of all cells have one variance, against any other.

    The statistic is the spread of the cells' variances, sum of h v^2 over (sum of h v)^2, where v is a cell's sum of
    squared residuals over its expectation h (the score test of normal variances). It does not depend on the variance,
    so its distribution is simulated for just these seeds and holes.
    """
    _, _, expected = _design(present.tobytes(), *present.shape)
    if (expected > _SOME).sum() < 3:  # of two cells the residuals are equal and opposite
        return np.nan
    null = _null(present.tobytes(), *present.shape)
    return float((1 + (null >= _spread(residuals[None], expected)[0]).sum()) / (1 + len(null)))


@lru_cache(maxsize=64)
def _null(pattern: bytes, cells: int, seeds: int) -> Floats:
    """The check's statistic in simulated tables of equal variances with values in the same places."""
    present = np.frombuffer(pattern, dtype=bool).reshape(cells, seeds)
    links, _, expected = _design(pattern, cells, seeds)
    draws = _DRAWS if present.size <= 20_000 else _DRAWS // 5
    block, generator = max(1, _LARGEST // present.size), np.random.default_rng(20_211)
    sizes = [min(block, draws - begin) for begin in range(0, draws, block)]
    noises = (generator.standard_normal((size, cells, seeds)) for size in sizes)
    return np.concatenate([_spread(_solve(noise, present, links)[1], expected) for noise in noises])


def _expected(present: Flags, links: Floats) -> Floats:
    """Expectation of each cell's sum of squared residuals in units of the variance."""
    n, flags = present.sum(axis=1), present.astype(float)
    inner = np.einsum("cs,st,ct->c", flags, links, flags)
    expected: Floats = n - 1.0 - (flags @ np.diag(links) - inner / np.maximum(n, 1))
    return expected


def _spread(residuals: Floats, expected: Floats) -> Floats:
    rows = expected > _SOME
    squares = (residuals[:, rows] ** 2).sum(axis=-1)
    shares = squares / np.maximum(squares.sum(axis=-1, keepdims=True), np.finfo(float).tiny)
    spread: Floats = (shares**2 / expected[rows]).sum(axis=-1)
    return spread


def t_quantile(probability: float, df: Floats | NDArray[np.int64] | int) -> Floats:
    """Quantile of Student's t at some degrees of freedom, NaN where there are none."""
    values, places = np.unique(df, return_inverse=True)
    found: Floats = np.array([_t(probability, float(value)) for value in values])[places].reshape(np.shape(df))
    return found


@lru_cache(maxsize=4096)
def _t(probability: float, df: float) -> float:
    return float(stdtrit(df, probability)) if df > 0 else np.nan
