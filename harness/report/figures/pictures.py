"""All pictures of a report, as bytes by file name."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pandas as pd
from matplotlib.figure import Figure

from harness.report.collect import Arm, arms, runs_frame
from harness.report.escape import clean, file_stem
from harness.report.figures import against, analyses, avgdist, drawing, examples, gallery
from harness.report.figures.data import LINES, axis_figures, cell_labels, cells_figures, curves
from harness.report.figures.heatmap import draw_heatmap, heatmaps
from harness.report.labels import Words
from harness.report.tables.statistics import summary
from harness.store import Store
from harness.study import Plan

P = TypeVar("P")

PAGES = 4
"""Pages up to which a figure is drawn in full. Beyond them only the first is drawn: a table tells more."""

MAPS = 2
"""Heat maps of one pair of axes that are drawn at most."""

CELLS = 40
"""Cells on one page, side by side."""

FORMATS = {"png": drawing.png, "pdf": drawing.pdf, "svg": drawing.svg}
"""Files of each figure, by their endings."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """All pictures of a report.

    files: bytes by file name. words: content of each picture, by its name without suffix. triplets: the
        reconstructions. title: axes whose values their labels show. remarks: one for each picture that leaves
        something out.
    """

    files: Mapping[str, bytes]
    words: Mapping[str, str]
    title: str
    triplets: Sequence[gallery.Triplets]
    remarks: tuple[str, ...]

    def shown(self) -> dict[str, tuple[str, bytes]]:
        """PNG files except reconstructions: by name, words on the picture and its bytes."""
        return {
            name: (self.words.get(name.removesuffix(".png"), name), data)
            for name, data in self.files.items()
            if name.endswith(".png") and not name.startswith("reconstructions")
        }


def make(plan: Plan, store: Store, runs: pd.DataFrame, cells: pd.DataFrame) -> Pictures:
    """Every picture of a study at a scale."""
    found, title, labels = _arms(plan, cells)
    with drawing.style():
        figures, words, remarks = _drawn(plan, store, runs, cells)
        files = {name: data for stem, figure in figures.items() for name, data in _encoded(stem, figure).items()}
        # One more than are drawn, which tells that some are left out.
        triplets, damaged = gallery.gallery(found, labels, store, limit=PAGES * gallery.ARMS + 1)
        last, left_out = _gallery(triplets, len(found), title)
    return Pictures(
        files=files | last, words=words, title=title, triplets=triplets, remarks=(*remarks, *damaged, *left_out)
    )


def figures(plan: Plan, store: Store) -> dict[str, Figure]:
    """The figures of a study at a scale, drawn, by the names of their files without suffix."""
    runs = runs_frame(plan, store)
    with drawing.style():
        found, _, _ = _drawn(plan, store, runs, summary(plan, runs))
    return found


def _arms(plan: Plan, cells: pd.DataFrame) -> tuple[Sequence[Arm], str, list[str]]:
    """The arms of a plan, what their labels hold, and the labels."""
    found = arms(plan)
    reference = plan.study.complete(plan.study.reference)
    return found, *cell_labels([arm.axes for arm in found], reference, Words.of(plan, cells))


def _drawn(
    plan: Plan, store: Store, runs: pd.DataFrame, cells: pd.DataFrame
) -> tuple[dict[str, Figure], dict[str, str], list[str]]:
    """All figures by name, the words on each, and remarks on what is left out."""
    words: dict[str, str] = {}
    made, remarks = _figures(runs, cells, words, Words.of(plan, cells))
    made |= _beside_the_paper(plan, runs, cells, made, words, Words.of(plan, cells))
    more, others = _curves(*_arms(plan, cells), store, words)
    seen, unread = _analyses(plan, store, made, words)
    tested, broken = _examples(plan, store, words, Words.of(plan, cells))
    # The curves first: where a study analyses its models, they are what it is about.
    return seen | made | more | tested, words, [*remarks, *others, *unread, *broken]


def _figures(
    runs: pd.DataFrame, cells: pd.DataFrame, words: dict[str, str], shown: Words
) -> tuple[dict[str, Figure], list[str]]:
    """Figures over axes, of cells side by side, and heat maps; adds the words of each to `words`."""
    files: dict[str, Figure] = {}
    remarks: list[str] = []
    for over in axis_figures(runs, cells, shown):
        stem = _free(file_stem("figure", over.evaluation, over.axis), files)
        pages = over.pages()
        made = _paged(stem, [drawing.draw_axis(page) for page in _kept(pages)], [page.name for page in pages])
        files |= made
        words |= _said(made, f"{over.measure} over {over.over}")
        remarks += _left_out(stem, pages, len(pages[0].lines), len(over.lines))
    for beside in cells_figures(runs, cells, shown):
        stem = _free(file_stem("figure", beside.evaluation, "cells"), files)
        rows = beside.pages(CELLS)
        made = _paged(stem, [drawing.draw_cells(page) for page in _kept(rows)], [page.name for page in rows])
        files |= made
        words |= _said(made, f"{beside.measure} of each cell")
        remarks += _left_out(stem, rows, len(rows[0].points), len(beside.points))
    for maps in heatmaps(cells, shown):
        first = maps[0]
        stem = _free(file_stem("figure", first.evaluation, *first.axes), files)
        names = [page.label for page in maps[:MAPS]] if len(maps) > 1 else ()
        made = _paged(stem, [draw_heatmap(page) for page in maps[:MAPS]], names)
        files |= made
        words |= _said(made, f"{first.measure} over {first.rows[0]} and {first.columns[0]}")
        if len(maps) > MAPS:
            remarks.append(f"{stem} shows the first {MAPS} of {len(maps)} combinations of the other axes.")
    return files, remarks


def _beside_the_paper(
    plan: Plan, runs: pd.DataFrame, cells: pd.DataFrame, taken: dict[str, Figure], words: dict[str, str], shown: Words
) -> dict[str, Figure]:
    """The papers' own figures with ours in them; adds the words of each to `words`. taken: names that are not free."""
    files: dict[str, Figure] = {}
    for far in avgdist.distance_figures(plan, cells, shown):
        stem = _free(file_stem("figure", far.evaluation, "avgdist"), taken)
        files[stem] = avgdist.draw_beside(far)
        words[stem] = clean(f"{far.measure} over AvgDist of the paper's mask at 192 px; ratios beside the points")
    for each in against.against_figures(runs, cells, shown):
        stem = _free(file_stem("figure", each.evaluation, "paper"), taken | files)
        files[stem] = against.draw(each)
        words[stem] = clean(f"{each.measure}: our difference from the reference over the paper's")
    return files


def _curves(
    found: Sequence[Arm], title: str, labels: Sequence[str], store: Store, words: dict[str, str]
) -> tuple[dict[str, Figure], list[str]]:
    """Learning curves of the arms; adds their words to `words`."""
    # One more than are drawn, as above: logs of the others are not even read.
    shown = list(itertools.islice(curves(found, labels, store), PAGES * LINES + 1))
    pages = [shown[first : first + LINES] for first in range(0, len(shown), LINES)]
    made = _paged("figure-curves", [drawing.draw_curves(page, title) for page in _kept(pages)])
    words |= _said(made, "Loss of pre-training over its epochs")
    return made, _left_out("figure-curves", pages, LINES, len(found))


def _analyses(
    plan: Plan, store: Store, taken: dict[str, Figure], words: dict[str, str]
) -> tuple[dict[str, Figure], list[str]]:
    """Figures of analyses; adds the words of each to `words`. taken: figures whose names are not free."""
    found, remarks = analyses.analysis_figures(plan, store)
    files: dict[str, Figure] = {}
    for figure in found:
        stem = _free(file_stem("figure", figure.column, figure.name), taken | files)
        pages = figure.pages()
        made = _paged(stem, [analyses.draw(page) for page in _kept(pages)])
        files |= made
        words |= _said(made, analyses.words(figure))
        remarks += _left_out(
            stem, pages, *(sum(len(panel.bands) for panel in one.panels) for one in (pages[0], figure))
        )
    return files, remarks


def _examples(plan: Plan, store: Store, words: dict[str, str], shown: Words) -> tuple[dict[str, Figure], list[str]]:
    """Test pictures of segmentations and detections; adds the words of each figure to `words`."""
    found, remarks = examples.examples_of(plan, store, shown)
    files: dict[str, Figure] = {}
    for one in found:
        stem = file_stem(examples.STEM, one.evaluation)
        pages = one.pages()
        made = _paged(stem, [examples.draw(page) for page in _kept(pages)])
        files |= made
        words |= _said(made, f"Test pictures, their truth, and predictions: {shown.evaluation(one.evaluation)}")
        remarks += _left_out(stem, pages, examples.COLUMNS, len(one.columns))
    return files, remarks


def _gallery(triplets: Sequence[gallery.Triplets], arms: int, title: str) -> tuple[dict[str, bytes], list[str]]:
    """Pictures of reconstructions. arms: number of all arms, for the remark on those left out."""
    pages = gallery.pages(triplets)
    files = {
        f"{_page('reconstructions', number)}.png": drawing.png(gallery.draw(page, title))
        for number, page in enumerate(_kept(pages))
    }
    return files, _left_out("reconstructions", pages, gallery.ARMS, arms)


def _said(stems: Collection[str], text: str) -> dict[str, str]:
    """The same words for each page of a figure, with the number of the page."""
    several = len(stems) > 1
    return {
        stem: clean(f"{text}, part {number} of {len(stems)}" if several else text)
        for number, stem in enumerate(stems, start=1)
    }


def _paged(stem: str, pages: Sequence[Figure], names: Sequence[str] = ()) -> dict[str, Figure]:
    """The pages of a figure, by name: of what a page shows where it says so, else numbered."""
    found: dict[str, Figure] = {}
    for number, figure in enumerate(pages):
        name = names[number] if names else ""
        found[_free(file_stem(stem, name), found) if name else _page(stem, number)] = figure
    return found


def _encoded(name: str, figure: Figure) -> dict[str, bytes]:
    """A figure in all formats, by file name."""
    drawing.settle(figure)
    return {f"{name}.{kind}": encode(figure) for kind, encode in FORMATS.items()}


def _page(stem: str, number: int) -> str:
    return stem if number == 0 else f"{stem}-{number + 1}"


def _free(stem: str, taken: Collection[str]) -> str:
    """The stem, with letters added where it is taken: different names can be the same once made safe."""
    # Learning curves come later, and their name is fixed.
    while stem in taken or stem == "figure-curves":
        stem += "x"
    return stem


def _kept(pages: list[P]) -> list[P]:
    """The pages that are drawn."""
    return pages if len(pages) <= PAGES else pages[:1]


def _left_out(stem: str, pages: Sequence[object], held: int, number: int) -> list[str]:
    """Remark on a figure of `number` items of which only the first page, with `held`, is drawn; else none."""
    return [f"{stem} shows the first {held} of {number}."] if len(pages) > PAGES else []
