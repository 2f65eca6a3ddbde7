"""The model of cells and seeds against plain least squares, and its tests against exact distributions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness.report.additive import Floats, fit
from harness.report.simultaneous import critical, groups, largest_below


def _holed(seed: int, cells: int = 5, seeds: int = 4) -> Floats:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(cells, seeds)) + np.arange(cells)[:, None]
    values[generator.random(values.shape) < 0.25] = np.nan
    return values


def _least_squares(values: Floats) -> tuple[Floats, Floats, float, int]:
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
    model = fit(values)
    found, inverse, variance, df = _least_squares(values)
    assert (model.df, model.variance) == (df, pytest.approx(variance))
    weights = np.array([[1.0, -1, 0, 0, 0], [0, 0.5, 0.5, -1, 0], [0, 0, 0, 1, -1]])
    weights = weights[[set(np.flatnonzero(row)) <= set(np.flatnonzero(model.n)) for row in weights]]
    padded = np.hstack([weights, np.zeros((len(weights), values.shape[1]))])
    estimate = model.contrasts(weights, own=False)
    np.testing.assert_allclose(estimate.value, padded @ found[: padded.shape[1]])
    np.testing.assert_allclose(estimate.error, np.sqrt(np.diag(padded @ inverse @ padded.T) * variance))


def test_pairs_are_contrasts_of_two_cells() -> None:
    values = _holed(3)
    model = fit(values)
    for own in (False, True):
        object.__setattr__(model, "p_equal", 0.0 if own else 1.0)
        found = model.pairs()
        weights = np.zeros((1, len(values)))
        weights[0, [1, 3]] = 1, -1
        one = model.contrasts(weights)
        for left, right in ((found.value, one.value), (found.error, one.error), (found.df, one.df)):
            assert left[1, 3] == pytest.approx(right[0])


def test_own_variances_are_paired_t_tests() -> None:
    values = np.random.default_rng(0).normal(size=(4, 6))
    one = fit(values).contrasts(np.array([[1.0, -1, 0, 0]]), own=True)
    assert one.value[0] / one.error[0] == pytest.approx(stats.ttest_rel(values[0], values[1]).statistic)
    assert one.df[0] == 5


def test_cells_without_common_seeds_are_not_compared() -> None:
    values = np.array([[1.0, 2, np.nan, np.nan], [2, 3, np.nan, np.nan], [np.nan, np.nan, 5, 6], [np.nan] * 4])
    model = fit(values)
    found = model.contrasts(np.array([[1.0, -1, 0, 0], [1, 0, -1, 0], [1, 0, 0, -1]]), own=False)
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


def test_the_check_of_variances_is_right_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    equal = [fit(generator.normal(size=(8, 4))).p_equal for _ in range(400)]
    assert stats.kstest(equal, "uniform").pvalue > 0.01
    spread = np.where(np.arange(8) == 0, 6.0, 1.0)[:, None]
    assert np.mean([fit(spread * generator.normal(size=(8, 4))).p_equal < 0.05 for _ in range(100)]) > 0.8


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
