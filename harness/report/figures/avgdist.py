"""Accuracy over AvgDist, as in SimMIM's figure: published alone, from distances just computed, or ours beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from harness.papers import paper_table
from harness.report.collect import axes_of, records
from harness.report.figures import drawing
from harness.report.labels import Words
from harness.report.tables.table import ESTIMATED, csv_text
from harness.spec import HarnessError
from harness.store.files import disk_errors, write_atomically
from harness.study import Plan

TABLE, DISTANCES = "simmim_table1_masking", "simmim_avgdist"
"""The published table, and AvgDist of its masks at 192 px, as `harness avgdist` computes it."""

AXES = ("mask_type", "masked_patch_size", "mask_ratio")
"""Axes of the table."""

CLAIMED = (10.0, 20.0)
"""Pixels of 192 between which accuracy is high, as others quote SimMIM."""

_MARKERS = {"random": "o", "square": "s", "block-wise": "^"}
_COLOURS = {4: "#56B4E9", 8: "#0072B2", 16: "#009E73", 32: "#D55E00", 64: "#000000"}  # Okabe and Ito's, by unit size

# Where a point's ratio stands, in points from its centre, so that neighbours in Table 1 do not overprint each other.
_ABOVE, _LEFT, _RIGHT = (0, 4), (-7, 1), (7, 1)
_SIDES = {
    ("random", 16): _LEFT,
    ("block-wise", 16): _LEFT,
    ("block-wise", 32): _RIGHT,
}


def write_avgdist(rows: Sequence[Mapping[str, Any]], folder: Path) -> tuple[str, ...]:
    """Write avgdist.csv, avgdist.png and avgdist.pdf to a folder; returns their names.

    Args:
        rows: of the frame that `draw_avgdist` draws; what else they hold is written to the CSV.

    Raises:
        HarnessError: the disk refuses, or there is a mask that the figure does not show.
    """
    frame = pd.DataFrame(rows)
    with drawing.style():
        figure = draw_avgdist(frame)
        files = {"avgdist.png": drawing.png(figure), "avgdist.pdf": drawing.pdf(figure)}
    files = {"avgdist.csv": csv_text(frame, ESTIMATED).encode()} | files
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_atomically(folder / name, data)
    return tuple(files)


def draw_avgdist(frame: pd.DataFrame) -> Figure:
    """Accuracy over AvgDist: a marker a mask type, a colour a unit size, lines along the ratio, the claimed band.

    Args:
        frame: a row a mask, with columns mask_type (random, square or block-wise), mask_patch_size (pixels),
            mask_ratio, avgdist, its standard error and the exact distance or NaN (columns avgdist, error, exact, in
            pixels) and top1 (per cent).

    Raises:
        HarnessError: a mask type or unit size that Table 1 does not have.
    """
    # A mask that has neither marker nor colour would be missing from the figure in silence.
    for kind, size in zip(frame["mask_type"], frame["mask_patch_size"], strict=True):
        if kind not in _MARKERS or size not in _COLOURS:
            valid = f"{', '.join(_MARKERS)} with units of {', '.join(map(str, _COLOURS))} px"
            raise HarnessError(f"the figure over AvgDist shows {valid}, not {kind} with {size} px")
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    _draw_masks(axes, frame)
    axes.set_ylabel("published top-1 (%)")
    _legend(figure, frame, 3)
    figure.set_size_inches(3.5, 3.6)
    return figure


@dataclass(frozen=True, kw_only=True)
class DistanceFigure:
    """An evaluation over the AvgDist of the paper's mask of each cell.

    measure: the evaluation in words. frame: a row a cell, with the columns of `draw_avgdist`, of which top1 is our
    mean, and sd, paper and n; NaN where there is no number.
    """

    evaluation: str
    measure: str
    frame: pd.DataFrame


def distance_figures(plan: Plan, cells: pd.DataFrame, words: Words) -> list[DistanceFigure]:
    """Figures of a study of SimMIM's Table 1, one for each evaluation with a number; none of any other study."""
    if TABLE not in [table.name for table in plan.study.papers] or sorted(axes_of(cells)) != sorted(AXES):
        return []
    distances = paper_table(DISTANCES, metric="avgdist")
    found = []
    for name, part in cells.groupby("evaluation", sort=False):
        rows = [
            _row(cell, known.value)
            for cell in records(part)
            if (known := distances.lookup({axis: cell[axis] for axis in AXES})) is not None
        ]
        if any(not math.isnan(row["top1"]) for row in rows):
            measure = words.evaluation(str(name))
            found.append(DistanceFigure(evaluation=str(name), measure=measure, frame=pd.DataFrame(rows)))
    return found


def _row(cell: Mapping[str, Any], distance: float) -> dict[str, Any]:
    """A cell as the figure draws it; its distance has no error that could be seen."""
    return {
        "mask_type": cell["mask_type"],
        "mask_patch_size": cell["masked_patch_size"],
        "mask_ratio": cell["mask_ratio"],
        "avgdist": distance,
        "error": 0.0,
        "exact": distance,
        "top1": cell["mean"],
        "sd": cell["sd"],
        "paper": cell.get("paper", math.nan),
        "n": cell["n"],
    }


def draw_beside(data: DistanceFigure) -> Figure:
    """Ours, mean ± sd, and in a panel of its own the paper's: measured otherwise, it has another level."""
    figure = Figure(layout="constrained")
    theirs = data.frame[data.frame["paper"].notna()]
    grid = figure.subplots(1, 2 if len(theirs) else 1, squeeze=False, sharex=True)[0]
    ours = data.frame[data.frame["top1"].notna()]
    _draw_masks(grid[0], ours, named=len(grid) == 1)  # error bars leave little room for ratios
    grid[0].set_ylabel(drawing.plain(data.measure) + drawing.spread(list(ours["n"])))
    for axes in grid[1:]:
        _draw_masks(axes, theirs.assign(top1=theirs["paper"], sd=math.nan))
        axes.set_title(drawing.THEIRS, color=drawing.GREY, fontsize=7)
    two = len(grid) > 1
    _legend(figure, pd.concat([ours, theirs]), 5 if two else 3)
    figure.set_size_inches(drawing.TWO if two else drawing.ONE, 3.4)
    return figure


def _draw_masks(axes: Axes, frame: pd.DataFrame, *, named: bool = True) -> None:
    """All masks of a frame, the claimed band, and the axis of distances. named: ratios stand beside the points."""
    axes.axvspan(*CLAIMED, color=drawing.GREY, alpha=0.13, linewidth=0, zorder=0)
    for kind in _MARKERS:
        for size in _COLOURS:
            part = frame[(frame["mask_type"] == kind) & (frame["mask_patch_size"] == size)]
            _draw_series(axes, part.sort_values("mask_ratio"), kind, size, named=named)
    axes.set_xscale("log", base=2)
    ticks = (1, 2, 5, 10, 20, 50)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlim(1.3, 64)
    axes.margins(y=0.1)
    axes.set_xlabel("AvgDist, computed (pixels of 192)")


def _draw_series(axes: Axes, part: pd.DataFrame, kind: str, size: int, *, named: bool) -> None:
    """One mask type and unit size, from the smallest ratio to the largest; each point may be named by its ratio."""
    if part.empty:
        return
    colour, side = _COLOURS[size], _SIDES.get((kind, size), _ABOVE)
    # Where all masks could be gone through, the distance is exact and has no error.
    known = part["exact"].notna()
    places, errors = part["avgdist"].where(~known, part["exact"]), part["error"].where(~known, 0.0)
    spreads = part["sd"].fillna(0.0) if "sd" in part else None
    axes.errorbar(
        places, part["top1"], xerr=errors, yerr=spreads, color=colour, marker=_MARKERS[kind], markersize=5,
        markeredgecolor="white", markeredgewidth=0.5, linewidth=0.7, elinewidth=0.9, capsize=0, zorder=3,
    )  # fmt: skip
    for place, record in zip(places, records(part) if named else (), strict=named):
        axes.annotate(
            f"{record['mask_ratio']:g}".removeprefix("0"), (place, record["top1"]), side,
            textcoords="offset points", ha="center", fontsize=6, color=colour, zorder=4,
            path_effects=[withStroke(linewidth=1.5, foreground="white")],  # error bars and lines run through it
        )  # fmt: skip


def _legend(figure: Figure, drawn: pd.DataFrame, columns: int) -> None:
    """Mask types and unit sizes of what is drawn, and the band, below the picture."""
    signs = [
        Line2D([], [], color=drawing.GREY, marker=marker, linestyle="", markersize=5, label=kind)
        for kind, marker in _MARKERS.items()
        if kind in set(drawn["mask_type"])
    ]
    units = [
        Line2D([], [], color=colour, marker="o", linewidth=0.7, markersize=5, label=f"{size} px")
        for size, colour in _COLOURS.items()
        if size in set(drawn["mask_patch_size"])
    ]
    band = Patch(color=drawing.GREY, alpha=0.13, linewidth=0, label="best, as SimMIM is quoted")
    handles = [*signs, band, *units]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, columnspacing=1.2, handletextpad=0.5)
