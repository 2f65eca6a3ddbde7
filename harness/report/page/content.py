"""From a plan and its frames to what the page shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from harness.report.claims.verdicts import Verdict
from harness.report.collect import STATES
from harness.report.escape import clean, file_stem
from harness.report.figures.examples import STEM as EXAMPLES
from harness.report.figures.gallery import Triplets
from harness.report.headline import sentences
from harness.report.page import Body, Page, Picture, Section
from harness.report.page.images import ARMS, reconstructions
from harness.report.page.runs import details
from harness.report.page.sections import unbroken
from harness.report.tables.paper_values import column_beside
from harness.report.tables.table import Table
from harness.study import Plan

CHOICES = 40
"""Values of an axis up to which one can be chosen from a list."""


def page(
    plan: Plan,
    runs: pd.DataFrame,
    cells: pd.DataFrame,
    table: Table,
    pictures: Mapping[str, tuple[str, bytes]],
    triplets: tuple[str, Sequence[Triplets]],
    *,
    claims: Sequence[Verdict] = (),
    checks: Sequence[tuple[str, str]] = (),
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
        headline=tuple(map(unbroken, sentences(plan, cells, claims))),
        body=_body(cells, table),
        counts=tuple((state, counts[state]) for state in STATES if counts[state]),
        checks=checks,
        before=before,
        after=after,
        # Without a value they would show the paper's alone.
        pictures=_pictures(pictures, plan) if counts["done"] else (),
        remarks=(*remarks, *left_out),
        runs=details(plan, runs),
        reconstructions=reconstructions(found, title),
    )


def _pictures(found: Mapping[str, tuple[str, bytes]], plan: Plan) -> list[Picture]:
    """The figures; colours of test pictures mean something, so they stay in dark mode.

    Of several evaluations, that of the headline comes first.
    """
    columns = plan.columns()
    first = column_beside(plan, list(columns))
    of = {name: next((c for c in columns if name.startswith(file_stem("figure", c) + "-")), None) for name in found}
    own = [name for name in found if of[name] == first]
    others = [name for name in found if of[name] != first]
    place = next((place for place, name in enumerate(found) if of[name]), 0)
    order = [*others[:place], *own, *others[place:]]
    return [Picture(text=found[name][0], data=found[name][1], photo=name.startswith(EXAMPLES)) for name in order]


def _body(cells: pd.DataFrame, table: Table) -> Body:
    """The table as the page filters it: numbers of cells, values to choose from, and state of each cell."""
    values = {place: tuple(dict.fromkeys(row[place].text for row in table.rows)) for place in range(table.axes)}
    return Body(
        table=table,
        cells=tuple(int(number) for number in cells["cell"].drop_duplicates()),
        # One value leaves nothing to choose, and a long list is searched by typing instead.
        choices={place: found for place, found in values.items() if 1 < len(found) <= CHOICES},
        standings=_standings(cells),
    )


def _standings(cells: pd.DataFrame) -> tuple[str, ...]:
    """Of each cell: whole, excluded, or with holes."""
    found = []
    # In the order of the study, which `cells` of the body has too.
    for _, part in cells.groupby("cell", sort=False):
        # A cell with several evaluations has holes if any of these has.
        holes = (part["n"] < part["n_planned"]).any()
        found.append("with holes" if holes else "excluded" if not part["n_planned"].any() else "whole")
    return tuple(found)
