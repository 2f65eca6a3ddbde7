"""Heat maps of two axes: what they hold, when there are any, and that all of them can be drawn."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_study import finish_all, scope_cell, scope_plan

from harness.report.collect import runs_frame
from harness.report.figures import drawing
from harness.report.figures.heatmap import LARGEST, Heatmap, draw_heatmap, heatmaps
from harness.report.labels import Words
from harness.report.tables.statistics import summary
from harness.spec import Evaluation, Scale, Skip
from harness.store import Store
from harness.study import Plan, around, axes


def cell(scale: Scale, seed: int, **point: object) -> dict[str, Evaluation]:
    if point.get("size") == 64 and point.get("ratio") == 0.8:
        raise Skip("does not fit")
    return scope_cell(scale, "masked", (1 + sum(map(ord, repr(sorted(point.items())))) % 800) / 1000, seed)


def maps(plan: Plan, store: Store) -> list[list[Heatmap]]:
    cells = summary(plan, runs_frame(plan, store))
    return heatmaps(cells, Words.of(plan, cells))


def test_means_and_holes_at_their_places(tmp_path: Path) -> None:
    grid = axes(size=(32, 16, 64), ratio=(0.8, 0.4))
    plan = scope_plan(cell=cell, grid=grid, reference={"size": 32, "ratio": 0.4}, paper=None)
    store = Store(tmp_path)
    finish_all(store, plan, lambda row: row.axes["size"] + row.axes["ratio"] + 2 * row.seed)
    ((found,),) = maps(plan, store)
    assert (found.rows, found.columns) == (("size", ("16", "32", "64")), ("ratio", ("0.4", "0.8")))
    assert found.means[0] == pytest.approx((17.4, 17.8))
    assert found.means[2][0] == pytest.approx(65.4)
    assert math.isnan(found.means[2][1])
    assert found.holes == (("", ""), ("", ""), ("", "excluded"))
    assert found.reference == (1, 0)
    with drawing.style():
        figure = draw_heatmap(found)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["17.4", "17.8", "33.4", "33.8", "65.4", "excluded"]
    assert figure.axes[0].get_title(loc="left") == "framed: reference, 1 of 6 without a number"


def test_a_map_is_drawn_once_most_of_it_is_done(tmp_path: Path) -> None:
    grid = axes(head=("$a$", "b" * 90, "c"), target=("<i>", "中"))
    plan = scope_plan(cell=cell, grid=grid, reference={"head": "c", "target": "<i>"}, paper=None)
    cells = summary(plan, runs_frame(plan, Store(tmp_path)))
    assert heatmaps(_done(cells, 3), Words.of(plan, cells)) == []
    ((found,),) = heatmaps(_done(cells, 4), Words.of(plan, cells))
    assert found.holes == (("", ""), ("", ""), ("missing", "missing"))
    with drawing.style():
        figure = draw_heatmap(found)
        assert drawing.pdf(figure).startswith(b"%PDF")
    assert figure.axes[0].get_title(loc="left").endswith("2 of 6 without a number")
    assert figure.get_size_inches()[0] in (drawing.ONE, drawing.TWO)


def test_one_for_each_combination_of_the_other_axes(tmp_path: Path) -> None:
    grid = axes(arm=("x", "y"), size=(1, 2, 3), ratio=(0.1, 0.2))
    plan = scope_plan(cell=cell, grid=grid, reference={"arm": "x", "size": 1, "ratio": 0.1}, paper=None)
    store = Store(tmp_path)
    finish_all(store, plan)
    (pages,) = maps(plan, store)
    assert [(page.label, page.reference) for page in pages] == [("x", (0, 0)), ("y", None)]


@pytest.mark.parametrize(
    "grid",
    [
        axes(size=(1, 2), ratio=(0.1, 0.2)),  # four numbers are no map
        axes(size=(1, 2, 3), head=("a", "b")),  # lines show that
        axes(size=tuple(range(LARGEST + 1)), ratio=(0.1, 0.2)),
        axes(backbone=("a", "b", "c"), head=("a", "b")),  # no common scale
        around({"size": 1, "ratio": 0.1}, size=(1, 2, 3), ratio=(0.1, 0.2, 0.3)),  # a cross, mostly empty
    ],
)
def test_where_a_map_tells_nothing_there_is_none(tmp_path: Path, grid: object) -> None:
    first = dict(next(iter(grid)))  # type: ignore[call-overload]
    plan = scope_plan(cell=cell, grid=grid, reference=first, paper=None)
    cells = summary(plan, runs_frame(plan, Store(tmp_path)))
    assert heatmaps(_done(cells, len(cells)), Words.of(plan, cells)) == []


def _done(cells: pd.DataFrame, count: int) -> pd.DataFrame:
    """Cells as if the first so many had values."""
    there = np.arange(len(cells)) < count
    return cells.assign(n=there * 2, mean=np.where(there, 80.0, np.nan))
