"""`harness status`: where every run stands."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.live import Live
from rich.text import Text

from harness.api import Results
from harness.cli.common import (
    Seeds,
    StorePath,
    StudyFile,
    Where,
    console,
    labels,
    planned,
    printable,
    say,
)
from harness.cli.launch.costs import cost_of, cost_text, graph_lines
from harness.cli.launch.live import duration
from harness.launch.executor import Overview, Place
from harness.store import STATES, Store, open_store
from harness.study import Plan, load

ALWAYS = ("done", "running", "blocked", "failed", "interrupted", "missing")
"""States that are printed even with a count of 0."""


SHOWN = 20
"""Largest number of runs listed per state."""

EachScale = Annotated[str | None, typer.Option("--scale", help="size of the study; default: each that has runs")]

WATCH_SECONDS = 5.0
"""Time between two looks, so that Slurm is not asked too often."""


def status(
    study: StudyFile,
    scale: EachScale = None,
    where: Where = None,
    seeds: Seeds = None,
    store: StorePath = None,
    watch: Annotated[bool, typer.Option("--watch", help="again and again in a terminal, until Ctrl-C")] = False,
) -> None:
    """Say where every run stands, at each scale that has runs: by its files, then by Slurm. Changes nothing.

    Example: harness status studies/quickstart.py
    """
    loaded = load(study)
    runs = open_store(store, loaded.root)
    names = [scale] if scale else [scale.name for scale in loaded.scales]
    found = [planned(loaded, name, where, seeds, runs) for name in names]
    if watch and console.is_terminal:
        _watch(found, named=bool(scale))
        return
    for line in _lines(found, named=bool(scale)):
        say(line)


def _watch(found: list[Results], *, named: bool) -> None:
    """Show the lines anew at intervals until Ctrl-C, which is how this ends and no mistake."""

    def now() -> Text:
        # Cut where the terminal ends, so that lines stay in their places.
        return Text("\n".join(map(printable, _lines(found, named=named))), no_wrap=True, overflow="ellipsis")

    with contextlib.suppress(KeyboardInterrupt), Live(now(), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(WATCH_SECONDS)
            live.update(now(), refresh=True)


def _lines(found: list[Results], *, named: bool) -> Iterator[str]:
    """The states of each scale that has runs, or of the one that was named."""
    shown = 0
    for results in found:
        seen = results.overview()
        if named or any(place.word != "missing" for place in seen.places.values()):
            yield from _states(results.plan, seen, results.store)
            shown += 1
    if not shown:
        yield f"no run of {found[0].plan.study.name} has begun; harness run starts it"


def _states(plan: Plan, seen: Overview, runs: Store) -> Iterator[str]:
    """The states of a plan at one scale: how many runs are in each, and which need attention."""
    specs, names = plan.runs(), labels(plan)
    words = Counter(place.word for place in seen.places.values())
    yield f"{plan.study.name} · {plan.scale.name}"
    yield "  " + "   ".join(f"{word} {words[word]}" for word in STATES if words[word] or word in ALWAYS)
    # The states were read for the overview: not again for the costs.
    states = {name: place.state for name, place in seen.places.items()}
    yield f"  cost      {cost_text(cost_of(specs, states, runs, plan.study.root))}"
    for line in graph_lines(specs, states, runs):
        yield f"  {line}"
    if seen.silent:
        yield f"  Slurm cannot be asked: {seen.silent}"
    for word in STATES:
        # Their number is enough: lists of thousands would hide the runs that need somebody.
        if word in ("done", "missing"):
            continue
        found = [name for name, place in seen.places.items() if place.word == word]
        for name in found[:SHOWN]:
            yield f"  {word:<11}  {names[name]}   {specs[name].kind}   {_detail(seen.places[name])}"
        if len(found) > SHOWN:
            yield f"  {word:<11}  and {len(found) - SHOWN} more"
        if word == "failed" and found:
            on_slurm = any(seen.places[name].submissions for name in found)
            again = "harness retry --on slurm" if on_slurm else "harness retry"
            yield f"  {'':<11}  harness logs says more, {again} tries again"


def _detail(place: Place) -> str:
    """Progress of a run that is at work, the step from which one goes on that was stopped, or why one failed."""
    state = place.state
    if place.word == "failed":
        return place.detail
    text = ""
    found = [state.progress.get(name) for name in ("step", "steps", "seconds", "images_per_second")]
    numbers = [number for number in found if isinstance(number, int | float) and 0 <= number < 1e12]
    if len(numbers) == len(found) and place.word in (
        "running",
        "interrupted",
        "queued",
        "cancelled",
    ):  # else it is damaged
        step, steps, seconds, speed = numbers
        # Steps after the last checkpoint were logged, but have to be computed again.
        text = f"step {state.saved if state.word == 'interrupted' else step:,}/{steps:,}   "
        if place.word == "running":
            text += f"{speed:,.0f} img/s   {duration((steps - step) * seconds / max(step, 1))} left   "
    if place.word == "running" and state.owner:
        text += f"{state.owner['host']} pid {state.owner['pid']}   "
        text += f"job {place.job}" if place.job else ""
    return f"{text}{place.detail}".strip()
