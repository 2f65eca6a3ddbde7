"""Means, spreads and differences against values computed by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from fake_study import evaluation, finish, finish_all, half_finished, scope_plan
from scipy import stats

from harness.report import results_frame
from harness.report.notes import notes
from harness.report.statistics import summary
from harness.store import Store


def test_mean_and_sample_sd_by_hand(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan(seeds=3)
    values = {"masked": (80.0, 82.0, 87.0), "full": (79.0, 80.0, 84.0), "scratch": (70.0, 70.0, 70.0)}
    finish_all(store, plan, lambda row: values[row.axes["scope"]][row.seed])
    cells = summary(plan, results_frame(plan, store)).set_index("cell")
    assert cells.loc[0, "mean"] == 83.0
    assert cells.loc[0, "sd"] == pytest.approx(math.sqrt((9 + 1 + 16) / 2))
    assert cells.loc[3, "mean"] == 81.0
    assert cells.loc[3, "difference"] == pytest.approx(-2.0)
    assert (cells.loc[6, "mean"], cells.loc[6, "sd"], cells.loc[6, "difference"]) == (70.0, 0.0, -13.0)
    assert list(cells.index[cells["reference"]]) == [1]
    assert cells.loc[2, "n_planned"] == 0
    assert set(cells["n"]) == {0, 3}


def test_holes_are_counted(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan()
    half_finished(store, plan)
    cells = summary(plan, results_frame(plan, store)).set_index("cell")
    assert (cells.loc[0, "n"], cells.loc[0, "n_planned"], cells.loc[0, "failed"]) == (1, 2, 1)
    # One seed: the sd of the two cells with two, sqrt(0.5) and sqrt(2), pooled; the t of one degree of freedom.
    assert (cells.loc[0, "sd"], bool(cells.loc[0, "borrowed"])) == (pytest.approx(math.sqrt(1.25)), True)
    assert cells.loc[0, "high"] == pytest.approx(81 + stats.t.ppf(0.975, 1) * math.sqrt(1.25))
    # Seed 0 is 1.5 / 2 below the mean of both in the other two cells, so that 81 is worth 81.75 against 84.5.
    assert (cells.loc[0, "difference"], cells.loc[0, "paired"]) == (pytest.approx(-2.75), 1)
    assert set(cells["df"]) == {5 - 4}
    assert (cells.loc[4, "blocked"], cells.loc[4, "lost"]) == (1, 1)
    assert math.isnan(cells.loc[4, "mean"])
    assert cells.loc[2, "reason"] == "excluded: 0.99 hides all 16 units"
    assert cells.loc[6, "mask_ratio"] is None


def test_the_paper_is_joined_on_the_axes(tmp_path: Path) -> None:
    plan = scope_plan()
    cells = summary(plan, results_frame(plan, Store(tmp_path))).set_index("cell")
    assert list(cells["paper"].dropna()) == [82.5, 82.8, 81.75]
    assert list(cells.index[cells["paper_unverified"]]) == [4]
    assert cells.loc[4, "paper_trust"] == "memory"


def test_without_a_paper_there_is_no_column(tmp_path: Path) -> None:
    plan = scope_plan(paper=None)
    assert "paper" not in summary(plan, results_frame(plan, Store(tmp_path)))


def test_a_reference_without_values_gives_no_difference(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan()
    finish(store, evaluation(plan, 0, scope="scratch"), {"top1": 70.0})
    cells = summary(plan, results_frame(plan, store))
    assert cells["difference"].isna().all()
    assert set(cells["paired"]) == {0}


def test_what_becomes_of_a_noisy_reference_is_told(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan(seeds=3)
    values = {"masked": (80.0, 82.0, 87.0), "full": (79.0, 90.0, 84.0), "scratch": (70.0, 71.0, 76.0)}
    finish_all(store, plan, lambda row: values[row.axes["scope"]][row.seed])
    runs = results_frame(plan, store)
    cells = summary(plan, runs).assign(unequal=False)
    assert set(cells["apart"]) == {cells["p_apart"].iloc[0] < 0.3}
    told = "\n".join(notes(plan, runs, cells.assign(apart=True, p_apart=0.012)))
    assert "the reference's own residual variance, since it looks noisier than the rest (p = 0.012)" in told
    assert "pooled residual sd" not in told
    assert "pooled residual sd" in "\n".join(notes(plan, runs, cells.assign(apart=False)))
