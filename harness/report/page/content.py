"""From a plan and its frames to what the page shows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from harness.report.collect import STATES, axes_of, records
from harness.report.escape import clean
from harness.report.gallery import Triplets
from harness.report.page import Body, Page, Picture, Section
from harness.report.page.images import ARMS, reconstructions
from harness.report.page.runs import details
from harness.report.tables import Table
from harness.study import Plan

CHOICES = 40
"""Values of an axis up to which one can be chosen from a list."""

_NUMBER = re.compile(rf"([+−-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)(?! (?:{'|'.join(STATES)}))\b")


def page(
    plan: Plan,
    runs: pd.DataFrame,
    cells: pd.DataFrame,
    table: Table,
    pictures: Mapping[str, tuple[str, bytes]],
    triplets: tuple[str, Sequence[Triplets]],
    *,
    before: Sequence[Section] = (),
    after: Sequence[Section] = (),
    remarks: Sequence[str] = (),
) -> Page:
    """The page of a study at a scale.

    Args:
        pictures: by file name what a PNG shows, and its bytes. triplets: what the labels hold, and the
            reconstructions of each arm.
    """
    title, found = triplets
    left_out = [f"The page shows the reconstructions of the first {ARMS} arms."] if len(found) > ARMS else []
    counts = Counter(str(state) for state in runs["state"])
    return Page(
        title=clean(plan.study.name) or "Study",
        scale=clean(plan.scale.name),
        body=_body(cells, table),
        counts=tuple((state, counts[state]) for state in STATES if counts[state]),
        before=before,
        after=after,
        pictures=tuple(Picture(text=text, data=data) for text, data in pictures.values()),
        remarks=(*remarks, *left_out),
        runs=details(plan, runs),
        reconstructions=reconstructions(found, title),
    )


def sort_number(text: str) -> float | None:
    """The number that an entry begins with, such as 81.2 of `81.20 ± 0.30`; None for `2 missing` and for words."""
    found = _NUMBER.match(text)
    return float(found[1].replace("−", "-").replace(",", "")) if found else None


def _body(cells: pd.DataFrame, table: Table) -> Body:
    axes = axes_of(cells)
    points = records(cells.drop_duplicates("cell")[axes])
    numbers = tuple(
        tuple(_axis_number(point[axis]) for axis in axes) + tuple(sort_number(entry.text) for entry in row[len(axes) :])
        for point, row in zip(points, table.rows, strict=True)
    )
    values = {place: tuple(dict.fromkeys(row[place].text for row in table.rows)) for place in range(len(axes))}
    return Body(
        table=table,
        cells=tuple(int(number) for number in cells["cell"].drop_duplicates()),
        numbers=numbers,
        choices={place: found for place, found in values.items() if 1 < len(found) <= CHOICES},
        standings=_standings(cells),
    )


def _axis_number(value: object) -> float | None:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if numeric else None  # type: ignore[arg-type]


def _standings(cells: pd.DataFrame) -> tuple[str, ...]:
    """Of each cell: whole, excluded, or with holes."""
    found = []
    for _, part in cells.groupby("cell", sort=False):
        holes = (part["n"] < part["n_planned"]).any()
        found.append("with holes" if holes else "excluded" if not part["n_planned"].any() else "whole")
    return tuple(found)
