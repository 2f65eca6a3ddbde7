"""Heat maps of an evaluation over two axes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from harness.report.collect import axes_of, records
from harness.report.escape import shown
from harness.report.figures.data import BACKBONE, cell_labels, hole, is_numeric
from harness.report.figures.drawing import GREY, ONE, TWO, plain
from harness.report.labels import Words
from harness.report.tables.table import decimals
from harness.spec import Scalar

LARGEST = 24
"""Largest number of values of an axis that a readable heat map can show."""

FILLED = 0.6
"""Smallest share of a heat map's places that must be cells; sparser ones are better read as a table."""

MAP = "cividis"  # made to look alike to people with and without colour vision deficiency


@dataclass(frozen=True, kw_only=True)
class Heatmap:
    """Means of cells over two axes.

    measure: the evaluation in words. axes: names of both axes. rows, columns: label and shown values of each axis.
    means: [rows][columns], NaN where there is none. holes: same shape, reason of a missing mean in a word; empty with a
    mean and where the study has no cell. reference: row and column, if it is among them. label: the values of all other
    axes.
    """

    evaluation: str
    measure: str
    axes: tuple[str, str]
    rows: tuple[str, tuple[str, ...]]
    columns: tuple[str, tuple[str, ...]]
    means: tuple[tuple[float, ...], ...]
    holes: tuple[tuple[str, ...], ...]
    reference: tuple[int, int] | None
    label: str


def heatmaps(cells: pd.DataFrame, words: Words) -> list[list[Heatmap]]:
    """For each evaluation and pair of axes a heat map for each combination of the other axes.

    Both axes hold numbers, or neither does: a number over names is a line in another figure. One of them has three
    values or more, none more than LARGEST, and a share FILLED of the places has a mean. Backbones
    are no rows or columns: their accuracies have no common scale.
    """
    found = []
    for _, part in cells.groupby("evaluation", sort=False):
        usable = [axis for axis in axes_of(cells) if axis != BACKBONE and 2 <= len(_values(part, axis)) <= LARGEST]
        for rows, columns in itertools.combinations(usable, 2):
            if is_numeric(part[rows]) == is_numeric(part[columns]) and (
                pages := list(_pages(part, rows, columns, words))
            ):
                found.append(pages)
    return found


def _pages(cells: pd.DataFrame, rows: str, columns: str, words: Words) -> Iterator[Heatmap]:
    """Heat maps of two axes, one for each combination of the others that fills enough of its places."""
    others = [axis for axis in axes_of(cells) if axis not in (rows, columns)]
    applies = [record for record in records(cells) if record[rows] is not None and record[columns] is not None]
    groups: dict[tuple[Hashable, ...], list[dict[str, Any]]] = {}
    for record in applies:
        groups.setdefault(tuple(record[axis] for axis in others), []).append(record)
    _, labels = cell_labels([{axis: group[0][axis] for axis in others} for group in groups.values()])
    for label, group in zip(labels, groups.values(), strict=True):
        one, two = (_sorted({record[axis]: None for record in group}) for axis in (rows, columns))
        # Two by two is four numbers, for which a table is enough.
        wide = min(len(one), len(two)) >= 2 and max(len(one), len(two)) >= 3
        done = [record for record in group if record["n"]]
        if done and wide and len(done) >= FILLED * len(one) * len(two):
            yield _heatmap(group, (rows, one), (columns, two), label, words)


def _heatmap(
    group: Sequence[Mapping[str, Any]],
    rows: tuple[str, list[Scalar]],
    columns: tuple[str, list[Scalar]],
    label: str,
    words: Words,
) -> Heatmap:
    """Heat map of the cells of one combination of the other axes; rows, columns: name and values of the axes."""
    means = [[math.nan] * len(columns[1]) for _ in rows[1]]
    holes = [[""] * len(columns[1]) for _ in rows[1]]
    reference = None
    for record in group:
        place = rows[1].index(record[rows[0]]), columns[1].index(record[columns[0]])
        means[place[0]][place[1]] = record["mean"]
        holes[place[0]][place[1]] = "" if record["n"] else hole(record)
        reference = place if record["reference"] else reference
    name = str(group[0]["evaluation"])
    return Heatmap(
        evaluation=name,
        measure=words.evaluation(name),
        axes=(rows[0], columns[0]),
        rows=(words.axis(rows[0]), tuple(map(shown, rows[1]))),
        columns=(words.axis(columns[0]), tuple(map(shown, columns[1]))),
        means=tuple(map(tuple, means)),
        holes=tuple(map(tuple, holes)),
        reference=reference,
        label=label,
    )


def _values(cells: pd.DataFrame, axis: str) -> list[Scalar]:
    return [value for value in dict.fromkeys(cells[axis]) if value is not None]


def _sorted(values: Mapping[Any, None]) -> list[Scalar]:
    """Values of an axis: numbers ascending, words in the study's order."""
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return sorted(values) if numeric else list(values)


def draw_heatmap(data: Heatmap) -> Figure:
    """Draw means as colours and numbers; missing means show their reason, the reference has a frame."""
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    means = np.asarray(data.means)
    image = axes.imshow(means, cmap=MAP, aspect="auto")
    # One digit fewer than in the table: a place of the map is small.
    digits = decimals([value for value in means.flat if math.isfinite(value)]) - 1
    for place in np.ndindex(means.shape):
        _write(axes, data, place, image.norm(means[place]), digits)
    if data.reference is not None:
        row, column = data.reference
        frame = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="#D55E00", linewidth=2, zorder=4)
        axes.add_patch(frame)
    axes.set_xticks(range(means.shape[1]), [plain(text, 16) for text in data.columns[1]])
    axes.set_yticks(range(means.shape[0]), [plain(text, 24) for text in data.rows[1]])
    if max(map(len, data.columns[1])) > 7:
        axes.tick_params(axis="x", labelrotation=35)
    axes.set_xlabel(plain(data.columns[0]))
    axes.set_ylabel(plain(data.rows[0]))
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    framed = "framed: reference" if data.reference is not None else ""
    lacking = sum(bool(word) for row in data.holes for word in row)
    missing = f"{lacking} of {sum(map(len, data.holes))} without a number" if lacking else ""
    title = "\n".join(filter(None, (plain(data.label, 60), ", ".join(filter(None, (framed, missing))))))
    axes.set_title(title, color=GREY, fontsize=7, loc="left")
    if np.isfinite(means).any():
        figure.colorbar(image, ax=axes, label=plain(data.measure))
    # The longest row label and the scale of colours stand beside the places, each at least 0.4 inches wide.
    beside = 1.1 + 0.07 * max(len(plain(text, 24)) for text in data.rows[1])
    figure.set_size_inches(ONE if beside + 0.4 * means.shape[1] <= ONE else TWO, 1.2 + 0.3 * means.shape[0])
    return figure


def _write(axes: Axes, data: Heatmap, place: tuple[int, ...], level: Any, digits: int) -> None:
    """Write the mean of a place, or why there is none. level: place of the mean in the colour map, 0 to 1."""
    row, column = place
    mean, why = data.means[row][column], data.holes[row][column]
    if math.isfinite(mean):
        red, green, blue, _ = matplotlib.colormaps[MAP](float(level))
        # Luma of the colour (ITU-R BT.601), for text that can be read on it.
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        text, colour = f"{mean:.{digits}f}", "white" if dark else "black"
    else:
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color="#EEEEEE", linewidth=0, zorder=1))
        text, colour = why, GREY
    # NaN is the only number unequal to itself: words are longer than numbers and stand smaller.
    axes.text(column, row, text, ha="center", va="center", fontsize=7 if mean == mean else 5.5, color=colour, zorder=3)
