"""The model of a table: value = cell + seed + residual, by least squares, with seeds missing here and there.

A seed index gives every cell the same start and data order, so cells are compared within seeds. Residuals are pooled:
with k cells and n seeds the residual variance has (k - 1)(n - 1) degrees of freedom, where a paired t-test of two cells
has n - 1 only.

One rule says whose variance a cell has, in tables, in claims and between two results. What a cell's n values add to the
residual squares of the others is independent of these, and over its degrees of freedom an F of theirs if variances are
equal (Chow 1960, Econometrica 28: 591). Where that F is large, the cell has a variance of its own; all others have the
pooled one. The variance of a comparison is the sum of its cells' parts, with degrees of freedom after Satterthwaite
(1946, Biometrics Bulletin 2: 110).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.special import fdtrc

from harness.stats.intervals import Estimate, Flags, Floats, paired

NOISIER = 0.25
"""A cell has a variance of its own where the p-value of its F is below this.

It is this large because the damage is lopsided: a needless own variance costs power, a wrongly pooled one coverage. So
an own variance is no finding that variances differ. Coverage of 95 % intervals in simulated studies, and how much wider
than pooled ones they are: tests/bench/statistics_truth.txt.
"""

_LEAST = 0.05
"""Degrees of freedom of a cell's own residuals below which they say nothing."""


@dataclass(frozen=True, eq=False)
class Additive:
    """A fitted table.

    Attributes:
        values: float [cells, seeds], NaN where there is none.
        cells: float [cells], least-squares means, comparable within a group of linked cells.
        links: float [seeds, seeds], generalised inverse of the seeds' normal equations.
        group: int [cells], equal for cells that are linked by seeds, directly or through others; -1 without a value.
        variance, df: of all residuals, pooled; NaN and 0 where the model leaves none.
        own: bool [cells], whether a cell has a variance of its own.
        variances, degrees: float [cells], of the residuals of each cell by the rule above, with degrees of freedom.
    """

    values: Floats
    cells: Floats
    links: Floats
    group: NDArray[np.int64]
    variance: float
    df: int
    own: Flags
    variances: Floats
    degrees: Floats

    @property
    def n(self) -> NDArray[np.int64]:
        """int [cells], the number of values of each."""
        counts: NDArray[np.int64] = np.isfinite(self.values).sum(axis=1).astype(np.int64)
        return counts

    def contrasts(self, weights: Floats) -> Estimate:
        """Weighted sums of cells by least squares; each row of weights [contrasts, cells] sums to zero."""
        used = weights != 0
        low = np.where(used, self.group, np.iinfo(np.int64).max).min(axis=1)
        high = np.where(used, self.group, -1).max(axis=1)
        value = np.where(used, weights, 0.0) @ np.nan_to_num(self.cells)
        shares = weights @ self._shares
        parts = weights**2 * self._parts
        spread = parts.sum(axis=1) + np.einsum("ks,st,kt->k", shares, self._between, shares)
        alone = np.where(self.own, parts, 0.0)
        known = (low == high) & (low >= 0)  # else the seeds do not link them
        worth = (alone**2 / self.degrees).sum(axis=1)
        return self._estimate(value, spread, alone.sum(axis=1), worth, known, (used & self.own).any(axis=1))

    def pairs(self) -> Estimate:
        """Every cell minus every other: arrays [cells, cells]."""
        within = self._shares @ self._between @ self._shares.T
        size = self._parts + np.diag(within)
        spread = size[:, None] + size - 2 * within
        alone = np.where(self.own, self._parts, 0.0)
        worth = alone**2 / self.degrees
        known = (self.group[:, None] == self.group) & (self.group >= 0)
        value, own = self.cells[:, None] - self.cells, self.own[:, None] | self.own
        return self._estimate(value, spread, alone[:, None] + alone, worth[:, None] + worth, known, own)

    @property
    def _shares(self) -> Floats:
        """float [cells, seeds], the weight of each value in the mean of its cell."""
        found: Floats = np.isfinite(self.values) / np.maximum(self.n, 1)[:, None]
        return found

    @property
    def _parts(self) -> Floats:
        """float [cells], variance of the mean of each cell, for given seeds."""
        return self.variances / np.maximum(self.n, 1)

    @property
    def _between(self) -> Floats:
        """float [seeds, seeds], covariance of the estimated effects of seeds."""
        present = np.isfinite(self.values).astype(float)
        scaled = present * np.nan_to_num(self.variances)[:, None]
        found: Floats = self.links @ (np.diag(scaled.sum(axis=0)) - scaled.T @ self._shares) @ self.links
        return found

    def _estimate(
        self, value: Floats, spread: Floats, alone: Floats, worth: Floats, known: Flags, own: Flags
    ) -> Estimate:
        """alone: the part of the variance that comes from cells with their own; worth: its squares over their df."""
        pooled = np.maximum(spread - alone, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            df = (alone + pooled) ** 2 / (worth + pooled**2 / self.df)
        df = np.where(own & np.isfinite(df), df, self.df)
        error = np.sqrt(np.maximum(spread, 0.0))
        return Estimate(
            np.where(known, value, np.nan), np.where(known, error, np.nan), np.where(known, df, 0.0), own & known
        )


def fit(values: Floats) -> Additive:
    """Fit the additive model to float [cells, seeds] with NaN for what is missing."""
    present = np.isfinite(values)
    links, components, scale, added_df, expected = _design(present.tobytes(), *present.shape)
    cells, residuals = _solve(values, present, links)
    rank = present.any(axis=1).sum() + present.any(axis=0).sum() - components.max(initial=-1) - 1
    df, squares = int(present.sum() - rank), float((residuals**2).sum())
    variance = squares / df if df > 0 else np.nan
    first = np.argmax(np.hstack([present, np.ones((len(values), 1), dtype=bool)]), axis=1)
    group = np.append(components, -1)[first]  # of the first seed that has a value
    added = (np.einsum("cst,cs->ct", scale, residuals) ** 2).sum(axis=1)
    square, rest = _over(added, added_df), _over(np.maximum(squares - added, 0.0), df - added_df)
    own = noisier(square, added_df, rest, df - added_df) & (expected > _LEAST)
    with np.errstate(invalid="ignore"):
        alone = rest + (square - rest) * _over(added_df, expected)  # the expectation of `square` mixes both variances
    return Additive(
        values, cells, links, group, variance, df, own,
        np.where(own, alone, variance), np.where(own, added_df, max(df, 1)),
    )  # fmt: skip


def noisier(square: Floats, df: Floats, rest: Floats, rest_df: Floats) -> Flags:
    """bool [cells], True if a cell gets its own variance: F test of its mean square against the rest, see NOISIER."""
    enough = (df > 0) & (rest_df > 0)
    p = fdtrc(np.where(enough, df, 1), np.where(enough, rest_df, 1), _over(square, rest))
    found: Flags = enough & (p < NOISIER)
    return found


def levels(values: Floats) -> Estimate:
    """Mean of each row of float [cells, seeds] with the error of a comparison with zero, not with other cells.

    What seeds have in common is noise here. The pooled variance of a row from seed to seed is the sum of two parts,
    that of the seeds and that of the residuals, so its degrees of freedom follow Satterthwaite. The rule
    of this module says which variance a row has.
    """
    alone, model = paired(values), fit(values)
    squares = np.nan_to_num(alone.error) ** 2 * alone.df * (alone.df + 1)
    total, count = float(squares.sum()), float(alone.df.sum())
    residual = model.variance * model.df if model.df > 0 else 0.0
    parts = ((residual, model.df), (max(total - residual, 0.0), count - model.df))
    worth = sum(part**2 / df for part, df in parts if df > 0)
    df = total**2 / worth if worth > 0 else count
    known = np.isfinite(alone.value) & (count > 0)
    error = np.where(known, np.sqrt(total / max(count, 1) / np.maximum(model.n, 1)), np.nan)
    rest_df = np.where(count > alone.df, np.maximum(df - alone.df, 1), 0)
    own = noisier(_over(squares, alone.df), alone.df, _over(total - squares, count - alone.df), rest_df)
    return Estimate(
        alone.value, np.where(own, alone.error, error), np.where(own, alone.df, np.where(known, df, 0.0)), own
    )


def _over(one: Floats, other: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = np.divide(one, other)
    return found


def _links(present: Flags) -> tuple[Floats, NDArray[np.int64]]:
    """Generalised inverse of the seeds' normal equations, and the group of linked seeds of each seed."""
    counts = np.maximum(present.sum(axis=1), 1)
    shared = present.astype(float).T @ (present / counts[:, None])
    normal = np.diag(present.sum(axis=0).astype(float)) - shared
    groups, kept = np.full(present.shape[1], -1, dtype=np.int64), present.any(axis=0)
    groups[kept] = connected_components(shared[np.ix_(kept, kept)] > 0, directed=False)[1]
    # Singular: in each group a constant can move from all seeds to all cells without a change of the fit.
    return np.linalg.pinv(normal, rcond=1e-10, hermitian=True), groups


def _solve(values: Floats, present: Flags, links: Floats) -> tuple[Floats, Floats]:
    """Cells and residuals of float [cells, seeds]; residuals are 0 where there is no value."""
    counts = np.maximum(present.sum(axis=1), 1)
    filled = np.where(present, values, 0.0)
    means = filled.sum(axis=1) / counts
    centred = np.where(present, filled - means[:, None], 0.0)
    seeds = centred.sum(axis=0) @ links
    shift = (present @ seeds) / counts
    residuals = np.where(present, centred - seeds + shift[:, None], 0.0)
    return np.where(present.any(axis=1), means - shift, np.nan), residuals


@lru_cache(maxsize=64)
def _design(pattern: bytes, cells: int, seeds: int) -> tuple[Floats, NDArray[np.int64], Floats, Floats, Floats]:
    """Quantities that depend only on which values are present; cached, since tables repeat the pattern.

    Returns:
        links and groups of seeds; then, for what each cell adds to the residual squares of the others: float [cells,
        seeds, seeds] that turn its residuals into as many independent values as it adds, their number, and the
        expectation of its residual squares in units of the variance.
    """
    present = np.frombuffer(pattern, dtype=bool).reshape(cells, seeds)
    links, groups = _links(present)
    flags = present.astype(float)
    centre = flags[:, :, None] * np.eye(seeds) - flags[:, :, None] * flags[:, None] / np.maximum(
        flags.sum(axis=1), 1)[:, None, None]  # fmt: skip
    covariance = centre - centre @ links @ centre  # of a cell's residuals, in units of the variance
    sizes, directions = np.linalg.eigh(covariance)
    kept = sizes > 1e-9  # others are zero but for rounding
    scale = np.where(kept, 1 / np.sqrt(np.where(kept, sizes, 1.0)), 0.0)
    return links, groups, directions * scale[:, None], kept.sum(axis=1).astype(float), sizes.sum(axis=1)
