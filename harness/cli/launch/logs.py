"""`harness logs`: what runs printed, and the tracebacks of failed ones."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from harness.cli.common import ScaleName, Seeds, StorePath, StudyFile, Where, console, labels, planned, printable, say
from harness.launch.executor import clusters
from harness.store.files import text_of


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
    found = planned(study, scale, where, seeds, store)
    plan, runs = found.plan, found.store
    names, specs, shown = labels(plan), plan.runs(), 0
    files = {name: path for cluster in clusters(runs) for name, path in cluster.logs(specs).items()}
    for name, place in found.overview().places.items():
        state, job = place.state, files.get(name)
        if (state.attempt == 0 and job is None) or (failed and place.word != "failed"):
            continue
        shown += 1
        attempt = runs.folder(name).attempt(state.attempt)
        console.rule(escape(printable(f"{specs[name].kind} {names[name]}   {place.word}   attempt {state.attempt}")))
        printed = text_of(attempt.log)
        metrics = [
            f"step {line.get('step')}  loss {loss:.4f}"
            for line in runs.metrics(name)
            if isinstance(loss := line.get("loss"), float)
        ]
        if state.attempt:
            say(str(attempt.path))
        if job is not None and (state.attempt == 0 or place.word == "failed"):
            say(f"{job}:")
            # A job that died before the run began has said why in its own log only, not in the run's.
            printed = text_of(job) + printed
        # The traceback comes last, where it is seen first.
        for text in (printed, "\n".join(metrics), state.error):
            for line in text.splitlines()[-tail:]:
                say(line, whole=True)
    if not shown:
        what = f"no run at scale {plan.scale.name} has {'failed' if failed else 'begun'}"
        more = "; --scale names another" if len(plan.study.scales) > 1 else ""
        say(what + more)
