"""`harness status`, `logs`, `report` and `clean`: what is there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from harness.cli.common import (
    ScaleName,
    Seeds,
    StorePath,
    StudyFile,
    Where,
    console,
    labels,
    open_store,
    planned,
    printable,
    results_folder,
    say,
    selection,
)
from harness.cli.live import duration
from harness.launch.queue import last_line
from harness.spec import HarnessError, key, upstream
from harness.store import State, Store
from harness.store.cleaning import Removable, removable, remove
from harness.study import Plan, expand, load

SHOWN = 20
"""Runs of one state that status lists."""


def status(
    study: StudyFile,
    scale: ScaleName = None,
    where: Where = None,
    seeds: Seeds = None,
    store: StorePath = None,
) -> None:
    """Say where every run stands, at each scale that has runs. Reads files only and changes nothing.

    Example: harness status studies/quickstart.py
    """
    loaded = load(study)
    runs = open_store(loaded, store)
    shown = 0
    for name in [scale] if scale else [scale.name for scale in loaded.scales]:
        plan = expand(loaded, scale=name, where=selection(where), seeds=seeds)
        states = runs.states(plan.runs())
        if scale or any(state.word != "missing" for state in states.values()):
            _show_status(plan, states)
            shown += 1
    if not shown:
        say(f"no run of {loaded.name} has begun; harness run starts it")


def _show_status(plan: Plan, states: dict[str, State]) -> None:
    specs, names = plan.runs(), labels(plan)
    blocked = {
        name: first
        for name, run in specs.items()
        if (start := upstream(run)) is not None
        and states[name].word == "missing"
        and states[first := key(start)].word == "failed"
    }
    words = Counter(state.word for state in states.values())
    counts: dict[str, int] = {
        "done": words["done"],
        "running": words["running"],
        "blocked": len(blocked),
        "failed": words["failed"],
        "lost": words["lost"],
        "missing": words["missing"] - len(blocked),
    }
    say(f"{plan.study.name} · {plan.scale.name}")
    say("  " + "   ".join(f"{word} {count}" for word, count in counts.items()))
    for word in ("running", "failed", "lost"):
        found = [name for name, state in states.items() if state.word == word]
        for name in found[:SHOWN]:
            detail = _detail(states[name])
            say(f"  {word:<9} {names[name]}   {specs[name].kind}   {detail}")
        if len(found) > SHOWN:
            say(f"  {word:<9} and {len(found) - SHOWN} more")
    for name in list(blocked)[:SHOWN]:
        say(f"  {'blocked':<9} {names[name]}   waits for {blocked[name]}, which failed")


def _detail(state: State) -> str:
    if state.word == "failed":
        return f"{last_line(state.error)}   harness logs / retry"
    text = ""
    if state.progress:
        line = state.progress
        text = f"step {line['step']:,}/{line['steps']:,}"
        if state.word == "running":
            left = (line["steps"] - line["step"]) * line["seconds"] / line["step"]
            text += f"   {line['images_per_second']:,.0f} img/s   {duration(left)} left"
    if state.word == "lost":
        return f"{text}   not at work any more; harness run goes on with it".strip()
    host = f"   {state.owner['host']} pid {state.owner['pid']}" if state.owner else ""
    return f"{text}{host}".strip()


def logs(
    study: StudyFile,
    scale: ScaleName = None,
    where: Where = None,
    seeds: Seeds = None,
    store: StorePath = None,
    failed: Annotated[bool, typer.Option("--failed", help="only runs that failed")] = False,
    tail: Annotated[int, typer.Option("--tail", min=1, help="lines of each log")] = 20,
) -> None:
    """Show what runs printed, their last metrics, and the traceback of those that failed.

    Example: harness logs studies/quickstart.py --failed
    """
    plan, runs = planned(study, scale, where, seeds, store)
    names, specs, shown = labels(plan), plan.runs(), 0
    for name, state in runs.states(specs).items():
        if state.attempt == 0 or (failed and state.word != "failed"):
            continue
        shown += 1
        attempt = runs.folder(name).attempt(state.attempt)
        console.rule(escape(printable(f"{specs[name].kind} {names[name]}   {state.word}   attempt {state.attempt}")))
        say(str(attempt.path))
        printed = attempt.log.read_text(errors="replace") if attempt.log.is_file() else ""
        metrics = [f"step {line['step']}  loss {line['loss']:.4f}" for line in runs.metrics(name)]
        for text in (printed, "\n".join(metrics), state.error):
            for line in text.splitlines()[-tail:]:
                say(line)
    if not shown:
        say("no run has failed" if failed else "no run has begun")


def report(
    study: StudyFile,
    scale: ScaleName = None,
    where: Where = None,
    seeds: Seeds = None,
    store: StorePath = None,
    out: Annotated[Path | None, typer.Option("--out", help="folder to write to; default: results/STUDY/SCALE")] = None,
) -> None:
    """Write runs.csv, the table (CSV, Markdown, LaTeX), figures and reconstructions from what is done.

    Example: harness report studies/quickstart.py
    """
    plan, runs = planned(study, scale, where, seeds, store)
    if where and out is None:
        raise HarnessError("--where would leave cells out of the study's own tables; name another folder with --out")
    show_report(plan, runs, out or results_folder(plan), always=True)


def show_report(plan: Plan, store: Store, folder: Path, *, always: bool = False) -> None:
    """Write the report of a plan, unless it is there and nothing has changed, and print its table."""
    from harness.report.saved import current

    shown = current(plan, store, folder, always=always)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in shown.header:
        table.add_column(escape(printable(column)))
    for row in shown.rows:
        table.add_row(*(escape(printable(text)) for text in row))
    console.print(table, soft_wrap=False)
    for note in shown.notes:
        say(note, style="dim")
    say(f"wrote {folder}" if shown.written else f"unchanged {folder}")


def clean(
    study: StudyFile,
    scale: ScaleName = None,
    where: Where = None,
    seeds: Seeds = None,
    store: StorePath = None,
    weights: Annotated[
        bool, typer.Option("--weights", help="also weights of done runs that nothing waits for")
    ] = False,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="also failed and lost runs, with checkpoints")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="delete without asking")] = False,
) -> None:
    """Free disk space: superseded attempts and leftovers, and on request weights or unfinished runs. Results stay.

    Example: harness clean studies/quickstart.py --weights
    """
    plan, runs = planned(study, scale, where, seeds, store)
    found: list[Removable] = removable(runs, plan.runs(), weights=weights, unfinished=unfinished)
    if not found:
        say("nothing to clean")
        return
    for what, items in _by_kind(found).items():
        say(f"  {what:<22} {len(items):>5}   {sum(item.size for item in items) / 1e6:,.1f} MB")
    if not yes and not typer.confirm("delete these?"):
        raise typer.Exit(1)
    remove(found)


def _by_kind(found: list[Removable]) -> dict[str, list[Removable]]:
    groups: dict[str, list[Removable]] = {}
    for item in found:
        groups.setdefault(item.what, []).append(item)
    return groups
