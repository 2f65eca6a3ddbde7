"""Reports of studies: tables, figures and page with seeds aggregated and missing values named. Loads no torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pandas import DataFrame

from harness.report.claims.listing import beside, claim_lines, claims_text, judged, judged_seeds
from harness.report.claims.verdicts import Verdict
from harness.report.collect import Standings, runs_frame
from harness.report.escape import file_stem
from harness.report.tables.latex import latex_text
from harness.report.tables.statistics import summary
from harness.report.tables.table import ESTIMATED, csv_text, markdown_text, table
from harness.store import Store
from harness.store.files import disk_errors, read_json, write_atomically
from harness.study import Plan

if TYPE_CHECKING:
    from harness.report.figures.pictures import Pictures

__all__ = ["Report", "write"]

AUDIT = "audit.json"
"""File that `harness audit` writes into a report's folder."""

_MADE = ("figure-*.png", "figure-*.pdf", "figure-*.svg", "reconstructions*.png", "claims.md")
"""Files that a report of the same study writes at one time and not at another."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Files of a written report, and its table for a terminal.

    files: names in `folder`. rows: one per cell, as long as `header`, whose first `axes` entries are axes, and the
    others evaluations, each of as many columns as `groups` says. notes: footnotes first. complete: True if no value of
    the plan is missing, excluded cells aside. judged: numbers of seeds with which the claims were judged, including
    earlier reports. Texts hold no control characters, but may hold
    brackets.
    """

    folder: Path
    files: tuple[str, ...]
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    axes: int
    groups: tuple[int, ...]
    notes: tuple[str, ...]
    complete: bool
    judged: tuple[int, ...] = ()


def write(
    plan: Plan,
    store: Store,
    folder: Path,
    standings: Standings | None = None,
    judged_before: Collection[int] = (),
    *,
    wide: bool = False,
) -> Report:
    """Write tables, figures and reconstructions of a study, however much of it is done.

    All files are made before the first is written, and each is replaced in one step. Figures and claims of an earlier
    report that are no longer made are removed; other files are left alone.

    Args:
        standings: states of runs as their executor sees them; without it, states follow from the store's files.
        judged_before: numbers of seeds with which the claims were judged for earlier reports.
        wide: the table with columns of n, interval, difference and adjusted p-value, in Markdown, LaTeX and terminal.

    Raises:
        HarnessError: the disk refuses.
    """
    runs = runs_frame(plan, store, standings)
    cells = summary(plan, runs)
    found = table(plan, runs, cells, wide=wide)
    label = f"tab:{file_stem(plan.study.name or 'study', plan.scale.name)}"
    texts = {
        "runs.csv": csv_text(runs),
        "table.csv": csv_text(cells, ESTIMATED),
        "table.md": markdown_text(found),
        "table.tex": latex_text(found, label),
    }
    claims = judged(plan, runs)
    if claims:
        texts["claims.md"] = claims_text(plan, claims, judged_before, beside(plan, runs))
    made = _pictures(plan, store, runs, cells)
    texts["report.html"] = _page(plan, runs, cells, made, claims, read_json(folder / AUDIT), judged_before)
    files = {name: text.encode() for name, text in texts.items()} | dict(made.files)
    _publish(folder, files)
    wanted = runs[runs["state"] != "excluded"]
    return Report(
        folder=folder,
        files=tuple(files),
        caption=found.caption,
        header=found.header,
        rows=found.plain_rows(),
        axes=found.axes,
        groups=found.groups,
        notes=(*found.plain_notes(), *found.reading * wide, *made.remarks, *claim_lines(plan, claims, judged_before)),
        complete=bool(wanted["value"].notna().all()),
        judged=tuple(sorted({*judged_before, *judged_seeds(plan, claims)})),
    )


def _pictures(plan: Plan, store: Store, runs: DataFrame, cells: DataFrame) -> Pictures:
    """All pictures of a report; imports Matplotlib only here, because it takes a second to load."""
    from harness.report.figures import pictures

    return pictures.make(plan, store, runs, cells)


def _page(
    plan: Plan,
    runs: DataFrame,
    cells: DataFrame,
    made: Pictures,
    claims: Sequence[Verdict],
    audit: object,
    judged_before: Collection[int],
) -> str:
    """Text of report.html; imports Jinja only here."""
    from harness.report.page import content, html_text, sections

    findings = audit if isinstance(audit, list) else []
    numbers = sections.numbers_section(table(plan, runs, cells, wide=True))
    shown = content.page(
        plan, runs, cells, table(plan, runs, cells), made.shown(), (made.title, made.triplets), remarks=made.remarks,
        claims=claims, checks=sections.checks(findings, runs),
        before=sections.verdicts_section(claims),
        after=[
            numbers, *sections.paper_section(plan, cells), *sections.claims_section(plan, claims, judged_before),
            *sections.audit_section(findings),
        ],
    )  # fmt: skip
    return html_text(shown)


def _publish(folder: Path, files: dict[str, bytes]) -> None:
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_atomically(folder / name, data)
        for pattern in _MADE:
            for path in folder.glob(pattern):
                if path.name not in files:
                    path.unlink(missing_ok=True)
