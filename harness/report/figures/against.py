"""Our difference from the reference over the paper's, cell by cell: where both agree, a point lies on the diagonal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.report.collect import axes_of, records
from harness.report.escape import shown
from harness.report.figures import drawing
from harness.report.figures.data import BACKBONE, LINES, Cell, cell_labels, panel_axis
from harness.report.labels import Words
from harness.report.tables.statistics import model_of
from harness.stats.intervals import CONFIDENCE, t_quantile

SIGNS = LINES * 2
"""Labels that a figure has signs for: two shapes of each colour."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A cell minus the reference, in the paper (x) and here (y).

    half: half the width of our 95 % interval, NaN for one seed. unverified: of either of the paper's two values.
    """

    label: str
    paper: float
    ours: float
    half: float
    unverified: bool


@dataclass(frozen=True, kw_only=True)
class AgainstFigure:
    """The differences of an evaluation. measure: it in words. title: what the labels hold.

    at: axis whose values have a reference each, in words; empty if there is one for all.
    """

    evaluation: str
    measure: str
    title: str
    at: str
    points: tuple[Difference, ...]


def against_figures(runs: pd.DataFrame, cells: pd.DataFrame, words: Words) -> list[AgainstFigure]:
    """A figure for each evaluation of which a cell and its reference have a number here and in the paper."""
    if "paper" not in cells:
        return []
    parts = (part for _, part in cells.groupby("evaluation", sort=False))
    return [figure for part in parts if (figure := _figure(part, runs, words)).points]


def _figure(part: pd.DataFrame, runs: pd.DataFrame, words: Words) -> AgainstFigure:
    cells, points = records(part), records(part[axes_of(part)])
    bases = _bases(part, points)
    found = model_of(part, runs).pairs()
    halves = t_quantile((1 + CONFIDENCE) / 2, found.df) * found.error
    drawn = [
        (number, base)
        for number, base in bases.items()
        if number != base and all(np.isfinite(cells[one][of]) for one in (number, base) for of in ("paper", "mean"))
    ]
    title, labels = _labels([points[number] for number, _ in drawn], [points[base] for _, base in drawn], words)
    name = str(part["evaluation"].iloc[0])
    return AgainstFigure(
        evaluation=name,
        measure=words.evaluation(name),
        title=title,
        at=words.axis(BACKBONE) if len({base for _, base in drawn}) > 1 else "",
        points=tuple(
            Difference(
                label=label,
                paper=cells[number]["paper"] - cells[base]["paper"],
                ours=float(found.value[number, base]),
                half=float(halves[number, base]),
                unverified=bool(cells[number]["paper_unverified"] or cells[base]["paper_unverified"]),
            )
            for label, (number, base) in zip(labels, drawn, strict=True)
        ),
    )


def _bases(part: pd.DataFrame, points: Sequence[Cell]) -> dict[int, int]:
    """The row that each is compared with: the reference, or what the reference is with the cell's own backbone.

    Two backbones differ by more than what a study asks. Cells of a backbone that has no such row are left out.
    """
    reference = next((points[number] for number, yes in enumerate(part["reference"]) if yes), None)
    if reference is None:
        return {}
    found = {}
    for number, point in enumerate(points):
        base = {**reference, **({BACKBONE: point[BACKBONE]} if BACKBONE in point else {})}
        if base in points:
            found[number] = points.index(base)
    return found


def _labels(points: Sequence[Cell], bases: Sequence[Cell], words: Words) -> tuple[str, list[str]]:
    """A title and a label of each point: what tells it apart, or of many points their panel in the other figures."""
    one = bases[0] if len({tuple(base.values()) for base in bases}) == 1 else None
    title, labels = cell_labels([*points, *bases], one, words)
    if len(set(labels[: len(points)])) <= SIGNS:
        return title, labels[: len(points)]
    panel = panel_axis(points)
    return words.axis(panel), [shown(point[panel]) if panel else "" for point in points]


def draw(data: AgainstFigure) -> Figure:
    """Points with our intervals, open where the paper's value is unverified, and the diagonal of equal differences."""
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    for level in (axes.axhline, axes.axvline):
        level(0, color=drawing.GREY, linewidth=0.6, zorder=1)
    axes.axline((0, 0), slope=1, color=drawing.GREY, linestyle="--", linewidth=0.9, zorder=1, label="as in the paper")
    labels = list(dict.fromkeys(point.label for point in data.points))
    for point, place in zip(data.points, _places(data.points), strict=True):
        _draw_point(axes, point, place, labels.index(point.label))
    drawing.mark_reference(axes, 0, 0)
    axes.margins(0.08)
    own = f" of its {data.at}" if data.at else ""
    axes.set_xlabel(f"paper: minus the reference{own}")
    axes.set_ylabel(f"ours: {drawing.plain(data.measure)}\nminus the reference{own}, own 95% intervals")
    drawing.finish(figure, width=drawing.ONE, title=data.title, height=2.9)
    return figure


def _places(points: Sequence[Difference]) -> list[float]:
    """Places on the paper's axis: as published, and a little beside each other where several are equal."""
    reach, found = max(abs(point.paper) for point in points), []
    for number, point in enumerate(points):
        alike = [other for other, same in enumerate(points) if math.isclose(same.paper, point.paper, abs_tol=1e-9)]
        shift = alike.index(number) - (len(alike) - 1) / 2
        found.append(point.paper + shift * reach * min(0.02, 0.06 / len(alike)))
    return found


def _draw_point(axes: Axes, point: Difference, place: float, number: int) -> None:
    colour = drawing.COLOURS[number % LINES]
    marker = drawing.MARKERS[(number + number // LINES) % LINES]
    face = "white" if point.unverified else colour
    error = 0.0 if math.isnan(point.half) else point.half
    axes.errorbar(
        [place], [point.ours], yerr=[error], color=colour, marker=marker, markerfacecolor=face, linestyle="",
        elinewidth=0.8, label=drawing.plain(point.label) if point.label else None, zorder=3,
    )  # fmt: skip
