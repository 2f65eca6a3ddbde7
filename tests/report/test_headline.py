"""The headline of a page: what pre-training gained and which cells differ, in sentences with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_study import finish_all, scope_plan

from harness.report.collect import runs_frame
from harness.report.headline import headline
from harness.report.tables.statistics import summary
from harness.store import Store
from harness.study import Plan, Row


def said(path: Path, plan: Plan, value: Callable[[Row], float] | None) -> str:
    store = Store(path)
    if value is not None:
        finish_all(store, plan, value)
    runs = runs_frame(plan, store)
    return headline(plan, summary(plan, runs))


def test_nothing_is_said_of_nothing(tmp_path: Path) -> None:
    assert said(tmp_path, scope_plan(), None) == "The reference has no value yet."


def test_gain_over_scratch_and_cells_that_differ(tmp_path: Path) -> None:
    level = {"masked": 84.0, "full": 80.0, "scratch": 70.0}

    def value(row: Row) -> float:
        # Two seeds apart by 2 in every cell: sd sqrt(2), and no residual but what the full cells add.
        return level[str(row.axes["scope"])] + 2 * row.seed + 0.02 * row.seed * (row.axes["scope"] == "full")

    text = said(tmp_path, scope_plan(), value)
    half = 12.706 * math.sqrt(2) / math.sqrt(2)
    assert text.startswith(
        f"The reference has top-1 accuracy 85.0 (95 % interval {85 - half:.1f} to {85 + half:.1f}), n = 2."
    )
    assert "Over training from scratch it gains +14.0 (" in text
    assert (
        "Worse than it: scope full, mask ratio 0.4 by −4.0 (" in text or "Worse than it: scope full by −4.0 (" in text
    )
    assert "1 other cell is not told from it." in text
    assert "Better" not in text


@pytest.mark.parametrize("seeds", [2, 5])
def test_no_difference_says_how_large_one_may_be(tmp_path: Path, seeds: int) -> None:
    def value(row: Row) -> float:
        return 80 + math.sin(7 * row.seed + 3 * len(str(dict(row.axes))))

    text = said(tmp_path, scope_plan(seeds=seeds), value)
    assert "None of the 3 other cells is told from it; one may differ by" in text
    assert "which noise alone may explain" in text
