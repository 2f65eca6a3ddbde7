"""`harness report`: tables, figures and the page of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.common import (
    ScaleName,
    Seeds,
    StorePath,
    StudyFile,
    Where,
    planned,
    refuse_mixed,
    reported,
    results_folder,
    say,
    show_table,
)
from harness.launch.executor import overview
from harness.spec import HarnessError
from harness.store import Store
from harness.study import Plan


def report(
    study: StudyFile,
    scale: ScaleName = None,
    where: Where = None,
    seeds: Seeds = None,
    store: StorePath = None,
    out: Annotated[Path | None, typer.Option("--out", help="folder to write to; default: results/STUDY/SCALE")] = None,
    wide: Annotated[
        bool, typer.Option("--wide", help="with columns of n, interval, difference from the reference and adjusted p")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="refuse a table that mixes commits, versions, devices or threads"),
    ] = False,
) -> None:
    """Write runs.csv, the table (CSV, Markdown, LaTeX), figures, and report.html with all of it, from what is done.

    Example: harness report studies/quickstart.py
    """
    plan, runs = planned(study, scale, where, seeds, store)
    # The folder holds the tables of the whole study, which papers and records refer to.
    if where and out is None:
        raise HarnessError("--where would leave cells out of the study's own tables; name another folder with --out")
    # A selection is shown as it was asked for, without the further seeds of open claims.
    shown = plan if where or seeds else reported(plan, runs)
    if strict:
        from harness.report.collect import runs_frame
        from harness.report.tables.footnotes import mixtures

        refuse_mixed(mixtures(runs_frame(shown, runs)))
    # Asked for by name, so it is written anew where nothing changed too.
    show_report(shown, runs, out or results_folder(plan), always=True, wide=wide)


def show_report(plan: Plan, store: Store, folder: Path, *, always: bool = False, wide: bool = False) -> None:
    """Write the report of a plan, unless it is there and nothing has changed, and print its table."""
    from harness.report.report_cache import current

    places = overview(plan.runs(), store).places
    standings = {name: (place.word, place.detail) for name, place in places.items()}
    shown = current(plan, store, folder, standings, always=always, wide=wide)
    show_table(shown.header, shown.rows, axes=shown.axes)
    for note in shown.notes:
        say(note, style="dim")
    if shown.folder != folder:
        say(f"{folder} holds a report of more seeds and stays; this one of fewer is beside it")
    say(f"wrote {shown.folder}" if shown.written else f"unchanged {shown.folder}")
