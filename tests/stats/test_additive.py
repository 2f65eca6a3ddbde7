"""The model of cells and seeds against plain least squares, and its tests against exact distributions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from harness.stats.additive import NOISIER, Additive, fit, levels
from harness.stats.intervals import Floats
from harness.stats.simultaneous import critical, groups, holm, largest_below


def _pooled(values: Floats) -> Additive:
    """The model without variances of single cells."""
    found = fit(values)
    return replace(found, own=np.zeros(len(values), dtype=bool), variances=np.full(len(values), found.variance))


def _holed(seed: int, cells: int = 5, seeds: int = 4) -> Floats:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(cells, seeds)) + np.arange(cells)[:, None]
    values[generator.random(values.shape) < 0.25] = np.nan
    return values


def _least_squares(values: Floats) -> tuple[NDArray[np.floating], NDArray[np.floating], float, int]:
    """Estimates and inverse of the normal equations of one column a cell and a seed, residual variance, df."""
    places = np.argwhere(np.isfinite(values))
    design = np.zeros((len(places), sum(values.shape)))
    for number, (cell, seed) in enumerate(places):
        design[number, [cell, len(values) + seed]] = 1
    observed = values[np.isfinite(values)]
    found, _, rank, _ = np.linalg.lstsq(design, observed, rcond=None)
    df = len(places) - int(rank)
    return found, np.linalg.pinv(design.T @ design), float(((observed - design @ found) ** 2).sum() / df), df


@pytest.mark.parametrize("seed", range(6))
def test_least_squares_with_holes(seed: int) -> None:
    values = _holed(seed)
    model = _pooled(values)
    found, inverse, variance, df = _least_squares(values)
    assert model.df == df
    assert model.variance == pytest.approx(variance)
    weights = np.array([[1.0, -1, 0, 0, 0], [0, 0.5, 0.5, -1, 0], [0, 0, 0, 1, -1]])
    weights = weights[[set(np.flatnonzero(row)) <= set(np.flatnonzero(model.n)) for row in weights]]
    padded = np.hstack([weights, np.zeros((len(weights), values.shape[1]))])
    estimate = model.contrasts(weights)
    np.testing.assert_allclose(estimate.value, padded @ found[: padded.shape[1]])
    np.testing.assert_allclose(estimate.error, np.sqrt(np.diag(padded @ inverse @ padded.T) * variance))


@pytest.mark.parametrize("seed", range(4))
def test_pairs_are_contrasts_of_two_cells(seed: int) -> None:
    values = _holed(seed)
    model = fit(values)
    found = model.pairs()
    for i, j in ((0, 1), (1, 3), (4, 2)):
        weights = np.zeros((1, len(values)))
        weights[0, [i, j]] = 1, -1
        one = model.contrasts(weights)
        for left, right in ((found.value, one.value), (found.error, one.error), (found.df, one.df)):
            assert left[i, j] == pytest.approx(right[0], nan_ok=True)
        assert found.own[i, j] == one.own[0]


def _design(values: Floats) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """One column a cell and a seed, a row a value; the values; the cell of each."""
    places = np.argwhere(np.isfinite(values))
    design = np.zeros((len(places), sum(values.shape)))
    for number, (cell, seed) in enumerate(places):
        design[number, [cell, len(values) + seed]] = 1
    return design, values[np.isfinite(values)], places[:, 0]


@pytest.mark.parametrize("seed", range(5))
def test_variances_of_single_cells_with_holes_against_plain_least_squares(seed: int) -> None:
    values = _holed(seed, cells=6, seeds=5)
    values[2] *= 10
    model = fit(values)
    design, observed, cells = _design(values)
    expected = np.full(6, model.variance)
    for cell in range(6):
        makers, degrees = [], []
        for rows in (np.ones(len(cells), dtype=bool), cells != cell):
            maker = np.zeros((len(cells), len(cells)))
            maker[np.ix_(rows, rows)] = np.eye(rows.sum()) - design[rows] @ np.linalg.pinv(design[rows])
            makers.append(maker)
            degrees.append(rows.sum() - np.linalg.matrix_rank(design[rows]))
        added_df, rest_df = degrees[0] - degrees[1], degrees[1]
        added, rest = (
            observed @ (makers[0] - makers[1]) @ observed / added_df,
            observed @ makers[1] @ observed / rest_df,
        )
        assert model.own[cell] == (stats.f.sf(added / rest, added_df, rest_df) < NOISIER)
        if model.own[cell]:
            # E observed' M observed = sum of M_ii times the variance of value i.
            share = np.diag(makers[0] - makers[1])
            expected[cell] = (added_df * added - share[cells != cell].sum() * rest) / share[cells == cell].sum()
            assert model.degrees[cell] == added_df
    assert model.own.any()
    np.testing.assert_allclose(model.variances, expected)
    weights = np.array([[-1.0 if cell == 2 else float(cell == other) for cell in range(6)] for other in (0, 1, 3, 5)])
    coefficients = np.hstack([weights, np.zeros((4, 5))]) @ np.linalg.pinv(design)
    contrasts = model.contrasts(weights)
    np.testing.assert_allclose(contrasts.value, coefficients @ observed)
    np.testing.assert_allclose(contrasts.error**2, coefficients**2 @ expected[cells])


def test_a_whole_table_by_hand() -> None:
    """The reference minus the mean of the others has n - 1 degrees of freedom and is independent of their residuals."""
    values = np.random.default_rng(1).normal(size=(5, 4)) * np.array([4.0, 1, 1, 1, 1])[:, None]
    model = fit(values)
    others = values[1:] - values[1:].mean(axis=0)
    rest = ((others - others.mean(axis=1, keepdims=True)) ** 2).sum() / 9
    own = (values[0] - values[1:].mean(axis=0)).var(ddof=1)
    assert list(model.own) == [True, False, False, False, False]
    assert stats.f.sf(own / 1.25 / rest, 3, 9) < NOISIER
    assert model.variances[0] == pytest.approx(own - rest / 4)
    one = model.contrasts(np.array([[-1.0, 1, 0, 0, 0]]))
    parts = np.array([own - rest / 4, (own * 0.8 * 3 + rest * 9) / 12]) / 4
    assert one.value[0] == pytest.approx(values[1].mean() - values[0].mean())
    assert one.error[0] == pytest.approx(np.sqrt(parts.sum()))
    assert one.df[0] == pytest.approx(parts.sum() ** 2 / (parts**2 / [3, 12]).sum())
    assert bool(one.own[0])


@pytest.mark.parametrize("holes", [0.0, 0.2])
def test_a_cell_is_called_noisier_as_often_as_it_says(holes: float) -> None:
    generator, found = np.random.default_rng(2), []
    for _ in range(500):
        values = generator.normal(size=(6, 4))
        values[generator.random(values.shape) < holes] = np.nan
        found.append(fit(values).own[0])
    assert stats.binom.ppf(0.001, 500, NOISIER) - 25 * (holes > 0) <= sum(found) <= stats.binom.ppf(0.999, 500, NOISIER)


def test_too_little_to_tell_a_noisy_cell() -> None:
    for values in (np.eye(2), np.eye(4)[:, :1], np.ones((4, 3)), np.full((3, 2), np.nan)):
        assert not fit(values).own.any()
    noisy = fit(np.vstack([[1.0, 5.0, 2.0], np.zeros((3, 3))]))
    assert list(noisy.own) == [True, False, False, False]
    assert np.isfinite(noisy.contrasts(np.array([[1.0, -1, 0, 0]])).error).all()


def test_two_cells_have_a_paired_t_and_no_rule() -> None:
    values = np.random.default_rng(4).normal(size=(2, 5))
    found = fit(values).contrasts(np.array([[1.0, -1]]))
    assert (found.df[0], bool(found.own[0])) == (4, False)
    assert found.value[0] / found.error[0] == pytest.approx(stats.ttest_rel(values[0], values[1]).statistic)


def test_levels_by_hand() -> None:
    """Rows of 3 and 3: the mean of their variances, with Satterthwaite's df of the seeds' and the residuals' part."""
    values = np.array([[1.0, 2, 4], [0, 3, 3]])
    found = levels(values)
    one, two = values.var(axis=1, ddof=1)
    common, residual = values.mean(axis=0).var(ddof=1) * 2, (values[0] - values[1]).var(ddof=1) / 2
    assert (one + two) / 2 == pytest.approx((common + residual) / 2)
    df = (common + residual) ** 2 / (common**2 / 2 + residual**2 / 2)
    np.testing.assert_allclose(found.value, values.mean(axis=1))
    for row, variance in enumerate((one, two)):
        others = (one + two) - variance
        if stats.f.sf(variance / others, 2, max(df - 2, 1)) < NOISIER:
            assert (found.error[row], found.df[row]) == (pytest.approx(np.sqrt(variance / 3)), 2)
        else:
            assert found.error[row] == pytest.approx(np.sqrt((one + two) / 2 / 3))
            assert found.df[row] == pytest.approx(df)


def test_levels_of_one_row_are_a_t_test_and_of_one_seed_borrow() -> None:
    values = np.array([[0.3, 0.1, 0.5, np.nan]])
    found = levels(values)
    assert found.value[0] / found.error[0] == pytest.approx(stats.ttest_1samp(values[0, :3], 0).statistic)
    both = levels(np.vstack([values, [[9.0, np.nan, np.nan, np.nan]]]))
    assert both.error[1] == pytest.approx(both.error[0] * np.sqrt(3))
    assert np.isnan(levels(values[:, :1]).error).all()
    assert np.isnan(levels(np.full((2, 3), np.nan)).value).all()


def test_holm_is_not_bonferroni() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    found = holm([np.nan, 0.02, 0.5])
    assert (np.isnan(found[0]), found[1], found[2]) == (True, pytest.approx(0.04), pytest.approx(0.5))


def test_cells_without_common_seeds_are_not_compared() -> None:
    values = np.array([[1.0, 2, np.nan, np.nan], [2, 3, np.nan, np.nan], [np.nan, np.nan, 5, 6], [np.nan] * 4])
    model = fit(values)
    found = model.contrasts(np.array([[1.0, -1, 0, 0], [1, 0, -1, 0], [1, 0, 0, -1]]))
    assert found.value[0] == pytest.approx(-1)
    assert np.isnan(found.value[1:]).all()
    assert model.df == 6 - (3 + 4 - 2)


def test_one_seed_or_one_cell_has_no_residuals() -> None:
    assert fit(np.array([[1.0], [2.0]])).df == 0
    assert np.isnan(fit(np.array([[1.0, 2.0, 3.0]])).variance)
    for empty in (fit(np.full((3, 2), np.nan)), fit(np.zeros((3, 0)))):
        assert (empty.df, list(empty.group)) == (0, [-1, -1, -1])
        assert np.isnan(empty.pairs().value).all()
    assert not np.isfinite(fit(np.full((3, 2), np.nan)).cells).any()


# Dunnett (1955, 1964), tables for alpha = 0.05: comparisons, degrees of freedom, one-sided and two-sided.
@pytest.mark.parametrize(
    ("number", "df", "one", "two"),
    [(1, 10, 1.81, 2.23), (3, 10, 2.34, 2.76), (2, 5, 2.44, 3.03)],
)
def test_bounds_of_dunnett(number: int, df: int, one: float, two: float) -> None:
    shares = groups(1.0, np.ones(number))
    assert critical(0.05, shares, df) == pytest.approx(one, abs=0.006)
    assert critical(0.05, shares, df, two_sided=True) == pytest.approx(two, abs=0.006)


def test_unequal_numbers_against_the_multivariate_t() -> None:
    control, others, df = 1 / 4, np.array([1 / 2, 1 / 2, 1 / 7]), 6
    shares = np.sqrt(control / (control + others))
    shape = np.outer(shares, shares)
    np.fill_diagonal(shape, 1.0)
    expected = stats.multivariate_t.cdf([2.0, 2.0, 2.0], shape=shape, df=df, random_state=0)
    found = largest_below(np.array(2.0), groups(control, others), df, two_sided=False)
    assert float(found) == pytest.approx(expected, abs=2e-4)
