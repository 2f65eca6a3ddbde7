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
    planned,
    printable,
    reported,
    results_folder,
    say,
    selection,
)
from harness.cli.comparing import refuse_mixed
from harness.cli.costs import cost_of, cost_text
from harness.cli.live import duration
from harness.launch.slurm.run_states import Overview, Place, overview
from harness.launch.slurm.submit import log_of
from harness.spec import HarnessError
from harness.store import STATES, Store, open_store
from harness.store.cleaning import Removable, left_by_kills, old_records, removable, remove
from harness.store.cleaning import seal as rewrite
from harness.study import Plan, expand, load

ALWAYS = ("done", "running", "blocked", "failed", "lost", "missing")
"""Words that status counts even when nothing stands there."""
SHOWN = 20
"""Runs of one state that status lists."""


def status(
    study: StudyFile,
    scale: ScaleName = None,
    where: Where = None,
    seeds: Seeds = None,
    store: StorePath = None,
) -> None:
    """Say where every run stands, at each scale that has runs: by its files, then by Slurm. Changes nothing.

    Example: harness status studies/quickstart.py
    """
    loaded = load(study)
    runs = open_store(store, loaded.root)
    shown = 0
    for name in [scale] if scale else [scale.name for scale in loaded.scales]:
        plan = expand(loaded, scale=name, where=selection(where), seeds=seeds)
        seen = overview(plan.runs(), runs)
        if scale or any(place.word != "missing" for place in seen.places.values()):
            _show_status(plan, seen, runs)
            shown += 1
    if not shown:
        say(f"no run of {loaded.name} has begun; harness run starts it")


def _show_status(plan: Plan, seen: Overview, runs: Store) -> None:
    specs, names = plan.runs(), labels(plan)
    words = Counter(place.word for place in seen.places.values())
    say(f"{plan.study.name} · {plan.scale.name}")
    say("  " + "   ".join(f"{word} {words[word]}" for word in STATES if words[word] or word in ALWAYS))
    states = {name: place.state for name, place in seen.places.items()}
    say(f"  cost      {cost_text(cost_of(specs, states, runs, plan.study.root))}")
    if seen.silent:
        say(f"  Slurm cannot be asked: {seen.silent}")
    for word in STATES:
        if word in ("done", "missing"):
            continue
        found = [name for name, place in seen.places.items() if place.word == word]
        for name in found[:SHOWN]:
            say(f"  {word:<9} {names[name]}   {specs[name].kind}   {_detail(seen.places[name])}")
        if len(found) > SHOWN:
            say(f"  {word:<9} and {len(found) - SHOWN} more")


def _detail(place: Place) -> str:
    state = place.state
    if place.word == "failed":
        return f"{place.detail}   harness logs / retry"
    text = ""
    found = [state.progress.get(name) for name in ("step", "steps", "seconds", "images_per_second")]
    numbers = [number for number in found if isinstance(number, int | float) and 0 <= number < 1e12]
    if len(numbers) == len(found) and place.word in ("running", "lost", "queued", "cancelled"):  # else it is damaged
        step, steps, seconds, speed = numbers
        text = f"step {step:,}/{steps:,}   "
        if place.word == "running":
            text += f"{speed:,.0f} img/s   {duration((steps - step) * seconds / max(step, 1))} left   "
    if place.word == "running" and state.owner:
        text += f"{state.owner['host']} pid {state.owner['pid']}   "
        text += f"job {place.job.id}" if place.job else ""
    return f"{text}{place.detail}".strip()


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
    seen = overview(specs, runs)
    for name, place in seen.places.items():
        state = place.state
        job = log_of(runs, seen.latest[name], name) if name in seen.latest else None
        if (state.attempt == 0 and job is None) or (failed and place.word != "failed"):
            continue
        shown += 1
        attempt = runs.folder(name).attempt(state.attempt)
        console.rule(escape(printable(f"{specs[name].kind} {names[name]}   {place.word}   attempt {state.attempt}")))
        printed = attempt.log.read_text(errors="replace") if attempt.log.is_file() else ""
        metrics = [
            f"step {line.get('step')}  loss {loss:.4f}"
            for line in runs.metrics(name)
            if isinstance(loss := line.get("loss"), float)
        ]
        if state.attempt:
            say(str(attempt.path))
        if job is not None and (state.attempt == 0 or place.word == "failed"):
            say(f"{job}:")
            printed = job.read_text(errors="replace") + printed
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
    strict: Annotated[
        bool,
        typer.Option("--strict", help="refuse a table that mixes commits, versions, devices or threads"),
    ] = False,
) -> None:
    """Write runs.csv, the table (CSV, Markdown, LaTeX), figures, and report.html with all of it, from what is done.

    Example: harness report studies/quickstart.py
    """
    plan, runs = planned(study, scale, where, seeds, store)
    if where and out is None:
        raise HarnessError("--where would leave cells out of the study's own tables; name another folder with --out")
    shown = plan if where or seeds else reported(plan, runs)
    if strict:
        from harness.report.collect import runs_frame
        from harness.report.footnotes import mixtures

        refuse_mixed(mixtures(runs_frame(shown, runs)))
    show_report(shown, runs, out or results_folder(plan), always=True)


def show_report(plan: Plan, store: Store, folder: Path, *, always: bool = False) -> None:
    """Write the report of a plan, unless it is there and nothing has changed, and print its table."""
    from harness.report.report_cache import current

    places = overview(plan.runs(), store).places
    standings = {name: (place.word, place.detail) for name, place in places.items()}
    shown = current(plan, store, folder, standings, always=always)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in shown.header:
        table.add_column(escape(printable(column)))
    for row in shown.rows:
        table.add_row(*(escape(printable(text)) for text in row))
    console.print(table, soft_wrap=False)
    for note in shown.notes:
        say(note, style="dim")
    if shown.folder != folder:
        say(f"{folder} holds a report of more seeds and stays; this one of fewer is beside it")
    say(f"wrote {shown.folder}" if shown.written else f"unchanged {shown.folder}")


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
    seal: Annotated[
        bool,
        typer.Option("--seal", help="instead: give the old records of the whole store digests"),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="delete without asking")] = False,
) -> None:
    """Free disk space: superseded attempts and what kills left, on request weights or unfinished runs. Results stay.

    Example: harness clean studies/quickstart.py --weights
    """
    plan, runs = planned(study, scale, where, seeds, store)
    if seal:
        _seal(runs, yes=yes)
        return
    found: list[Removable] = removable(runs, plan.runs(), weights=weights, unfinished=unfinished)
    found += [item for item in left_by_kills(runs) if not any(kept.path in item.path.parents for kept in found)]
    if unfinished:  # a job that waits in the queue goes on from what an earlier one left
        seen = overview(plan.runs(), runs)
        waiting = {name for name, place in seen.places.items() if place.job or place.word == "queued"}
        found = [item for item in found if item.path.name not in waiting]
    if not found:
        say("nothing to clean")
        return
    for what, items in _by_kind(found).items():
        say(f"  {what:<22} {len(items):>5}   {sum(item.size for item in items) / 1e6:,.1f} MB")
    if not yes and not typer.confirm("delete these?"):
        raise typer.Exit(1)
    remove(found)


def _seal(store: Store, *, yes: bool) -> None:
    old = list(old_records(store))
    say(f"{len(old)} records of {store.root} have no digest yet")
    if not old:
        return
    if not yes and not typer.confirm("rewrite them? versions of harness before 0.2 then take them for damaged"):
        raise typer.Exit(1)
    for path in old:
        rewrite(path)


def _by_kind(found: list[Removable]) -> dict[str, list[Removable]]:
    groups: dict[str, list[Removable]] = {}
    for item in found:
        groups.setdefault(item.what, []).append(item)
    return groups
