"""Means, spreads and differences against values computed by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from fake_study import evaluation, finish, finish_all, finish_upstream, half_finished, scope_plan
from scipy import stats

from harness import claims
from harness.report.claims.verdicts import scored, verdict
from harness.report.collect import runs_frame
from harness.report.tables.footnotes import reading
from harness.report.tables.statistics import summary
from harness.report.tables.table import table
from harness.store import Store


def test_mean_and_sample_sd_by_hand(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan(seeds=3)
    values = {"masked": (80.0, 82.0, 87.0), "full": (79.0, 80.0, 84.0), "scratch": (70.0, 70.0, 70.0)}
    finish_all(store, plan, lambda row: values[row.axes["scope"]][row.seed])
    cells = summary(plan, runs_frame(plan, store)).set_index("cell")
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
    cells = summary(plan, runs_frame(plan, store)).set_index("cell")
    assert (cells.loc[0, "n"], cells.loc[0, "n_planned"], cells.loc[0, "failed"]) == (1, 2, 1)
    assert (cells.loc[0, "mean"], cells.loc[4, "n"]) == (81.0, 0)
    assert cells.loc[0, ["sd", "low", "high"]].isna().all()  # one seed has no spread, and borrows none
    assert cells.loc[1, "high"] == pytest.approx(84.5 + stats.t.ppf(0.975, 1) * math.sqrt(0.5 / 2))
    # Seed 0 is 1.5 / 2 below the mean of both in the other two cells, so that 81 is worth 81.75 against 84.5.
    assert cells.loc[0, "difference"] == pytest.approx(-2.75)
    assert cells.loc[0, "paired"] == 1
    assert set(cells["df"]) == {5 - 4}
    assert (cells.loc[4, "blocked"], cells.loc[4, "interrupted"]) == (1, 1)
    assert math.isnan(cells["mean"].tolist()[4])
    assert cells.loc[2, "reason"] == "excluded: 0.99 hides all 16 units"
    assert cells.loc[6, "mask_ratio"] is None


def test_the_paper_is_joined_on_the_axes(tmp_path: Path) -> None:
    plan = scope_plan()
    cells = summary(plan, runs_frame(plan, Store(tmp_path))).set_index("cell")
    assert list(cells["paper"].dropna()) == [82.5, 82.8, 81.75]
    assert list(cells.index[cells["paper_unverified"]]) == [4]
    assert cells.loc[4, "paper_trust"] == "memory"


def test_without_a_paper_there_is_no_column(tmp_path: Path) -> None:
    plan = scope_plan(paper=None)
    assert "paper" not in summary(plan, runs_frame(plan, Store(tmp_path)))


def test_a_reference_without_values_gives_no_difference(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan()
    finish(store, evaluation(plan, 0, scope="scratch"), {"top1": 70.0})
    cells = summary(plan, runs_frame(plan, store))
    assert cells["difference"].isna().all()
    assert set(cells["paired"]) == {0}


def test_whose_variance_the_differences_take_is_told(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan(seeds=3)
    values = {"masked": (80.0, 82.0, 87.1), "full": (79.0, 81.2, 86.0), "scratch": (60.0, 80.0, 70.0)}
    finish_all(store, plan, lambda row: values[row.axes["scope"]][row.seed])
    runs = runs_frame(plan, store)
    cells = summary(plan, runs)
    assert list(cells.loc[cells["own_variance"], "cell"]) == [6]
    told = "\n".join(reading(plan, runs, cells))
    assert "on 8 degrees of freedom. To be safe, 1 of 5 cells has its own variance" in told
    assert "unequal" not in told
    told = "\n".join(reading(plan, runs, cells.assign(own_variance=cells["cell"].isin([1, 6]))))
    assert "2 of 5 cells, the reference among them, have their own variance" in told
    plain = "\n".join(reading(plan, runs, cells.assign(own_variance=False)))
    assert "on 8 degrees of freedom. Their p-values are adjusted for all of them (Dunnett's test)." in plain


def test_a_difference_against_the_order_of_the_means_has_a_word(tmp_path: Path) -> None:
    """The reference has a bad seed that the other cell lacks: its mean is higher, its difference negative."""
    store, plan = Store(tmp_path), scope_plan(seeds=3)
    for seed, value in enumerate((80.0, 81.0, 70.0)):
        run = evaluation(plan, seed, scope="masked", mask_ratio=0.6)
        finish_upstream(store, run)
        finish(store, run, {"top1": value})
        finish(store, evaluation(plan, seed, scope="scratch"), {"top1": value - 5})
    for seed, value in enumerate((79.0, 80.5)):
        run = evaluation(plan, seed, scope="masked", mask_ratio=0.4)
        finish_upstream(store, run)
        finish(store, run, {"top1": value})
    runs = runs_frame(plan, store)
    cells = summary(plan, runs)
    means = cells["mean"].tolist()
    assert means[0] > means[1]
    assert cells.loc[0, "difference"] == pytest.approx(-0.75)
    rows = table(plan, runs, cells, wide=True).plain_rows()
    assert rows[0][-1].endswith("(by seed)")
    assert "by seed" not in rows[-1][-1]
    assert any(
        text.startswith("by seed: the cell and the reference have values of diff")
        for text in table(plan, runs, cells).reading
    )


@pytest.mark.parametrize(("seeds", "bold"), [(2, False), (3, True)])
def test_nothing_is_bold_at_two_seeds(tmp_path: Path, seeds: int, bold: bool) -> None:
    store, plan = Store(tmp_path), scope_plan(seeds=seeds)
    finish_all(store, plan, lambda row: 80.0 + row.seed + (row.axes["scope"] == "masked"))
    runs = runs_frame(plan, store)
    cells = summary(plan, runs)
    assert cells["best"].any() == bold
    told = "\n".join(reading(plan, runs, cells))
    assert ("Nothing is bold" in told) != bold
    assert ("With two seeds, intervals of differences cover less than 95 %" in told) != bold


def test_fine_tunings_nested_in_a_pre_training_count_once(tmp_path: Path) -> None:
    """Of pre-trainings with 80, 82 and 90, 94 the mean is that of 81 and 92, and n is 2."""
    store, plan = Store(tmp_path / "runs"), scope_plan(repeats=2)
    noise = {0: (80.0, 82.0), 1: (90.0, 94.0)}
    finish_all(store, plan, lambda row: noise[row.seed][row.repeat])
    runs = runs_frame(plan, store)
    cells = summary(plan, runs).set_index("cell")
    masked, scratch = cells.loc[0], cells.loc[6]
    assert (masked["n"], masked["values"], masked["mean"]) == (2, 4, 86.5)
    assert masked["sd"] == pytest.approx(11 / 2**0.5)
    assert (scratch["n"], scratch["values"], scratch["mean"]) == (2, 2, 85.0)
    claim = claims.better("x", {"scope": "masked"}, {"scope": "full"}, at={"mask_ratio": 0.4})
    assert verdict(claim, scored(plan, runs)).n == (2, 2)
