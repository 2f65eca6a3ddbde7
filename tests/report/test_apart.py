"""One cell with a variance of its own against plain least squares, formulas by hand and exact distributions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness.report.additive import Floats, fit
from harness.report.apart import apart
from harness.report.statistics import differences


def _holed(seed: int, cells: int = 6, seeds: int = 5) -> Floats:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(cells, seeds)) + np.arange(cells)[:, None]
    values[generator.random(values.shape) < 0.2] = np.nan
    return values


def _design(values: Floats) -> tuple[Floats, Floats, Floats]:
    """One column a cell and a seed, a row a value; the values; the cell of each."""
    places = np.argwhere(np.isfinite(values))
    design = np.zeros((len(places), sum(values.shape)))
    for number, (cell, seed) in enumerate(places):
        design[number, [cell, len(values) + seed]] = 1
    return design, values[np.isfinite(values)], places[:, 0]


@pytest.mark.parametrize("seed", range(5))
def test_two_variances_with_holes_against_plain_least_squares(seed: int) -> None:
    values = _holed(seed)
    values[2] *= 3
    found = apart(fit(values), 2)
    design, observed, cells = _design(values)
    makers, degrees = [], []
    for rows in (np.ones(len(cells), dtype=bool), cells != 2):
        maker = np.zeros((len(cells), len(cells)))
        part = design[rows]
        maker[np.ix_(rows, rows)] = np.eye(rows.sum()) - part @ np.linalg.pinv(part)
        makers.append(maker)
        degrees.append(rows.sum() - np.linalg.matrix_rank(part))
    added_df, rest_df = degrees[0] - degrees[1], degrees[1]
    added, rest = observed @ (makers[0] - makers[1]) @ observed / added_df, observed @ makers[1] @ observed / rest_df
    assert (found.added_df, found.rest_df) == (added_df, rest_df)
    assert (found.added, found.rest) == (pytest.approx(added), pytest.approx(rest))
    assert found.p == pytest.approx(stats.f.sf(added / rest, added_df, rest_df))
    # E observed' M observed = sum of M_ii times the variance of value i.
    share = np.diag(makers[0] - makers[1])
    assert added_df * found.added == pytest.approx(share[cells == 2].sum() * found.own + share[cells != 2].sum() * rest)
    weights = np.array([[-1.0 if cell == 2 else float(cell == other) for cell in range(6)] for other in (0, 1, 3, 5)])
    coefficients = np.hstack([weights, np.zeros((4, 5))]) @ np.linalg.pinv(design)
    contrasts = found.contrasts(weights)
    np.testing.assert_allclose(contrasts.value, coefficients @ observed)
    np.testing.assert_allclose(contrasts.error**2, coefficients**2 @ np.where(cells == 2, found.own, rest))


def test_a_whole_table_by_hand() -> None:
    """The reference minus the mean of the others has n - 1 degrees of freedom and is independent of their residuals."""
    values = np.random.default_rng(1).normal(size=(5, 4)) * np.array([4.0, 1, 1, 1, 1])[:, None]
    found = apart(fit(values), 0)
    others = values[1:] - values[1:].mean(axis=0)
    rest = ((others - others.mean(axis=1, keepdims=True)) ** 2).sum() / 9
    own = (values[0] - values[1:].mean(axis=0)).var(ddof=1)
    assert found.p == pytest.approx(stats.f.sf(own / 1.25 / rest, 3, 9))
    assert found.own == pytest.approx(own - rest / 4)
    one = found.contrasts(np.array([[-1.0, 1, 0, 0, 0]]))
    parts = np.array([own, rest * 0.75]) / 4
    assert one.value[0] == pytest.approx(values[1].mean() - values[0].mean())
    assert one.error[0] == pytest.approx(np.sqrt(parts.sum()))
    assert one.df[0] == pytest.approx(parts.sum() ** 2 / (parts**2 / [3, 9]).sum())


@pytest.mark.parametrize("holes", [0.0, 0.2])
def test_the_check_is_right_as_often_as_it_says(holes: float) -> None:
    generator, found = np.random.default_rng(2), []
    for _ in range(400):
        values = generator.normal(size=(6, 4))
        values[generator.random(values.shape) < holes] = np.nan
        found.append(apart(fit(values), 0).p)
    assert stats.kstest(np.array(found)[np.isfinite(found)], "uniform").pvalue > 0.01


def test_differences_take_the_own_variance_of_a_noisy_reference_only() -> None:
    """Of the reference alone: another noisy cell, or a reference that is less noisy, changes nothing."""
    noise = np.random.default_rng(3).normal(size=(6, 5))
    model = fit(noise * np.array([3.0, 1, 1, 1, 1, 1])[:, None])
    object.__setattr__(model, "p_equal", 1.0)
    found, expected = differences(model, 0), apart(model, 0).contrasts(np.eye(6) - np.eye(6)[0])
    assert found["apart"].all()
    single = stats.t.ppf(0.975, expected.df) * expected.error
    np.testing.assert_allclose((found["difference_high"] - found["difference"])[1:], single[1:])
    together = found["simultaneous_high"] - found["difference"]
    assert (together[1:] > single[1:]).all()
    sidak = stats.t.ppf((1 + 0.95**0.2) / 2, expected.df) * expected.error
    assert (together[1:] < sidak[1:]).all()
    quiet = fit(noise * np.array([0.3, 1, 1, 1, 1, 1])[:, None])
    object.__setattr__(quiet, "p_equal", 1.0)
    assert not differences(quiet, 0)["apart"].any()
    object.__setattr__(model, "p_equal", 0.01)
    assert not differences(model, 0)["apart"].any()


def test_too_little_to_check() -> None:
    for values in (np.eye(2), np.eye(4)[:, :1], np.array([[1.0, np.nan], [1, 2], [2, 5], [0, 1]]), np.ones((4, 3))):
        model = fit(values)
        assert np.isnan(apart(model, 0).p)
        assert not differences(model, 0)["apart"].any()
    noisy = np.vstack([[1.0, 5.0, 2.0], np.zeros((3, 3))])
    assert apart(fit(noisy), 0).p == 0.0
    assert np.isfinite(differences(fit(noisy), 0)["simultaneous_high"][1:]).all()
