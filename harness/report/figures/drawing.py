"""Figures drawn: for print, in colours that everybody can tell apart, without pyplot's global state."""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import MaxNLocator, NullLocator

from harness.report.escape import clean, shorten
from harness.report.figures.data import LINES, AxisFigure, CellsFigure, Curve, Line, Point

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito's
# A line has a sign of its own beside its colour, so that it can be told apart in black and white too.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":", "-", "--", "-.")
GREY = "#666666"
THEIRS = "paper, under\nits own protocol"
"""What stands over or beside a paper's values."""
SHORT = 20
"""Characters of labels beside bars that leave room for the bars in one column."""
LABEL_LENGTH = 44
"""Most characters of a label."""
DPI = 200
"""Dots an inch of PNG files."""
ONE, TWO = 3.25, 6.75
"""Widths in inches of one column and of two, as conferences print them."""

# fonttype 42: fonts stay text in PDF files; many journals refuse Matplotlib's default, Type 3.
_STYLE: dict[str, Any] = {
    "font.size": 8, "axes.titlesize": 8, "legend.fontsize": 7, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "axes.grid": True,
    "grid.color": "#DDDDDD", "grid.linewidth": 0.6, "pdf.fonttype": 42,
    "svg.fonttype": "none", "svg.hashsalt": "harness",
    "lines.linewidth": 1.2, "lines.markersize": 4.5, "errorbar.capsize": 2,
}  # fmt: skip


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Matplotlib's defaults with the changes above; what the user has set comes back afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)  # type: ignore[arg-type]
        yield


def plain(text: str, length: int = LABEL_LENGTH) -> str:
    """Text that Matplotlib prints as it is: no formulas, and only characters that its font has."""
    known = "".join(char if ord(char) in _glyphs() else "\N{REPLACEMENT CHARACTER}" for char in clean(text))
    return shorten(known, length).replace("$", r"\$")


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


def settle(figure: Figure) -> None:
    """Lay a figure out for good; otherwise each file of it does so again, which takes most of the time."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


_DIGEST = re.compile(r"(?<=[\"#](?:p|m|h))[0-9a-f]{10}(?=[\")])|(?<=[\"#]image)[0-9a-f]{10}(?=[\")])")


def png(figure: Figure) -> bytes:
    """The figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def pdf(figure: Figure) -> bytes:
    """The figure as PDF, the same bytes at any time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="pdf", metadata={"CreationDate": None})
    return buffer.getvalue()


def svg(figure: Figure) -> bytes:
    """The figure as SVG, its texts as text; the same bytes at any time with a current Matplotlib."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _renamed(buffer.getvalue().decode()).encode()


def _renamed(text: str) -> str:
    """Names of markers, clips and images in an SVG from their order and its text, which has six digits.

    Matplotlib's are digests of unrounded numbers, whose last bits differ between processors.
    """
    digest = hashlib.sha256(_DIGEST.sub("", text).encode()).hexdigest()[:8]
    names = {found: f"{digest}{place:x}" for place, found in enumerate(dict.fromkeys(_DIGEST.findall(text)))}
    return _DIGEST.sub(lambda found: names[found[0]], text)


def draw_axis(data: AxisFigure) -> Figure:
    """Accuracy over a numeric axis, panels beside each other: mean ± sd, pre-trainings faint.

    The paper's values have panels of their own: measured otherwise, they must not be read against ours.
    """
    figure = Figure(layout="constrained")
    several, paper = len(data.panels) > 1, data.shows_paper
    if several:
        grid = figure.subplots(1 + paper, len(data.panels), squeeze=False, sharex=True, sharey="row")
        ours, theirs = grid[0], grid[1] if paper else []
    else:
        grid = figure.subplots(1, 1 + paper, squeeze=False, width_ratios=[2.2, 1][: 1 + paper])
        ours, theirs = grid[0, :1], grid[0, 1:]
    for axes, panel in zip(ours, data.panels, strict=True):
        _draw_panel(axes, data, panel)
    for axes, panel in zip(theirs, data.panels, strict=False):
        for line in data.lines:
            if line.panel == panel:
                _draw_paper_line(axes, line, data.labels.index(line.label))
        _draw_paper_controls(axes, data.controls_in(panel), len(data.labels))
        _set_scale(axes, data, 0.14)
    points = [point for line in data.lines for point in line.points]
    label = plain(data.measure) + spread([len(point.seeds) for point in [*points, *data.controls]])
    ours[0].set_ylabel(label.replace("), ", "),\n") if len(grid) > 1 else label)  # a row of two is half as high
    for axes in theirs[:1]:
        axes.set_ylabel(THEIRS) if several else axes.set_title(THEIRS, color=GREY, fontsize=7)
    for axes in grid[-1]:
        axes.set_xlabel(plain(data.over))
    absent = f"cells without a number: {data.absent}" if data.absent else ""
    aside = f"not drawn: {data.aside} that would be single points" if data.aside else ""
    remark(figure, absent, aside)
    labels = [plain(label) for label in data.labels]
    finish(figure, width=TWO if grid.size > 1 else ONE, title=data.title, height=1.0 + 1.5 * len(grid), order=labels)
    return figure


def _draw_panel(axes: Axes, data: AxisFigure, panel: str) -> None:
    """Draw the lines of a panel, and the controls that stand in it."""
    lines = sorted((line for line in data.lines if line.panel == panel), key=lambda line: data.labels.index(line.label))
    for number, line in enumerate(lines):
        shift = (number - (len(lines) - 1) / 2) * min(0.08, 0.4 / len(lines))
        _draw_line(axes, data, line, shift)
    _draw_controls(axes, data.controls_in(panel), len(data.labels))
    _set_scale(axes, data, 0.14 if len(data.panels) > 1 else 0.06 if data.shows_paper else 0.1)
    if panel:
        axes.set_title(plain(panel))


def remark(figure: Figure, *texts: str) -> None:
    """Write what a reader must know over a figure, a line a text; nothing for empty texts."""
    if lines := [plain(text, 80) for text in texts if text]:
        figure.suptitle("\n".join(lines), color=GREY, fontsize=7, x=0.01, ha="left")


def draw_cells(data: CellsFigure) -> Figure:
    """Cells side by side, from the top: bars of mean ± sd, pre-trainings faint; what has no number says why.

    Bars begin where the axis does, which is seldom at zero; its label says so.
    """
    groups = [[point for point in data.points if point.panel == panel] for panel in data.panels]
    figure = Figure(layout="constrained")
    grid = figure.subplots(
        len(groups), 1 + data.shows_paper, squeeze=False, sharex="col", sharey="row",
        width_ratios=[2.2, 1][: 1 + data.shows_paper], height_ratios=[len(group) for group in groups],
    )  # fmt: skip
    for row, panel, group in zip(grid, data.panels, groups, strict=True):
        for place, point in enumerate(group):
            _draw_cell(row[0], point, place)
        row[0].set_yticks(range(len(group)), [plain(point.label) for point in group])
        row[0].set_ylim(len(group) - 0.5, -0.5)  # downwards: the first cell is at the top
        for axes in row[1:]:
            _draw_paper_cells(axes, group)
        if panel:
            row[0].set_title(plain(panel), loc="left")
        for axes in row:
            axes.grid(visible=False, axis="y")
            axes.xaxis.set_major_locator(MaxNLocator(4))
    if data.shows_paper:
        grid[0][1].set_title(THEIRS, color=GREY, fontsize=7)
    note = _draw_bars([row[0] for row in grid], groups)
    said = spread([len(point.seeds) for point in data.points])
    grid[-1][0].set_xlabel(plain(data.measure) + said + (("; " if said else "\n") + note if note else ""))
    remark(figure, data.title)
    longest = max(len(plain(point.label)) for point in data.points)
    height = 0.9 + 0.25 * len(data.points) + 0.25 * len(data.panels) + 0.2 * data.shows_paper
    finish(figure, width=TWO if data.shows_paper or longest > SHORT else ONE, height=height, title="")
    return figure


def draw_curves(found: Sequence[Curve], title: str) -> Figure:
    """Pre-training loss over epochs, a line an arm. title: what the labels hold."""
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    for number, curve in enumerate(found):
        label = f"{plain(curve.label)} (n = {curve.seeds})".strip()
        look = number % LINES
        marker = MARKERS[look] if len(curve.epochs) <= 12 else ""
        axes.plot(
            curve.epochs, curve.losses, color=COLOURS[look], linestyle=DASHES[look], marker=marker,
            label=label, markersize=3.5,
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch of pre-training")
    axes.set_ylabel("loss, mean over seeds")
    finish(figure, width=ONE, title=title)
    return figure


def _draw_line(axes: Axes, data: AxisFigure, line: Line, shift: float) -> None:
    """Draw a line of a figure: means with their deviations, pre-trainings beside them, the reference marked."""
    if all(point.hole for point in line.points):
        return
    number, places = data.labels.index(line.label), _dodged(data, line, shift)
    colour, marker = COLOURS[number % LINES], MARKERS[number % LINES]
    means = [point.mean for point in line.points]
    errors = [0.0 if math.isnan(point.sd) else point.sd for point in line.points]
    axes.errorbar(places, means, yerr=errors, color=colour, marker=marker, label=_name(line.label), zorder=3)
    # Beside the mean's marker, which would hide them.
    for place, point in zip(_dodged(data, line, shift, aside=0.015), line.points, strict=True):
        axes.plot([place] * len(point.seeds), point.seeds, ".", color=colour, alpha=0.4, markersize=4, zorder=2)
    for place, point in zip(places, line.points, strict=True):
        if point.reference and not point.hole:
            mark_reference(axes, place, point.mean)


def _draw_cell(axes: Axes, point: Point, place: int) -> None:
    """Draw a cell of a figure at its place from the top: mean and seeds, or the reason why there is none."""
    if point.hole:
        # In the middle of the panel, whatever the range of values turns out to be.
        axes.text(
            0.5, place, point.hole, color=GREY, ha="center", va="center", style="italic",
            transform=axes.get_yaxis_transform(), bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )  # fmt: skip
        return
    error = 0.0 if math.isnan(point.sd) else point.sd
    heights = [place + 0.2] * len(point.seeds)
    axes.plot(point.seeds, heights, ".", color=COLOURS[0], alpha=0.4, markersize=4, zorder=2)
    axes.errorbar([point.mean], [place], xerr=[error], color=COLOURS[0], marker="o", zorder=3)
    if point.reference:
        mark_reference(axes, point.mean, place)
        axes.axvline(point.mean, color=GREY, linestyle=":", linewidth=0.9, zorder=1)


def _draw_bars(panels: Sequence[Axes], groups: Sequence[Sequence[Point]]) -> str:
    """Draw a bar from the left end of the panels to each mean; returns a note on that end for the axis label."""
    left, right = panels[0].get_xlim()
    # At zero where zero is near anyway; else a range of differences would shrink to nothing.
    left = 0.0 if 0 <= left < 0.25 * (right - left) else left - 0.12 * (right - left)
    for axes, points in zip(panels, groups, strict=True):
        means = {place: point.mean for place, point in enumerate(points) if not point.hole}
        widths = [mean - left for mean in means.values()]
        axes.barh(list(means), widths, left=left, height=0.62, color=COLOURS[5], alpha=0.45, zorder=1)
        axes.set_xlim(left, right)
    return "" if left == 0 else f"bars from {left:.4g}"


def spread(numbers: Sequence[int]) -> str:
    """What error bars are, for the label of an axis. numbers: of pre-trainings of each cell, 0 where there is none."""
    counts = sorted({number for number in numbers if number})
    if not counts or counts[-1] < 2:
        return ""
    few, many = counts[0], counts[-1]
    return f"\nmean ± sd (n = {few}" + (f" to {many}" if many > few else "") + ")"


def _name(label: str) -> str | None:
    return plain(label) if label else None


def mark_reference(axes: Axes, x: float, y: float) -> None:
    """Draw a ring around the reference."""
    axes.plot(
        [x], [y], "o", markersize=11, fillstyle="none", markeredgecolor=GREY, markeredgewidth=1.1,
        label="reference", zorder=4,
    )  # fmt: skip


def _draw_controls(axes: Axes, controls: Sequence[Point], lines: int) -> None:
    """Draw controls as levels across the figure, with one standard deviation.

    lines: colours that are taken. A few controls are grey and have bands; many have colours, and bands would hide them:
    they have bars at the right.
    """
    few = _few(controls)
    for number, point in enumerate(controls):
        colour = _draw_level(axes, point.mean, number, controls, lines)
        if math.isnan(point.sd):
            continue
        if few:
            axes.axhspan(point.mean - point.sd, point.mean + point.sd, color=GREY, alpha=0.1, linewidth=0, zorder=0)
        else:
            place, across = 0.98 - 0.03 * number, axes.get_yaxis_transform()
            axes.errorbar([place], [point.mean], yerr=[point.sd], color=colour, fmt="none", transform=across, zorder=2)


def _draw_paper_controls(axes: Axes, controls: Sequence[Point], lines: int) -> None:
    """Draw a paper's values of controls as levels that look like ours, those that are unverified with an empty sign."""
    for number, point in enumerate(controls):
        if math.isnan(point.paper):
            continue
        colour = _draw_level(axes, point.paper, number, controls, lines)
        if point.unverified:
            axes.plot(
                [0.5], [point.paper], "o", color=colour, markerfacecolor="white", label="unverified",
                transform=axes.get_yaxis_transform(), zorder=3,
            )  # fmt: skip


def _draw_level(axes: Axes, value: float, number: int, controls: Sequence[Point], lines: int) -> str:
    """Draw control `number` at a value across the panel; returns its colour."""
    colour = GREY if _few(controls) else COLOURS[(lines + number) % LINES]
    label, dashes = plain(controls[number].label), DASHES[1:4][number % 3]
    axes.axhline(value, color=colour, linestyle=dashes, linewidth=1.1, zorder=1, label=label)
    return colour


def _few(controls: Sequence[Point]) -> bool:
    return len(controls) < len(DASHES[1:4])


def _draw_paper_line(axes: Axes, line: Line, number: int) -> None:
    """Draw a paper's values of a line, those that are unverified as empty signs."""
    points = line.paper_points
    if not points:
        return
    colour, marker = COLOURS[number % LINES], MARKERS[number % LINES]
    places, values = [point.x for point in points], [point.paper for point in points]
    axes.plot(places, values, color=colour, linestyle=":", zorder=2)
    for unverified in (False, True):
        chosen = [point for point in points if point.unverified is unverified]
        if not chosen:
            continue
        face = "white" if unverified else colour
        axes.plot(
            [point.x for point in chosen], [point.paper for point in chosen], marker, color=colour,
            markerfacecolor=face, label="unverified" if unverified else _name(line.label), zorder=3,
        )  # fmt: skip


def _draw_paper_cells(axes: Axes, points: Sequence[Point]) -> None:
    """Draw a paper's value of each cell, those that are unverified as empty signs."""
    for place, point in enumerate(points):
        if not math.isnan(point.paper):
            face = "white" if point.unverified else COLOURS[1]
            label = "unverified" if point.unverified else None
            axes.plot([point.paper], [place], "s", color=COLOURS[1], markerfacecolor=face, label=label)
    axes.tick_params(axis="y", length=0, labelleft=False)


def _dodged(data: AxisFigure, line: Line, shift: float, aside: float = 0.0) -> list[float]:
    """Places of a line's points, moved aside by a share of the gaps so that error bars do not hide each other."""
    scale = np.log2(data.values) if data.log else np.asarray(data.values)
    # Neither piled up where one gap is tiny, nor out of the picture where there is one gap only.
    reach = float(np.ptp(scale))
    gap = min(max(float(np.diff(scale).min()), reach / 12), reach / 4) if len(scale) > 1 else 1.0
    moved = shift * gap + aside * reach
    return [point.x * 2**moved if data.log else point.x + moved for point in line.points]


def _set_scale(axes: Axes, data: AxisFigure, spacing: float) -> None:
    """Ticks at the values of the axis, as far as they are apart by a share `spacing` of the range."""
    values = data.values
    low, high = values[0], values[-1]
    if data.log:
        axes.set_xscale("log", base=2)
        margin = (high / low) ** 0.07 if high > low else 2.0
        axes.set_xlim(low / margin, high * margin)
    else:
        # A single value has no range to take a share of.
        margin = 0.07 * (high - low) or 0.5
        axes.set_xlim(low - margin, high + margin)
    places = np.log2(values) if data.log else np.asarray(values)
    ticks: list[int] = []
    for number, place in enumerate(places):
        if not ticks or place - places[ticks[-1]] >= spacing * np.ptp(places):
            ticks.append(number)
    axes.set_xticks([values[number] for number in ticks], [f"{values[number]:g}" for number in ticks])
    # A logarithmic axis would put ticks of its own between the values of the study.
    axes.xaxis.set_minor_locator(NullLocator())


def _legend_place(pair: tuple[Any, str]) -> int:
    """Measured lines first, then controls, then what the signs mean."""
    handle, label = pair
    if label in ("reference", "unverified"):
        return 2
    # Signs without a line are those of a line that only the paper has.
    return 0 if isinstance(handle, ErrorbarContainer) or handle.get_linestyle() == "None" else 1


def finish(figure: Figure, *, width: float, title: str, height: float = 2.5, order: Sequence[str] = ()) -> None:
    """Size the figure, in inches, and put the legend below it, each label once; first those of `order`."""
    found = [pair for other in figure.axes for pair in zip(*other.get_legend_handles_labels(), strict=True)]
    found.sort(key=lambda pair: (_legend_place(pair), order.index(pair[1]) if pair[1] in order else 0))
    # Reversed, so that of equal labels the first handle stays.
    unique = {label: handle for handle, label in reversed(found)}
    named = list(dict.fromkeys(label for _, label in found))
    rows = legend_below(figure, {label: unique[label] for label in named}, width=width, title=title)
    figure.set_size_inches(width, height + 0.19 * rows)


def legend_below(figure: Figure, entries: Mapping[str, Any], *, width: float, title: str) -> int:
    """Put a legend below a figure of a width in inches; returns its rows, 0 without entries.

    entries: handles by label.
    """
    if not entries:
        return 0
    # An entry takes about its characters and six more for its sign, of which 14 fit an inch.
    columns = max(1, min(len(entries), int(width * 14 / (max(map(len, entries)) + 6))))
    # A letter of the title is somewhat wider than one of an entry.
    titles = textwrap.wrap(plain(title, 3 * LABEL_LENGTH), int(width * 13))
    figure.legend(
        list(entries.values()), list(entries), loc="outside lower center", ncols=columns,
        title="\n".join(titles) or None,
    )  # fmt: skip
    return math.ceil(len(entries) / columns) + len(titles)
