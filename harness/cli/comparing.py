"""`harness compare` and `metrics`: results beside each other, and in other people's viewers."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from harness.cli.common import ScaleName, Seeds, StorePath, StudyFile, Where, console, planned, printable, say
from harness.spec import HarnessError
from harness.study import expand, load

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
    from harness.report import compare as comparing

    plan = expand(load(study), scale=scale) if study else None
    before, after = (comparing.read_runs(path, plan) for path in (runs_a, runs_b))
    if strict:
        refuse_mixed((*comparing.mixed(before, after), *comparing.of_other_code(before, after)))
    found = comparing.compare(before, after)
    _show(found, everything=everything)
    for note in found.notes:
        say(note, style="dim")


def refuse_mixed(sentences: tuple[str, ...]) -> None:
    """Refuse results of several origins.

    Raises:
        HarnessError: there is a sentence about any.
    """
    if sentences:
        raise HarnessError(f"--strict refuses mixed results: {' '.join(sentences)}")


def _show(found: Comparison, *, everything: bool) -> None:
    counts = Counter(change.verdict for change in found.changes)
    quiet = ("identical", "within noise", "no value")
    rows = [change for change in found.changes if everything or change.verdict not in quiet]
    if rows:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in (*found.axes, "evaluation", "n", "before", "after", "difference", "95 % interval", "p", "verdict"):
            table.add_column(escape(printable(name)))
        for change in rows:
            table.add_row(*(escape(printable(text)) for text in _texts(change)))
        console.print(table, soft_wrap=False)
    say(f"{len(found.changes)} cells: {', '.join(f'{number} {word}' for word, number in counts.most_common())}")


def _texts(change: Change) -> tuple[str, ...]:
    def number(value: float, form: str = ".2f") -> str:
        return "–" if math.isnan(value) else f"{value:{form}}"

    interval = "–" if math.isnan(change.low) else f"{change.low:+.2f} to {change.high:+.2f}"
    verdict = change.verdict + (" (other recipe)" if change.other_spec else "")
    p = "–" if math.isnan(change.p) else "< 0.001" if change.p < 0.001 else f"{change.p:.3f}"
    means = (number(change.before), number(change.after), number(change.difference, "+.2f"))
    return (*(value or "–" for value in change.axes), change.evaluation, str(change.n), *means, interval, p, verdict)


def metrics(
    study: StudyFile,
    scale: ScaleName = None,
    where: Where = None,
    seeds: Seeds = None,
    store: StorePath = None,
    tensorboard: Annotated[
        Path | None, typer.Option("--tensorboard", metavar="DIR", help="write TensorBoard's event files to a folder")
    ] = None,
    wandb: Annotated[
        Path | None, typer.Option("--wandb", metavar="DIR", help="write offline runs of Weights & Biases to a folder")
    ] = None,
) -> None:
    """Export the metrics of runs (metrics.jsonl) to TensorBoard or Weights & Biases. Nothing is uploaded.

    Example: harness metrics studies/quickstart.py --tensorboard logs
    """
    if tensorboard is None and wandb is None:
        raise HarnessError("name where to: --tensorboard DIR, --wandb DIR, or both")
    from harness.report import tracking

    plan, runs = planned(study, scale, where, seeds, store)
    if tensorboard is not None:
        count = tracking.write_tensorboard(plan, runs, tensorboard)
        say(f"wrote {count} runs to {tensorboard}; tensorboard --logdir {tensorboard} shows them")
    if wandb is not None:
        count = tracking.write_wandb(plan, runs, wandb)
        say(f"wrote {count} runs to {wandb / 'wandb'}; wandb sync uploads them")
