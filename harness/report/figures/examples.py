"""Test pictures of segmentations and detections: the picture, its truth, and what each cell predicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from harness.overlay import Thing, boxed, colours, tinted
from harness.report.escape import clean
from harness.report.figures import drawing
from harness.report.figures.data import cell_labels
from harness.report.figures.drawing import plain
from harness.report.labels import Words
from harness.spec import Detect, Scalar, Segment, key
from harness.spec.dense.detect import SHOWN_SCORE
from harness.store import Store
from harness.study import Plan

FILE = "examples.npz"
"""Name of the artefact that such a run writes (`harness.core.evaluate.examples`)."""
STEM = "figure-pictures"
"""What names of files begin with."""
COLUMNS = 4
"""Cells on one page."""
SIDE = 192
"""Least side of a drawn picture in pixels, so that names beside boxes can be read."""

Arrays = Mapping[str, NDArray[Any]]
Drawn = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Column:
    """Test pictures as one cell predicts them. pictures, truth, predicted: [H, W, 3] each. kinds: classes in them."""

    label: str
    pictures: tuple[Drawn, ...]
    truth: tuple[Drawn, ...]
    predicted: tuple[Drawn, ...]
    kinds: frozenset[int]


@dataclass(frozen=True, kw_only=True)
class Examples:
    """The cells of one column of a study.

    title: axes whose values the labels hold. names: of the classes. scored: True if what is predicted are objects.
    """

    evaluation: str
    title: str
    names: tuple[str, ...]
    columns: tuple[Column, ...]
    scored: bool

    def pages(self) -> list[Examples]:
        """The cells in parts that stay legible."""
        return [
            replace(self, columns=self.columns[first : first + COLUMNS])
            for first in range(0, len(self.columns), COLUMNS)
        ]


def examples_of(plan: Plan, store: Store, words: Words) -> tuple[list[Examples], list[str]]:
    """Examples of a plan's segmentations and detections, one set a column, and a remark on each damaged file.

    Those of a cell are of its first seed that has any. Columns that show the same runs are shown once.
    """
    found, remarks, seen = [], [], set()
    for evaluation in plan.columns():
        cells = _cells(plan, evaluation)
        names = tuple(name for _, keys in cells for name in keys)
        if not names or names in seen:
            continue
        seen.add(names)
        title, labels = cell_labels([axes for axes, _ in cells], plan.study.complete(plan.study.reference), words)
        classes: tuple[str, ...] = ()
        columns = []
        scored = isinstance(plan.runs()[names[0]], Detect)
        for label, (_, keys) in zip(labels, cells, strict=True):
            arrays, damaged = _first(keys, store)
            remarks += damaged
            if arrays is not None:
                classes = classes or tuple(map(str, arrays["names"]))
                columns.append(_column(label, arrays))
        if columns:
            found.append(
                Examples(evaluation=evaluation, title=title, names=classes, columns=tuple(columns), scored=scored)
            )
    return found, remarks


def draw(data: Examples) -> Figure:
    """A row a test picture: the picture, its truth, and the prediction of each cell."""
    first = data.columns[0]
    heads = ["picture", "truth", *(column.label for column in data.columns)]
    rows = list(zip(first.pictures, first.truth, *(column.predicted for column in data.columns), strict=False))
    side = 1.1
    figure = Figure(figsize=(side * len(heads), side * len(rows) + 0.9), layout="constrained")
    for number, (line, images) in enumerate(
        zip(figure.subplots(len(rows), len(heads), squeeze=False), rows, strict=True)
    ):
        for axes, head, image in zip(line, heads, images, strict=True):
            axes.set_axis_off()
            axes.imshow(image, interpolation="nearest", aspect="equal")
            if number == 0:
                axes.set_title(plain(head, 24), fontsize=7, wrap=True)
    kinds = sorted(frozenset().union(*(column.kinds for column in data.columns)))
    shades = ["#{:02x}{:02x}{:02x}".format(*shade) for shade in colours(data.names)]
    handles = [Patch(color=shades[kind], label=plain(data.names[kind])) for kind in kinds]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(heads), fontsize=7, frameon=False)
    drawing.remark(
        figure,
        f"predictions by {data.title}" if data.title else "",
        f"predicted objects: of a score of {SHOWN_SCORE} or more" if data.scored else "",
    )
    return figure


def _cells(plan: Plan, evaluation: str) -> list[tuple[Mapping[str, Scalar], list[str]]]:
    """Axes of each cell that has such an evaluation, and the keys of its runs in the order of seeds."""
    cells: dict[tuple[Scalar, ...], tuple[Mapping[str, Scalar], list[str]]] = {}
    for row in plan.rows:
        run = row.evaluations.get(evaluation)
        if isinstance(run, Segment | Detect):
            cells.setdefault(tuple(row.axes.values()), (row.axes, []))[1].append(key(run))
    return list(cells.values())


def _first(keys: Sequence[str], store: Store) -> tuple[Arrays | None, list[str]]:
    """The arrays of the first of these runs whose file is there and reads, and a remark on each that does not read."""
    remarks: list[str] = []
    for name in keys:
        try:
            path = store.artefact(name, FILE)
            if path is not None and path.is_file():
                return _read(path), remarks
        except Exception as error:  # what a damaged file makes the reader raise is open
            remarks.append(f"Test pictures of {name} do not read: {clean(str(error))}")
    return None, remarks


def _read(path: Path) -> Arrays:
    # Without pickles: a store may have been merged from elsewhere, and nothing of it may be executed.
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _column(label: str, arrays: Arrays) -> Column:
    """What is drawn of a run's examples."""
    names = tuple(map(str, arrays["names"]))
    segments = "truth_0" in arrays
    told = [
        _segments(arrays, names, number) if segments else _objects(arrays, names, number) for number in _numbers(arrays)
    ]
    pictures = [np.asarray(boxed(arrays[f"picture_{number}"], (), names, SIDE)) for number in _numbers(arrays)]
    return Column(
        label=label,
        pictures=tuple(pictures),
        truth=tuple(truth for truth, _, _ in told),
        predicted=tuple(predicted for _, predicted, _ in told),
        kinds=frozenset().union(*(kinds for _, _, kinds in told)),
    )


def _numbers(arrays: Arrays) -> Iterator[int]:
    number = 0
    while f"picture_{number}" in arrays:
        yield number
        number += 1


def _segments(arrays: Arrays, names: Sequence[str], number: int) -> tuple[Drawn, Drawn, frozenset[int]]:
    """A segmentation's truth and prediction over picture `number`, and the classes in them."""
    maps = [arrays[f"{which}_{number}"] for which in ("truth", "predicted")]
    truth, predicted = (np.asarray(tinted(arrays[f"picture_{number}"], one, names)) for one in maps)
    kinds = {kind for one in maps for kind in np.unique(one).tolist() if kind < len(names)}
    return truth, predicted, frozenset(kinds)


def _objects(arrays: Arrays, names: Sequence[str], number: int) -> tuple[Drawn, Drawn, frozenset[int]]:
    """A detection's true and predicted objects over picture `number`, and the classes among them."""
    drawn, kinds = [], set()
    for which in ("truth", "predicted"):
        found = [arrays.get(f"{which}_{part}_{number}") for part in ("classes", "boxes", "scores", "masks")]
        classes, boxes = found[0], found[1]
        assert classes is not None
        assert boxes is not None
        many: list[Sequence[Any]] = [[None] * len(classes) if part is None else list(part) for part in found[2:]]
        things = [
            Thing(int(kind), box, None if score is None else float(score), mask)
            for kind, box, score, mask in zip(classes, boxes, *many, strict=True)
        ]
        kinds |= {thing.kind for thing in things}
        drawn.append(np.asarray(boxed(arrays[f"picture_{number}"], things, names, SIDE)))
    return drawn[0], drawn[1], frozenset(kinds)
