"""Options that commands share, and how a study on the command line becomes a plan and a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from harness.spec import HarnessError, Run
from harness.store import Store, open_store
from harness.study import Plan, Row, expand, load

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="a study file, such as studies/quickstart.py")]
ScaleName = Annotated[str | None, typer.Option("--scale", help="size of the study; default: the study's first")]
Where = Annotated[
    list[str] | None,
    typer.Option("--where", "-w", metavar="AXIS=VALUE", help="only cells with this value; repeat, or AXIS=A,B"),
]
Seeds = Annotated[int | None, typer.Option("--seeds", min=1, help="replicates of each cell instead of the study's")]
StorePath = Annotated[
    Path | None,
    typer.Option("--store", help="folder of the runs; default: the profile's, or runs/ in the project root"),
]

console = Console(highlight=False, soft_wrap=True)


def printable(text: str) -> str:
    """Text without control characters: names, values and logs must not steer the terminal."""
    return "".join(character if character.isprintable() or character == "\t" else "�" for character in text)


def say(text: str, *, style: str | None = None) -> None:
    """Print one line as it is: no markup, no wrapping, no control characters."""
    console.print(printable(text), markup=False, style=style)


def selection(where: Sequence[str] | None) -> dict[str, list[str]]:
    """`["mask_ratio=0.4,0.6", "mask_ratio=0.8"]` as axis -> texts, `["0.4,0.6", "0.8"]`.

    Raises:
        HarnessError: an item has another form.
    """
    chosen: dict[str, list[str]] = {}
    for item in where or ():
        axis, equals, text = item.partition("=")
        if not equals or not axis.strip():
            raise HarnessError(f"--where {item}: should read axis=value, such as --where mask_ratio=0.6")
        chosen.setdefault(axis.strip(), []).append(text)
    return chosen


def planned(
    study: Path, scale: str | None, where: Sequence[str] | None, seeds: int | None, store: Path | None
) -> tuple[Plan, Store]:
    """The plan and the store of a command's options."""
    loaded = load(study)
    return expand(loaded, scale=scale, where=selection(where), seeds=seeds), open_store(store, loaded.root)


def results_folder(plan: Plan) -> Path:
    """Where the tables and figures of a study at a scale go.

    Raises:
        HarnessError: those of another study file are there.
    """
    from harness.report.report_cache import check_own

    folder = plan.study.root / "results" / plan.study.name / plan.scale.name
    check_own(plan, folder)
    return folder


def reported(plan: Plan, store: Store) -> Plan:
    """What a report shows of a whole study: with looks, also the seeds that claims have asked for."""
    if not plan.study.looks:
        return plan
    from harness.report.sequential import looked

    return looked(plan, store)


def labels(plan: Plan) -> dict[str, str]:
    """For each run the cell and seed that first need it, in words."""
    from harness.spec import key, upstreams

    found: dict[str, str] = {}
    for row in plan.rows:
        text = f"{row.text} seed {row.seed}"
        for evaluation in row.evaluations.values():
            for run in (evaluation, *upstreams(evaluation)):
                found.setdefault(key(run), text)
    return found


def excluded(plan: Plan) -> dict[str, list[Row]]:
    """Excluded cells by reason, one row a cell."""
    found: dict[str, list[Row]] = {}
    for row in plan.rows:
        if row.excluded and row.seed == 0:
            found.setdefault(row.excluded, []).append(row)
    return found


def runs_of(plan: Plan) -> dict[str, Run]:
    """The plan's runs; refused where there are none.

    Raises:
        HarnessError: every cell is excluded.
    """
    runs = plan.runs()
    if not runs:
        reasons = "; ".join(excluded(plan))
        raise HarnessError(f"no cell of {plan.study.name} can run at scale {plan.scale.name}: {reasons}")
    return runs
