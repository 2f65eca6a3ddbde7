"""`harness compare`: cells that changed by more than noise between two results."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.api import plan as planned
from harness.cli.common import ScaleName, counted, refuse_mixed, say, show_table
from harness.spec import HarnessError

if TYPE_CHECKING:
    from harness.report.compare import Change, Comparison


Result = Annotated[Path, typer.Argument(help="a runs.csv, a folder that holds one, or (with --study) a store")]


def compare(
    runs_a: Result,
    runs_b: Result,
    study: Annotated[Path | None, typer.Option("--study", help="the study file, where a result is a store")] = None,
    scale: ScaleName = None,
    everything: Annotated[bool, typer.Option("--all", help="list every cell, not only those that changed")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="refuse results that mix origins, or are of different commits")
    ] = False,
) -> None:
    """Say which cells changed by more than noise between two results of one study. Pairs them by cell and seed.

    Example: harness compare results/quickstart/mini ../other/results/quickstart/mini
    """
    from harness.report import compare as results

    if scale and not study:
        raise HarnessError("--scale belongs to --study: a runs.csv is of one scale")
    plan = planned(study, scale) if study else None
    before, after = (results.read_runs(path, plan) for path in (runs_a, runs_b))
    if strict:
        refuse_mixed((*results.mixed(before, after), *results.of_other_code(before, after)))
    found = results.compare(before, after)
    _show(found, everything=everything)
    for note in found.notes:
        say(note, style="dim")


def _show(found: Comparison, *, everything: bool) -> None:
    """Print the values of cells that changed, or all, and how many there are of each verdict."""
    from harness.report.labels import axis_words

    counts = Counter(change.verdict for change in found.changes)
    # Whatever did not change needs no line; --all shows it.
    quiet = ("identical", "within noise", "no value")
    rows = [change for change in found.changes if everything or change.verdict not in quiet]
    if rows:
        columns = ("evaluation", "verdict", "before", "after", "difference", "95 % interval", "p", "n")
        show_table((*map(axis_words, found.axes), *columns), list(map(_texts, rows)), axes=len(found.axes))
    words = ", ".join(f"{number} {word}" for word, number in counts.most_common())
    say(f"{counted(len(found.changes), 'value')}: {words}")


def _texts(change: Change) -> tuple[str, ...]:
    """Row of a change in the table; a dash where there is no number."""
    from harness.report.labels import measure_label
    from harness.report.numbers import number, signed, signed_between

    verdict = change.verdict + (" (other recipe)" if change.other_spec else "")
    p = "–" if math.isnan(change.p) else "< 0.001" if change.p < 0.001 else f"{change.p:.3f}"
    means = (number(change.before, 2), number(change.after, 2), signed(change.difference, 2))
    return (
        *(value or "–" for value in change.axes),
        measure_label(change.evaluation),
        verdict,
        *means,
        signed_between(change.low, change.high, 2),
        p,
        str(change.n),
    )
