"""`harness report`: tables, figures and the page of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.api import Results
from harness.cli.common import (
    ScaleName,
    Seeds,
    StorePath,
    StudyFile,
    Where,
    planned,
    refuse_mixed,
    results_folder,
    say,
    show_table,
)
from harness.spec import HarnessError


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
    found = planned(study, scale, where, seeds, store)
    # The folder holds the tables of the whole study, which papers and records refer to.
    if where and out is None:
        raise HarnessError("--where would leave cells out of the study's own tables; name another folder with --out")
    # A selection is shown as it was asked for, without the further seeds of open claims.
    shown = found if where or seeds else found.looked()
    if strict:
        from harness.report.tables.footnotes import mixtures

        refuse_mixed(mixtures(shown.frame()))
    # Asked for by name, so it is written anew where nothing changed too.
    show_report(shown, out or results_folder(found.plan), always=True, wide=wide)


def show_report(found: Results, folder: Path, *, always: bool = False, wide: bool = False) -> None:
    """Write a report, unless it is there and nothing has changed, and print its table."""
    shown = found.report(folder, always=always, wide=wide)
    say(shown.caption)
    show_table(shown.header, shown.rows, axes=shown.axes, groups=shown.groups)
    for note in shown.notes:
        say(note, style="dim")
    if shown.folder != folder:
        say(f"{folder} holds a report of more seeds and stays; this one of fewer is beside it")
    say(f"wrote {shown.folder}" if shown.written else f"unchanged {shown.folder}")
