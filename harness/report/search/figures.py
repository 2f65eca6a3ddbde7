"""The figures of a search: history, slices, contour, importance, Pareto front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.report.figures.drawing import COLOURS, GREY, MARKERS, plain, style
from harness.report.labels import axis_words, measure_label
from harness.report.search.numbers import best_so_far, front, means_by_pair
from harness.search.trials import Trial

COLUMNS = 3
FEW = 12
"""Up to this many values of a number are shown as categories in a contour."""


def figures(
    trials: Sequence[Trial], metrics: Sequence[str], directions: Sequence[str], importance: Mapping[str, float]
) -> dict[str, Figure]:
    """All figures that the trials give, by file name without ending."""
    told = [trial for trial in trials if trial.values and trial.twin is None]
    names = [*importance, *sorted({name for trial in told for name in trial.params} - set(importance))]
    found: dict[str, Figure] = {}
    if not told:
        return found
    with style():
        found["search-history"] = _history(trials, metrics[0], directions[0])
        found["search-slice"] = _slices(told, names, metrics[0])
        if importance:
            found["search-importance"] = _importance(importance)
        varied = [name for name in names if len({trial.params.get(name) for trial in told}) > 1]
        if len(varied) > 1:
            found["search-contour"] = _contour(told, varied[0], varied[1], metrics[0])
        if len(metrics) > 1:
            found["search-pareto"] = _pareto(told, metrics, directions)
    return found


def _history(trials: Sequence[Trial], metric: str, direction: str) -> Figure:
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes = figure.subplots()
    groups = (
        ("computed", COLOURS[0], "o", [t for t in trials if t.values and t.computed]),
        ("in the store before", COLOURS[1], "s", [t for t in trials if t.values and t.imported]),
        ("duplicate", GREY, ".", [t for t in trials if t.values and t.twin is not None]),
        (
            "pruned, last rung",
            COLOURS[3],
            "x",
            [t for t in trials if t.state == "pruned" and t.rungs and t.twin is None],
        ),
    )
    for label, colour, marker, found in groups:
        if found:
            values = [t.values[0] if t.values else t.rungs[max(t.rungs)] for t in found]
            axes.plot([t.number for t in found], values, marker, color=colour, label=label, alpha=0.7, markersize=4)
    line = best_so_far(trials, direction)
    axes.step([n for n, _ in line], [v for _, v in line], where="post", color=COLOURS[2], label="best so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trial")
    axes.set_ylabel(plain(measure_label(metric)))
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _slices(told: Sequence[Trial], names: Sequence[str], metric: str) -> Figure:
    rows = math.ceil(len(names) / COLUMNS)
    columns = min(COLUMNS, len(names))
    figure = Figure(figsize=(2.5 * columns + 0.6, 2.3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for panel, name in zip(panels.flat, names, strict=False):
        found = [trial for trial in told if name in trial.params]
        places, ticks = _places([trial.params[name] for trial in found])
        order = [trial.number for trial in found]
        panel.scatter(places, [trial.values[0] for trial in found], c=order, cmap="viridis_r", s=14, alpha=0.8)
        if ticks:
            panel.set_xticks(range(len(ticks)), ticks, rotation=_turn(ticks))
            panel.set_xlim(-0.5, len(ticks) - 0.5)
        elif len(distinct := sorted(set(places))) <= FEW // 2:
            panel.set_xticks(distinct, [f"{value:g}" for value in distinct])
            panel.margins(x=0.2)
        panel.set_xlabel(plain(axis_words(name)))
    for panel in list(panels.flat)[len(names) :]:
        panel.set_visible(False)
    for row in panels:
        row[0].set_ylabel(plain(measure_label(metric)))
    figure.suptitle("later trials darker", color=GREY, fontsize=8)
    return figure


def _places(values: Sequence[Any]) -> tuple[list[float], list[str]]:
    """Places on an axis and, for categories, the names of the ticks."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return [float(value) for value in values], []
    distinct = _distinct(values)
    return [float(distinct.index(value)) for value in values], [plain(str(value), 16) for value in distinct]


def _distinct(values: Sequence[Any]) -> list[Any]:
    found = list(dict.fromkeys(values))
    numbers = all(isinstance(value, int | float) for value in found)
    return sorted(found) if numbers else sorted(found, key=str)


def _contour(told: Sequence[Trial], left: str, right: str, metric: str) -> Figure:
    figure = Figure(figsize=(4.6, 3.6), layout="constrained")
    axes = figure.subplots()
    pairs = means_by_pair(told, left, right)
    xs, ys = _distinct([pair[0] for pair in pairs]), _distinct([pair[1] for pair in pairs])
    if len(xs) <= FEW and len(ys) <= FEW:
        grid = np.full((len(ys), len(xs)), np.nan)
        for (x, y), (value, _) in pairs.items():
            grid[ys.index(y), xs.index(x)] = value
        shown: Any = axes.imshow(grid, origin="lower", aspect="auto", cmap="viridis")
        for (x, y), (value, count) in pairs.items():
            ink = "black" if shown.norm(value) > 0.6 else "white"
            axes.text(xs.index(x), ys.index(y), str(count), ha="center", va="center", color=ink, fontsize=7)
        names = [plain(_short(x), 16) for x in xs]
        axes.set_xticks(range(len(xs)), names, rotation=_turn(names))
        axes.set_yticks(range(len(ys)), [plain(_short(y), 16) for y in ys])
        axes.grid(visible=False)
        axes.set_title("mean; how many trials", color=GREY, fontsize=8, loc="left")
    else:
        shown = _surface(axes, [(*pair, value) for pair, (value, _) in pairs.items()])
    axes.set_xlabel(plain(axis_words(left)))
    axes.set_ylabel(plain(axis_words(right)))
    figure.colorbar(shown, label=plain(measure_label(metric)))
    return figure


def _surface(axes: Axes, points: Sequence[tuple[Any, Any, float]]) -> Any:
    """Filled contours through the points of two numbers; the points alone where they span no plane."""
    xs, x_ticks = _places([point[0] for point in points])
    ys, y_ticks = _places([point[1] for point in points])
    values = [point[2] for point in points]
    if x_ticks:
        axes.set_xticks(range(len(x_ticks)), x_ticks, rotation=_turn(x_ticks))
    if y_ticks:
        axes.set_yticks(range(len(y_ticks)), y_ticks)
    spread = np.linalg.matrix_rank(np.stack([np.subtract(xs, xs[0]), np.subtract(ys, ys[0])]))
    if len(points) >= 4 and spread == 2:
        axes.tricontourf(xs, ys, values, levels=12, cmap="viridis")
    return axes.scatter(xs, ys, c=values, cmap="viridis", edgecolors="white", linewidths=0.5, s=22, zorder=3)


def _turn(names: Sequence[str]) -> float:
    """Long names are turned, so that they do not overlap."""
    return 30 if max(map(len, names)) > 5 else 0


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _importance(importance: Mapping[str, float]) -> Figure:
    figure = Figure(figsize=(4.4, 1.1 + 0.3 * len(importance)), layout="constrained")
    axes = figure.subplots()
    names = list(importance)[::-1]
    axes.barh([plain(axis_words(name)) for name in names], [importance[name] for name in names], color=COLOURS[0])
    axes.set_xlabel("importance (PED-ANOVA),\namong parameters that every trial has")
    axes.grid(visible=False, axis="y")
    return figure


def _pareto(told: Sequence[Trial], metrics: Sequence[str], directions: Sequence[str]) -> Figure:
    figure = Figure(figsize=(4.8, 3.4), layout="constrained")
    axes = figure.subplots()
    best = front(told, directions)
    axes.plot(
        [t.values[1] for t in told],
        [t.values[0] for t in told],
        MARKERS[0],
        color=GREY,
        alpha=0.5,
        markersize=4,
        label="trials",
    )
    axes.plot([t.values[1] for t in best], [t.values[0] for t in best], "o-", color=COLOURS[0], label="Pareto front")
    axes.set_xlabel(plain(measure_label(metrics[1])))
    axes.set_ylabel(plain(measure_label(metrics[0])))
    figure.legend(loc="outside lower center", ncols=2)
    return figure
