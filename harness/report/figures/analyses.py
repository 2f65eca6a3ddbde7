"""Results of analyses as curves: mean over the seeds of a cell, with a band of one standard deviation or error."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from harness.report.escape import clean, shown
from harness.report.figures.data import LINES, PANELS, cell_labels, panel_axis, parts, without
from harness.report.figures.drawing import COLOURS, DASHES, GREY, MARKERS, ONE, TWO, legend_below, plain
from harness.report.labels import Words, axis_label
from harness.spec import Analysis, Scalar, key
from harness.store import Store
from harness.study import Plan

FILE = "analysis.npz"
"""Name of the artefact in which an analysis stores its arrays."""

Values = NDArray[np.float64]
Arrays = Mapping[str, NDArray[Any]]
Kind = Literal["interactions", "occlusion", "fourier", "rgb"]


@dataclass(frozen=True, kw_only=True)
class Band:
    """A curve with a band around it.

    x, y, spread: float64 [points]. spread: half the height of the band, NaN where there is none.
    """

    label: str
    x: Values
    y: Values
    spread: Values


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Curves over one axis.

    name: the quantity, as in names of files. x, y: labels of the axes. level: height of a line that all curves are
    compared with; None for none. title: whose curves they are, such as a backbone; empty for all.
    """

    name: str
    x: str
    y: str
    bands: tuple[Band, ...]
    level: float | None = None
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class AnalysisFigure:
    """The curves of one column of a study: all quantities, or one quantity with a panel for each backbone.

    name: the quantity, or the kind of analysis. title: axes whose values the labels show. note: meaning of the bands,
    in words.
    """

    column: str
    kind: Kind
    name: str
    title: str
    note: str
    panels: tuple[Panel, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the curves, each once: curves of two panels that have the same look alike."""
        return tuple(dict.fromkeys(band.label for panel in self.panels for band in panel.bands))

    def pages(self) -> list[AnalysisFigure]:
        """The figure in parts of `PANELS` panels with `LINES` labels."""
        return [
            replace(self, panels=drawn)
            for panels in parts(self.panels, PANELS)
            for labels in parts(self.labels, LINES)
            if (drawn := tuple(found for panel in panels if (found := _kept(panel, labels)).bands))
        ]


def _kept(panel: Panel, labels: Sequence[str]) -> Panel:
    """The curves of a panel that have one of these labels."""
    return replace(panel, bands=tuple(band for band in panel.bands if band.label in labels))


def analysis_figures(plan: Plan, store: Store) -> tuple[list[AnalysisFigure], list[str]]:
    """Figures of a plan's finished analyses, by column, and a remark on each damaged file."""
    figures: list[AnalysisFigure] = []
    remarks: list[str] = []
    words = Words({axis: axis_label(plan, axis) for axis in plan.study.grid.axes})
    reference = plan.study.complete(plan.study.reference)
    for column in plan.columns():
        cells: dict[tuple[Scalar, ...], tuple[Mapping[str, Scalar], list[Analysis]]] = {}
        for row in plan.rows:
            run = row.evaluations.get(column)
            if isinstance(run, Analysis):
                cells.setdefault(tuple(row.axes.values()), (row.axes, []))[1].append(run)
        points = [axes for axes, _ in cells.values()]
        panel = panel_axis(points)
        title, labels = cell_labels(without(points, panel), without([reference], panel)[0], words)
        found: dict[str, list[tuple[str, list[Arrays]]]] = {}
        for label, (axes, runs) in zip(labels, cells.values(), strict=True):
            arrays, damaged = read(runs, store)
            remarks += damaged
            if arrays:
                found.setdefault(shown(axes[panel]) if panel else "", []).append((label, arrays))
        if found:
            kind = next(iter(cells.values()))[1][0].kind
            made = {where: figure_of(kind, some, column=column, title=title) for where, some in found.items()}
            figures += _by_quantity(made) if panel else made.values()
    return figures, remarks


def _by_quantity(made: Mapping[str, AnalysisFigure]) -> Iterator[AnalysisFigure]:
    """From a figure of all quantities for each backbone to a figure of all backbones for each quantity."""
    first = next(iter(made.values()))
    for same in zip(*(figure.panels for figure in made.values()), strict=True):
        panels = tuple(replace(panel, title=where) for where, panel in zip(made, same, strict=True))
        # Over all seeds if any backbone has several: a note that holds for none of the bands would be worse.
        notes = sorted({figure.note for figure in made.values()})
        yield replace(first, name=same[0].name, panels=panels, note=", ".join(notes))


def read(runs: Sequence[Analysis], store: Store) -> tuple[list[Arrays], list[str]]:
    """Arrays of the finished ones of some runs, and a remark on each damaged file."""
    found: list[Arrays] = []
    remarks: list[str] = []
    for name in dict.fromkeys(map(key, runs)):
        try:
            if (path := store.artefact(name, FILE)) is None:
                continue
            # Without pickles: a store may have been merged from elsewhere, and nothing of it may be executed.
            with np.load(path, allow_pickle=False) as arrays:
                found.append(dict(arrays))
        except Exception as error:  # what a damaged file makes the reader raise is open
            remarks.append(f"The curves of {name} do not read: {clean(str(error))}")
    return found, remarks


def figure_of(kind: Kind, found: Sequence[tuple[str, Sequence[Arrays]]], *, column: str, title: str) -> AnalysisFigure:
    """The figure of some models. found: a label and the arrays of one run or more (seeds) for each."""
    single = all(len(arrays) == 1 for _, arrays in found)
    made = {"interactions": _interactions, "occlusion": _occlusion, "fourier": _fourier, "rgb": _rgb}[kind]
    note = {
        "interactions": "standard error over images",
        "occlusion": "standard deviation over draws",
        "fourier": "standard error over images",
        "rgb": "",
    }[kind]
    panels = tuple(made(found))
    if not single:
        note = "standard deviation over seeds"
        # The spread of a run alone is of another kind.
        alone = {label for label, arrays in found if len(arrays) == 1}
        panels = tuple(replace(panel, bands=tuple(_bare(band, alone) for band in panel.bands)) for panel in panels)
    return AnalysisFigure(column=column, kind=kind, name=kind, title=title, note=note, panels=panels)


def _bare(band: Band, alone: Collection[str]) -> Band:
    """The curve without its band, if its label is one of these."""
    return replace(band, spread=np.full_like(band.spread, np.nan)) if band.label in alone else band


def draw(data: AnalysisFigure) -> Figure:
    """The panels side by side, one legend below."""
    width = ONE if len(data.panels) == 1 else TWO
    figure = Figure(figsize=(width, 2.5), layout="constrained")
    handles: dict[str, Any] = {}
    for axes, panel in zip(figure.subplots(1, len(data.panels), squeeze=False)[0], data.panels, strict=True):
        if panel.level is not None:
            axes.axhline(panel.level, color=GREY, linestyle=":", linewidth=0.9, zorder=1)
        for band in panel.bands:
            look = data.labels.index(band.label) % LINES
            # Markers only on few points: on a long curve they would run together.
            colour, marker = COLOURS[look], MARKERS[look] if len(band.x) <= 24 else ""
            (line,) = axes.plot(
                band.x, band.y, color=colour, linestyle=DASHES[look], marker=marker, markersize=3, zorder=3
            )
            axes.fill_between(
                band.x, band.y - band.spread, band.y + band.spread, color=colour, alpha=0.15, linewidth=0, zorder=2
            )
            handles.setdefault(plain(band.label) if band.label else "", line)
        axes.set_xlabel(panel.x)
        axes.set_ylabel(panel.y)
        axes.set_title(plain(panel.title))
    _align(figure)
    named = {label: handles[label] for label in handles if label}
    figure.set_size_inches(width, 2.5 + 0.17 * legend_below(figure, named, width=width, title=data.title))
    if data.note:
        figure.suptitle(f"bands: {data.note}", color=GREY, fontsize=7, x=0.01, ha="left")
    return figure


def _align(figure: Figure) -> None:
    """Give panels that show the same quantity the same range."""
    for name in {axes.get_ylabel() for axes in figure.axes}:
        alike = [axes for axes in figure.axes if axes.get_ylabel() == name]
        low, high = zip(*(axes.get_ylim() for axes in alike), strict=True)
        for axes in alike:
            axes.set_ylim(min(low), max(high))


def words(data: AnalysisFigure) -> str:
    """Content of a figure in a few words, for the page."""
    said: dict[Kind, str] = {
        "interactions": "interaction strength over the order",
        "occlusion": "accuracy over the share of dropped patches",
        "fourier": "spectra and variance of the layers' feature maps",
        "rgb": "colours of the masked inputs under each fill",
    }
    one = data.panels[0] if data.name != data.kind else None
    alone = "" if data.kind == "rgb" else "; A2MIM publishes its curves without numbers, so ours stand alone"
    return f"{clean(data.column)}: {f'{one.y}, {one.x}' if one else said[data.kind]}{alone}"


def _interactions(found: Sequence[tuple[str, Sequence[Arrays]]]) -> Iterator[Panel]:
    bands = tuple(
        _band(label, runs[0]["orders"], [run["strength"] for run in runs], runs[0]["error"]) for label, runs in found
    )
    yield Panel(name="strength", x="order m / (n - 2)", y="interaction strength J(m)", bands=bands, level=1.0)


def _occlusion(found: Sequence[tuple[str, Sequence[Arrays]]]) -> Iterator[Panel]:
    """Accuracy over the share of dropped patches: at random, the most salient first, the least salient first."""
    bands = []
    for label, runs in found:
        draws = runs[0]["random"]
        # A single draw has no deviation, which is not a deviation of 0.
        own = draws.std(axis=1, ddof=1) if draws.shape[1] > 1 else np.full(len(draws), np.nan)
        bands.append(_band(label, runs[0]["ratios"], [run["random"].mean(axis=1) for run in runs], own))
    yield Panel(name="random", x="share of patches dropped at random", y="top-1 (%)", bands=tuple(bands))
    for name, order in (("salient", "the most salient first"), ("nonsalient", "the least salient first")):
        curves = tuple(_band(label, runs[0]["ratios"], [run[name] for run in runs]) for label, runs in found)
        yield Panel(name=name, x=f"share dropped, {order}", y="top-1 (%)", bands=curves)


def _fourier(found: Sequence[tuple[str, Sequence[Arrays]]]) -> Iterator[Panel]:
    """Spectra of the last layer, then amplitude at the highest frequency and variance over the depth."""
    spectra, depths, variances = [], [], []
    for label, runs in found:
        sides, error = runs[0]["sides"], runs[0]["error"]
        # Maps of layers differ in size, so rows end in NaN; the last number is that of the highest frequency.
        last = [int(np.isfinite(row).sum()) - 1 for row in runs[0]["amplitude"]]
        layers = np.arange(len(sides))
        # In [0, 1], so that models of different depths share an axis.
        depth = layers / max(len(layers) - 1, 1)
        steps = np.arange(last[-1] + 1)
        spectra.append(
            _band(label, 2 * steps / sides[-1], [run["amplitude"][-1, steps] for run in runs], error[-1, steps])
        )
        depths.append(_band(label, depth, [run["amplitude"][layers, last] for run in runs], error[layers, last]))
        variances.append(_band(label, depth, [run["variance"] for run in runs]))
    yield Panel(
        name="spectrum",
        x="frequency of the last layer (π)",
        y="relative log amplitude",
        bands=tuple(spectra),
        level=0.0,
    )
    yield Panel(name="depth", x="depth", y="log amplitude at\nthe highest frequency", bands=tuple(depths), level=0.0)
    yield Panel(name="variance", x="depth", y="variance of the maps", bands=tuple(variances))


def _rgb(found: Sequence[tuple[str, Sequence[Arrays]]]) -> Iterator[Panel]:
    """The fills of the first model; others with the same mask and data have the same."""
    label, runs = found[0]
    fills = [str(name) for name in runs[0]["fills"]]
    bins = runs[0]["histogram"].shape[2]
    colour = (np.arange(bins) + 0.5) / bins
    prefix = f"{label}: " if len(found) > 1 and label else ""
    yield Panel(
        name="histogram",
        x="colour",
        y="share of pixels",
        bands=tuple(
            _band(prefix + fill, colour, [run["histogram"][number].mean(axis=0) for run in runs])
            for number, fill in enumerate(fills)
        ),
    )
    yield Panel(
        name="moments",
        x="mean colour",
        y="variance",
        bands=tuple(
            _band(
                prefix + fill,
                np.array([runs[0]["mean"][number].mean()]),
                [np.array([run["variance"][number].mean()]) for run in runs],
            )
            for number, fill in enumerate(fills)
        ),
    )


def _band(label: str, x: Values, curves: Sequence[Values], own: Values | None = None) -> Band:
    """Mean and standard deviation over runs; of a single run its own spread."""
    every = np.stack(curves)
    nothing = np.full(every.shape[1], np.nan)
    spread = every.std(axis=0, ddof=1) if len(every) > 1 else (nothing if own is None else own)
    return Band(label=label, x=np.asarray(x, dtype=np.float64), y=every.mean(axis=0), spread=spread)
