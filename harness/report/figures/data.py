"""Data of the figures: accuracy over numeric axes, cells side by side, learning curves."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from harness.report.collect import Arm, axes_of, records
from harness.report.escape import NOTHING, shorten, shown
from harness.report.labels import Words
from harness.report.tables.footnotes import count_words
from harness.report.tables.statistics import units
from harness.spec import Scalar
from harness.store import Store

LINES = 7
"""Lines per picture: the number of colours that are distinct with any colour vision."""

PANELS = 3
"""Panels side by side in one picture."""

BACKBONE = "backbone"
"""Axis whose values always have panels of their own: accuracies of two backbones are no one comparison."""

PART_LENGTH = 24
"""Most characters of one value in a label of several."""

NAMES = Words()
"""Names of axes as they are."""

T = TypeVar("T")

Cell = Mapping[str, Scalar]
Seeds = Mapping[tuple[int, str], tuple[float, ...]]
"""Values of all pre-trainings, as the table counts them, by cell number and evaluation."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A cell in a figure.

    x: value on the axis; the position from the top where cells stand side by side. mean, sd: over `seeds`, the value
    of each pre-training, averaged over the evaluations nested in it; mean is NaN where there is none, sd where there is
    one. hole: reason why there is no mean, in a word; empty if there is one. paper: the published value or NaN. panel:
    the one that it stands in, "" for all.
    """

    x: float
    label: str
    mean: float
    sd: float
    seeds: tuple[float, ...]
    hole: str
    reference: bool
    paper: float
    unverified: bool
    panel: str = ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Points that differ on one axis only, ordered by x. panel: the one that it stands in."""

    label: str
    points: tuple[Point, ...]
    panel: str = ""

    @property
    def paper_points(self) -> tuple[Point, ...]:
        """Points with a published value."""
        return tuple(point for point in self.points if not math.isnan(point.paper))


@dataclass(frozen=True, kw_only=True)
class AxisFigure:
    """An evaluation over a numeric axis.

    measure, over: evaluation and axis in words. lines: one for each combination of the other axes. title: what their
    labels hold. controls: cells that the axis does not apply to. log: True if the values of the axis are spread
    geometrically. absent: cells without a number, as words. aside: how many cells with a number are not drawn, since no
    other cell differs from them on the axis alone. name: distinguishes a page by its panels, if several do.
    """

    evaluation: str
    axis: str
    measure: str
    over: str
    title: str
    lines: tuple[Line, ...]
    controls: tuple[Point, ...]
    log: bool
    absent: str
    aside: int = 0
    name: str = ""

    @property
    def panels(self) -> tuple[str, ...]:
        """Panels of the lines, in their order; one without a name where there are no several."""
        return tuple(dict.fromkeys(line.panel for line in self.lines))

    def controls_in(self, panel: str) -> list[Point]:
        """Controls that stand in a panel."""
        return [point for point in self.controls if point.panel in ("", panel)]

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the lines, each once, numbers ascending: lines of two panels that have the same look alike."""
        return tuple(ascending(dict.fromkeys(line.label for line in self.lines)))

    @property
    def shows_paper(self) -> bool:
        """True if a line has at least two published values."""
        return any(len(line.paper_points) > 1 for line in self.lines)

    @property
    def values(self) -> tuple[float, ...]:
        """Values of the axis, ascending, without those excluded in every line that the paper has no number of."""
        points = [point for line in self.lines for point in line.points]
        # Values that cannot run would stretch the axis for nothing.
        kept = {point.x for point in points if point.hole != "excluded" or not math.isnan(point.paper)}
        return tuple(sorted(kept or {point.x for point in points}))

    def pages(self) -> list[AxisFigure]:
        """The figure in parts of `PANELS` panels with `LINES` labels."""
        return [
            replace(self, lines=lines, name=", ".join(panels) if len(self.panels) > PANELS else "")
            for panels in parts(self.panels, PANELS)
            for labels in parts(self.labels, LINES)
            if (lines := tuple(line for line in self.lines if line.panel in panels and line.label in labels))
        ]


@dataclass(frozen=True, kw_only=True)
class CellsFigure:
    """An evaluation of cells side by side, those of a panel together. measure: the evaluation in words."""

    evaluation: str
    measure: str
    title: str
    points: tuple[Point, ...]
    name: str = ""

    @property
    def panels(self) -> tuple[str, ...]:
        """Panels of the points, in their order; one without a name where there are no several."""
        return tuple(dict.fromkeys(point.panel for point in self.points))

    @property
    def shows_paper(self) -> bool:
        """True if there are at least two published values."""
        return sum(not math.isnan(point.paper) for point in self.points) > 1

    def pages(self, size: int) -> list[CellsFigure]:
        """The figure in parts of `PANELS` panels with `size` cells at most."""
        return [
            replace(self, points=part, name=", ".join(panels) if len(self.panels) > PANELS else "")
            for panels in parts(self.panels, PANELS)
            for part in parts([point for panel in panels for point in self.points if point.panel == panel], size)
        ]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The pre-training loss of an arm, averaged over `seeds` seeds at the epochs that all of them logged."""

    label: str
    epochs: tuple[float, ...]
    losses: tuple[float, ...]
    seeds: int


def ascending(labels: Iterable[str]) -> list[str]:
    """Labels in ascending order if all of them are numbers, else as they are."""
    found = list(labels)
    try:
        return sorted(found, key=float)
    except ValueError:
        return found


def parts(items: Sequence[T], size: int) -> list[tuple[T, ...]]:
    """The items in parts of `size`, in their order."""
    return [tuple(items[first : first + size]) for first in range(0, len(items), size)]


def axis_figures(runs: pd.DataFrame, cells: pd.DataFrame, words: Words) -> list[AxisFigure]:
    """One figure per evaluation that has a value and axis with at least two different numbers.

    Of an evaluation the axis with the most values comes first: the study is about it, if about any.
    """
    seeds = _values_of_seeds(runs)
    found = []
    for _, part in cells.groupby("evaluation", sort=False):
        numeric = [axis for axis in axes_of(cells) if part["n"].any() and is_numeric(part[axis])]
        made = [figure for axis in numeric if (figure := _axis_figure(axis, part, seeds, words)).lines]
        found += sorted(made, key=lambda figure: -len(figure.values))
    return found


def cells_figures(runs: pd.DataFrame, cells: pd.DataFrame, words: Words) -> list[CellsFigure]:
    """Figures of cells side by side, for each evaluation with a cell in no line of `axis_figures`."""
    figures, seeds = [], _values_of_seeds(runs)
    for name, part in cells.groupby("evaluation", sort=False):
        numeric = [axis for axis in axes_of(cells) if is_numeric(part[axis])]
        covered = {number for axis in numeric for number in _covered(axis, part)}
        # A cell that an axis figure shows needs no second figure, unless another cell would be missing.
        if part["n"].any() and not covered.issuperset(part["cell"]):
            points = records(part[axes_of(cells)])
            panel = BACKBONE if BACKBONE in varying_axes(points) else ""
            first = next(iter(records(part.loc[part["reference"], axes_of(cells)])), None)
            title, labels = cell_labels(without(points, panel), first and without([first], panel)[0], words)
            drawn = _points(part, seeds, None, labels, [shown(point[panel]) if panel else "" for point in points])
            figures.append(
                CellsFigure(evaluation=str(name), measure=words.evaluation(str(name)), title=title, points=drawn)
            )
    return figures


def curves(arms: Sequence[Arm], labels: Sequence[str], store: Store) -> Iterator[Curve]:
    """Learning curves of the arms that have logged, in their order; logs are read lazily."""
    found = ((label, _curve_frames(arm, store)) for arm, label in zip(arms, labels, strict=True))
    return (_curve(label, frames) for label, frames in found if frames)


def varying_axes(cells: Sequence[Cell]) -> tuple[str, ...]:
    """Axes on which the cells differ."""
    names = list(cells[0]) if cells else []
    return tuple(name for name in names if len({cell[name] for cell in cells}) > 1)


def panel_axis(cells: Sequence[Cell]) -> str:
    """The axis with a panel for each of its values; empty if one panel shows all.

    It is the backbone, or else the first axis of at most `PANELS` names, if another varies too: then a legend would
    hold combinations.
    """
    varying = varying_axes(cells)
    if BACKBONE in varying:
        return BACKBONE
    found = {axis: list(dict.fromkeys(cell[axis] for cell in cells)) for axis in varying}
    names = [
        axis for axis, values in found.items() if len(values) <= PANELS and all(isinstance(v, str) for v in values)
    ]
    return names[0] if names and len(varying) > 1 else ""


def without(cells: Sequence[Cell], axis: str) -> list[Cell]:
    """The cells without one of their axes."""
    return [{name: value for name, value in cell.items() if name != axis} for cell in cells]


def cell_labels(cells: Sequence[Cell], reference: Cell | None = None, words: Words = NAMES) -> tuple[str, list[str]]:
    """A title and a short label for each of some cells, made of the axes on which they differ.

    Where every cell differs from the reference on one axis at most, that axis is the label and there is no title. Where
    one axis has another name for every cell, it is the label. An axis that does not apply to a cell is a dash; a cell
    to which none applies is a control.
    """
    varying = varying_axes(cells)
    if reference is not None and len(varying) > 1:
        # Where one thing changes at a time, the change says all; a list of all values would repeat the reference.
        changes = [[name for name in varying if cell[name] != reference[name]] for cell in cells]
        if max(map(len, changes)) <= 1:
            same = f"reference ({_values(reference, varying)})"
            return "", [_change(cell, change, words) or same for cell, change in zip(cells, changes, strict=True)]
    # An axis that names each cell by itself, as `arm` does, says what the others would repeat.
    different = len({tuple(cell.items()) for cell in cells})  # a reference may be given twice
    for name in varying:
        if all(isinstance(cell[name], str) for cell in cells) and len({cell[name] for cell in cells}) == different:
            varying = (name,)
            break
    return ", ".join(map(words.axis, varying)), [_values(cell, varying) for cell in cells]


def _change(cell: Cell, names: Sequence[str], words: Words) -> str:
    return ", ".join(f"{words.axis(name)} {shown(cell[name])}" for name in names)


def _values(cell: Cell, names: Sequence[str]) -> str:
    values = [shown(cell[name]) for name in names]
    applying = [value for value in values if value != NOTHING]
    if len(applying) <= 1:
        return "".join(applying) or ("control" if names else "")
    return ", ".join(shorten(value, PART_LENGTH) for value in values)


def is_numeric(values: pd.Series) -> bool:
    """True if all values of an axis are numbers (or None) and at least two differ."""
    found = {value for value in values if value is not None}
    # bool is an int to Python, but no number on an axis.
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in found)
    return numbers and len(found) > 1


def _lines_of(axis: str, cells: pd.DataFrame) -> list[pd.DataFrame]:
    """Cells that an axis applies to, grouped by all other axes; single cells only if no group is larger."""
    others = [name for name in axes_of(cells) if name != axis]
    applies = cells[[value is not None for value in cells[axis]]]
    groups: dict[tuple[Scalar, ...], list[int]] = {}
    # Not itertuples, which before pandas 3 gives no tuples at all where there is no other axis.
    for row, point in zip(applies.index, applies[others].to_numpy(dtype=object), strict=True):
        groups.setdefault(tuple(point), []).append(row)
    longest = max(map(len, groups.values()), default=0)
    return [cells.loc[rows] for rows in groups.values() if len(rows) > 1 or longest == 1]


def _covered(axis: str, cells: pd.DataFrame) -> set[int]:
    shown_cells = [number for line in _lines_of(axis, cells) for number in line["cell"]]
    controls = cells.loc[[value is None for value in cells[axis]], "cell"]
    return {*shown_cells, *controls}


def _axis_figure(axis: str, cells: pd.DataFrame, seeds: Seeds, words: Words) -> AxisFigure:
    """Figure of one evaluation over an axis: a line for each combination of the other axes, and controls."""
    others = [name for name in axes_of(cells) if name != axis]
    groups = _lines_of(axis, cells)
    controls = cells[[value is None for value in cells[axis]]]
    points = [*(records(group[others])[0] for group in groups), *records(controls[others])]
    panel = panel_axis(points[: len(groups)])
    panels = [shown(point[panel]) if panel else "" for point in points]
    title, labels = cell_labels(without(points, panel), words=words)
    name, placed = str(cells["evaluation"].iloc[0]), pd.concat([*groups, controls])
    lines = tuple(
        Line(label=label, points=_points(group.sort_values(axis), seeds, axis, [""] * len(group)), panel=where)
        for label, where, group in zip(labels, panels, groups, strict=False)
    )
    # The labels of controls follow those of the groups, as they were given to `cell_labels`.
    level = _controls(_points(controls, seeds, None, labels[len(groups) :], panels[len(groups) :]), panels)
    return AxisFigure(
        evaluation=name,
        axis=axis,
        measure=words.evaluation(name),
        over=words.axis(axis),
        title=title,
        # A line without a number would be an entry of the legend and nothing else.
        lines=tuple(line for line in lines if line.paper_points or not all(point.hole for point in line.points)),
        controls=level,
        log=_is_geometric({point.x for line in lines for point in line.points}),
        absent=_absent(placed),
        aside=int((~cells["cell"].isin(placed["cell"]) & (cells["n"] > 0)).sum()),
    )


def _controls(found: Sequence[Point], panels: Sequence[str]) -> tuple[Point, ...]:
    """Controls that have a number; one that belongs to no panel of the lines stands in all of them."""
    of_lines = panels[: len(panels) - len(found)]
    return tuple(
        replace(point, label=point.label or "control")
        if point.panel in of_lines
        else replace(point, label=point.label.strip() or point.panel or "control", panel="")
        for point in found
        if not point.hole
    )


def _is_geometric(found: set[float]) -> bool:
    """True if values span a factor of at least 8 and their ratios are more even than their differences."""
    values = np.sort(list(found))
    # Two values fit any scale, and zero has no logarithm.
    if len(values) < 3 or values[0] <= 0 or values[-1] < 8 * values[0]:
        return False
    ratios, steps = np.diff(np.log(values)), np.diff(values)
    return bool(ratios.std() / ratios.mean() < steps.std() / steps.mean())


def _absent(cells: pd.DataFrame) -> str:
    return count_words(Counter(hole(record) for record in records(cells[cells["n"] == 0])))


def hole(record: Mapping[str, Any]) -> str:
    """Reason of a missing mean, in a word."""
    return next((state for state in ("excluded", "failed", "blocked") if record[state]), "missing")


def _values_of_seeds(runs: pd.DataFrame) -> Seeds:
    found: dict[tuple[int, str], tuple[float, ...]] = {}
    every = units(runs)
    for cell, name, value in zip(every["cell"], every["evaluation"], every["value"], strict=True):
        found[cell, name] = (*found.get((cell, name), ()), *([] if math.isnan(value) else [value]))
    return found


def _points(
    cells: pd.DataFrame, seeds: Seeds, axis: str | None, labels: Sequence[str], panels: Sequence[str] = ()
) -> tuple[Point, ...]:
    """Cells of one evaluation as points, placed by an axis, or by their order without one."""
    return tuple(
        Point(
            x=float(record[axis] if axis else position),
            label=label,
            mean=record["mean"],
            sd=record["sd"],
            seeds=seeds.get((record["cell"], record["evaluation"]), ()),
            hole="" if record["n"] else hole(record),
            reference=bool(record["reference"]),
            paper=record.get("paper", math.nan),
            unverified=bool(record.get("paper_unverified", False)),
            panel=panels[position] if panels else "",
        )
        for position, (record, label) in enumerate(zip(records(cells), labels, strict=True))
    )


def _curve_frames(arm: Arm, store: Store) -> list[pd.DataFrame]:
    logs = ([_epoch_and_loss(line) for line in store.metrics(name)] for name in arm.keys)
    kept = ([pair for pair in log if pair is not None] for log in logs)
    return [pd.DataFrame(log, columns=["epoch", "loss"]) for log in kept if log]


def _epoch_and_loss(line: object) -> tuple[float, float] | None:
    # Logs may be damaged or of another version: what is no finite number is left out.
    if not isinstance(line, dict):
        return None
    epoch, loss = line.get("epoch"), line.get("loss")
    if not isinstance(epoch, int | float) or not isinstance(loss, int | float):
        return None
    return (float(epoch), float(loss)) if math.isfinite(epoch) and math.isfinite(loss) else None


def _curve(label: str, frames: Sequence[pd.DataFrame]) -> Curve:
    single = [frame.drop_duplicates("epoch", keep="last") for frame in frames]
    found = pd.concat(single).groupby("epoch")["loss"].agg(["mean", "count"])
    # Epochs that all seeds have reached: a seed that is behind would bend the mean.
    shared = found[found["count"] == len(frames)]
    kept = found if shared.empty else shared
    return Curve(label=label, epochs=tuple(kept.index), losses=tuple(kept["mean"]), seeds=len(frames))
