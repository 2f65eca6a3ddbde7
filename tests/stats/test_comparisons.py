"""Which cells are among the best, against bounds of scipy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from harness.stats.additive import fit
from harness.stats.comparisons import among_best


@pytest.mark.parametrize(("size", "told"), [(2.7, True), (3.3, False)])
def test_a_noisy_cell_is_compared_with_the_best_by_a_bound_for_all_four(size: float, told: bool) -> None:
    """Of five cells the second is noisy and lies t = 2.5 or 3.1 below the best, on 5.7 degrees of freedom: beyond what
    one comparison asks for at 95 % (1.97), within or beyond what each of four does (3.0)."""
    z = np.array([-2.0, -1.0, 0.0, 1.0, 2.0]) / math.sqrt(2.5)
    best = 10 + 0.1 * z[[2, 0, 4, 1, 3]]
    noisy = best - 3 * (1 + math.sqrt(5) / size * z)
    others = [5 + 0.1 * z[::-1], 5.5 + 0.1 * z[[1, 3, 0, 2, 4]], 6 + 0.1 * z[[3, 1, 0, 4, 2]]]
    model = fit(np.array([best, noisy, *others]))
    pairs = model.pairs()
    t, df = pairs.value[0, 1] / pairs.error[0, 1], pairs.df[0, 1]
    assert list(model.own) == [False, True, False, False, False]
    assert stats.t.ppf(0.95, df) < t
    assert (t < stats.t.ppf(1 - 0.05 / 4, df)) == told
    assert list(among_best(model)) == [True, told, False, False, False]
