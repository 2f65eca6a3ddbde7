"""Studies with known truth, in small: tests/bench/statistics_truth.py with few replications."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fake_study import bench
from scipy import stats

REPLICATIONS = 150


BENCH: Any = bench("statistics_truth")
LEAST, MOST = (int(stats.binom.ppf(share, REPLICATIONS, 0.95)) for share in (1e-4, 1 - 1e-4))
FALSE = int(stats.binom.ppf(1 - 1e-4, REPLICATIONS, 0.05))


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_intervals_cover(seeds: int) -> None:
    found = BENCH.coverage(6, seeds, "equal", REPLICATIONS, np.random.default_rng(seeds))
    for share in (found.means, found.worst, found.together):
        assert share * REPLICATIONS >= LEAST
    assert found.differences * REPLICATIONS <= MOST
    assert found.best * REPLICATIONS >= LEAST if seeds > 2 else found.best == 0


def test_means_cover_whatever_the_variances() -> None:
    found = BENCH.coverage(6, 3, "first x 3", REPLICATIONS, np.random.default_rng(0))
    assert found.means * REPLICATIONS >= LEAST
    assert found.own > 0.15


@pytest.mark.slow
def test_differences_from_a_noisy_reference_cover() -> None:
    """At two to five seeds 0.93 on average; with the pooled variance alone it is 0.87."""
    found = [BENCH.coverage(9, n, "first x 3", 2 * REPLICATIONS, np.random.default_rng(n)) for n in (2, 3, 5)]
    assert np.mean([one.differences for one in found]) > 0.9
    assert np.mean([one.together for one in found]) > 0.9
    assert min(one.own for one in found) > 0.1


Look = Callable[[Any, np.random.Generator], Any]


def _one(case: Any, generator: np.random.Generator) -> Any:
    return BENCH.one_look(case, 3, "log-normal 0.5", REPLICATIONS, generator)


def _several(case: Any, generator: np.random.Generator) -> Any:
    return BENCH.several_looks(case, (2, 4), "log-normal 0.5", REPLICATIONS, generator)


@pytest.mark.parametrize("case", BENCH.cases(), ids=lambda case: case.name)
@pytest.mark.parametrize("look", [_one, pytest.param(_several, marks=pytest.mark.slow)])
def test_false_verdicts_are_rare(case: Any, look: Look) -> None:
    found = look(case, np.random.default_rng(1))
    assert sum(found.values()) == REPLICATIONS
    assert max(BENCH.false_rates(case, found)) * REPLICATIONS <= FALSE


def test_normal_bounds_at_three_seeds_would_be_false_too_often() -> None:
    """What the calibration prevents: 1.96 for a paired t of three seeds, and four looks at 5 % each."""
    generator = np.random.default_rng(4)
    values = generator.standard_normal((4000, 10))
    t = np.array([stats.ttest_1samp(values[:, :n], 0, axis=1).statistic for n in (3, 5, 8, 10)])
    assert np.mean(np.abs(t[0]) > 1.96) > 0.15
    assert np.mean((np.abs(t) > 1.96).any(axis=0)) > 0.2
