"""Published accuracy over AvgDist, as in SimMIM's figure: a table and a picture from distances that were computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from harness.report.collect import records
from harness.report.figures import drawing
from harness.report.tables.table import csv_text
from harness.spec import HarnessError
from harness.store.files import disk_errors, write_atomically

CLAIMED = (10.0, 20.0)
"""Pixels of 192 between which SimMIM says that accuracy is high."""

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
    files = {"avgdist.csv": csv_text(frame).encode()} | files
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
    axes.axvspan(*CLAIMED, color=drawing.GREY, alpha=0.13, linewidth=0, zorder=0)
    for kind in _MARKERS:
        for size in _COLOURS:
            part = frame[(frame["mask_type"] == kind) & (frame["mask_patch_size"] == size)]
            _draw_series(axes, part.sort_values("mask_ratio"), kind, size)
    axes.set_xscale("log", base=2)
    ticks = (1, 2, 5, 10, 20, 50)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlim(1.3, 64)
    axes.margins(y=0.1)
    axes.set_xlabel("AvgDist (pixels of 192)")
    axes.set_ylabel("published top-1 (%)")
    _legend(figure)
    figure.set_size_inches(3.5, 3.6)
    return figure


def _draw_series(axes: Axes, part: pd.DataFrame, kind: str, size: int) -> None:
    """One mask type and unit size, from the smallest ratio to the largest; each point is named by its ratio."""
    colour, side = _COLOURS[size], _SIDES.get((kind, size), _ABOVE)
    # Where all masks could be gone through, the distance is exact and has no error.
    known = part["exact"].notna()
    places, errors = part["avgdist"].where(~known, part["exact"]), part["error"].where(~known, 0.0)
    axes.errorbar(
        places, part["top1"], xerr=errors, color=colour, marker=_MARKERS[kind], markersize=5,
        markeredgecolor="white", markeredgewidth=0.5, linewidth=0.7, elinewidth=0.9, capsize=0, zorder=3,
    )  # fmt: skip
    for place, record in zip(places, records(part), strict=True):
        axes.annotate(
            f"{record['mask_ratio']:g}".removeprefix("0"), (place, record["top1"]), side,
            textcoords="offset points", ha="center", fontsize=6, color=colour, zorder=4,
        )  # fmt: skip


def _legend(figure: Figure) -> None:
    """Mask types, unit sizes and the band, below the picture."""
    signs = [
        Line2D([], [], color=drawing.GREY, marker=marker, linestyle="", markersize=5, label=kind)
        for kind, marker in _MARKERS.items()
    ]
    units = [
        Line2D([], [], color=colour, marker="o", linewidth=0.7, markersize=5, label=f"{size} px")
        for size, colour in _COLOURS.items()
    ]
    band = Patch(color=drawing.GREY, alpha=0.13, linewidth=0, label="10 to 20 px")
    handles = [*signs, band, *units]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, columnspacing=1.2, handletextpad=0.5)
