"""`harness status`: where every run stands."""

from __future__ import annotations

from collections import Counter

from harness.cli.common import ScaleName, Seeds, StorePath, StudyFile, Where, labels, planned, say
from harness.cli.launch.costs import cost_of, cost_text, graph_lines
from harness.cli.launch.live import duration
from harness.launch.executor import Overview, Place
from harness.store import STATES, Store, open_store
from harness.study import Plan, load

ALWAYS = ("done", "running", "blocked", "failed", "lost", "missing")
"""States that are printed even with a count of 0."""


SHOWN = 20
"""Largest number of runs listed per state."""


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
        found = planned(loaded, name, where, seeds, runs)
        seen = found.overview()
        if scale or any(place.word != "missing" for place in seen.places.values()):
            _show_status(found.plan, seen, runs)
            shown += 1
    if not shown:
        say(f"no run of {loaded.name} has begun; harness run starts it")


def _show_status(plan: Plan, seen: Overview, runs: Store) -> None:
    """Print the states of a plan at one scale: how many runs are in each, and which need attention."""
    specs, names = plan.runs(), labels(plan)
    words = Counter(place.word for place in seen.places.values())
    say(f"{plan.study.name} · {plan.scale.name}")
    say("  " + "   ".join(f"{word} {words[word]}" for word in STATES if words[word] or word in ALWAYS))
    # The states were read for the overview: not again for the costs.
    states = {name: place.state for name, place in seen.places.items()}
    say(f"  cost      {cost_text(cost_of(specs, states, runs, plan.study.root))}")
    for line in graph_lines(specs, states, runs):
        say(f"  {line}")
    if seen.silent:
        say(f"  Slurm cannot be asked: {seen.silent}")
    for word in STATES:
        # Their number is enough: lists of thousands would hide the runs that need somebody.
        if word in ("done", "missing"):
            continue
        found = [name for name, place in seen.places.items() if place.word == word]
        for name in found[:SHOWN]:
            say(f"  {word:<9} {names[name]}   {specs[name].kind}   {_detail(seen.places[name])}")
        if len(found) > SHOWN:
            say(f"  {word:<9} and {len(found) - SHOWN} more")


def _detail(place: Place) -> str:
    """Progress of a run that is at work or was stopped, or the reason of its failure."""
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
        text += f"job {place.job}" if place.job else ""
    return f"{text}{place.detail}".strip()
