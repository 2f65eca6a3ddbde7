"""`harness search`: run a search, print its state, write its report."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.common import (
    On,
    StorePath,
    counted,
    say,
    show_table,
    with_resources,
)
from harness.cli.launch.live import Stop
from harness.launch.executor import ExecutorName, open_executor
from harness.launch.local.pool import default_slots
from harness.launch.queue import Event
from harness.launch.ready import check_runs
from harness.launch.resources import Resources
from harness.launch.slurm.questions import require_slurm
from harness.launch.slurm.task import requeue
from harness.spec import HarnessError
from harness.store import open_store

if TYPE_CHECKING:
    from harness.search.session import Opened


PARALLEL_ON_CLUSTER = 4
"""Cells at a time on Slurm unless asked otherwise."""


SHOWN = 10
"""Most trials that --status lists, the best first."""


SearchFile = Annotated[
    Path, typer.Argument(metavar="SEARCH", help="a study file with a SEARCH, such as studies/search_masking.py")
]


@with_resources
def search(
    file: SearchFile,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="distinct cells to compute, in all; default: the search's own")
    ] = None,
    scale: Annotated[str | None, typer.Option("--scale", help="size; default: the search's first")] = None,
    on: On = "local",
    parallel: Annotated[
        int | None,
        typer.Option("--parallel", min=1, help="cells at a time; default: one a GPU or CPU thread, 4 on Slurm"),
    ] = None,
    store: StorePath = None,
    storage: Annotated[
        str | None, typer.Option("--storage", help="an Optuna storage URL instead of a journal file in the store")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option("--sampler", help="tpe, gp, cmaes, random or nsga2 instead of the search's own")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="of the sampler; default 0")] = None,
    new: Annotated[bool, typer.Option("--new", help="begin anew, from the runs in the store")] = False,
    status: Annotated[bool, typer.Option("--status", help="only say how it stands")] = False,
    report: Annotated[bool, typer.Option("--report", help="only write the report")] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="run the search itself as a small Slurm job that queues itself again")
    ] = False,
    *,
    resources: Resources,
) -> None:
    """Search over the cells of a study with Optuna. The same command goes on after any interruption; nothing is
    computed twice.

    Example: harness search studies/search_masking.py --trials 60
    """
    from harness.search.declaration import load_search
    from harness.search.session import open_search

    declared = load_search(file)
    opened = open_search(declared, open_store(store, declared.root), scale=scale, sampler=sampler, url=storage)
    # Before the checks of data and models, which only a search that computes needs.
    if status:
        _show_status(opened)
        return
    if report:
        _show_report(opened)
        return
    if detach and on != "slurm":
        raise HarnessError("--detach belongs to --on slurm")
    if on == "inline" and parallel not in (None, 1):
        raise HarnessError("--parallel: runs in this process have 1; use --on local")
    _check(opened, on)
    if detach:
        _detach(opened, seed, new=new)
        return
    _run(opened, resources, on, parallel, trials, seed, new=new)


def _check(opened: Opened, on: ExecutorName) -> None:
    """Refuse data sets and models of the reference cell with which its runs would fail."""
    from harness.search.measure import with_starts

    if on == "slurm":
        require_slurm()  # before models are counted, which leaves files in the store
    # Other cells are not known yet; a fault of data or backbone shows at the reference too.
    reference = opened.measure.candidate(opened.search.reference, [0])
    check_runs(with_starts(reference.evaluations()), opened.store)


def _run(
    opened: Opened,
    resources: Resources,
    on: ExecutorName,
    parallel: int | None,
    trials: int | None,
    seed: int | None,
    *,
    new: bool,
) -> None:
    """Run the search until its budget is used or it is stopped, then write its report."""
    from harness.search.session import run_search

    budget, root = opened.search.budget(opened.scale, trials), opened.search.root
    match on:
        case "inline":
            count = 1
        case "local":
            count = parallel or default_slots(resources)
        case _:
            count = parallel or PARALLEL_ON_CLUSTER
    # One more slot for rungs, which would else wait until the pre-training that they judge is over.
    slots = count + bool(opened.measure.rungs)
    executor = open_executor(on, opened.store, resources, study=f"search {opened.name}", project=root, slots=slots)
    # USR2 is how Slurm says that the time of this job is over.
    stop = Stop(signal.SIGUSR2, tell=lambda: say("stopping: runs at work save. Once more, and they are not waited for"))
    say(f"{opened.name}: {counted(budget, 'cell')}, {count} at a time, sampler {opened.search.sampler}")
    ending = run_search(
        opened,
        executor,
        budget=budget,
        parallel=count,
        seed=seed,
        new=new,
        say=lambda line: say(f"  {line}"),
        report=_show_event,
        stopping=stop,
    )
    if not ending or stop():
        if stop.by == signal.SIGUSR2 and requeue():
            say("queued again; the search goes on from here")
        else:
            say("stopped. The same command goes on from here; jobs on a cluster go on meanwhile.")
        raise typer.Exit(130)
    _show_report(opened)


def _show_event(event: Event) -> None:
    if event.kind in ("failed", "blocked"):
        say(f"  {event.name}: {event.kind}: {event.text}")


def _show_status(opened: Opened) -> None:
    """Print numbers of trials, who runs the search, its best trials, and those at work or failed."""
    from harness.search.confirmation import best
    from harness.search.session import history
    from harness.search.space import with_axes
    from harness.search.storage import holder

    found, _ = history(opened)
    # A duplicate has the state of its twin, which would be counted twice.
    words = Counter("duplicate" if trial.twin is not None else trial.state for trial in found)
    budget = opened.search.trials.get(opened.scale.name)
    done = sum(trial.computed and trial.state != "running" for trial in found)
    told = ", ".join(f"{count} {word}" for word, count in words.items())
    say(f"{opened.name} · {counted(len(found), 'trial')}: {told}")
    imported = sum(trial.imported for trial in found)
    say(f"  computed  {counted(done, 'cell')}{f' of {budget}' if budget else ''}; in the store before: {imported}")
    owner = holder(opened.store, opened.folder)
    who = f"pid {owner['pid']} on {owner['host']}" if owner else "nobody; harness search goes on with it"
    say(f"  run by    {who}")
    for trial in best(found, opened.search.directions, SHOWN):
        values = ", ".join(f"{value:.4g}" for value in trial.values)
        say(f"  {values:<16} trial {trial.number}   {with_axes(trial.cell)}")
    for trial in found:
        if trial.state == "running" and trial.twin is None:
            say(f"  running          trial {trial.number}   {with_axes(trial.cell)}")
        elif trial.state == "failed" and trial.twin is None:
            say(f"  failed           trial {trial.number}   {with_axes(trial.cell)}   {trial.error}")


def _show_report(opened: Opened) -> None:
    from harness.report.search.write import write_search

    folder = opened.search.root / "results" / opened.search.name / opened.scale.name
    written = write_search(opened, folder)
    show_table(written.header, written.rows)
    for note in written.notes:
        say(note, style="dim")
    say(f"wrote {folder}")


def _detach(opened: Opened, seed: int | None, *, new: bool) -> None:
    """Begin or resume the search, so that what is refused is refused here, and submit the job that goes on with it."""
    from harness.search.detached import submit_coordinator
    from harness.search.session import coordinating

    # A new search is begun here and not by the job, which may be queued again and would then begin another.
    with coordinating(opened, seed=seed, new=new):
        pass
    job = submit_coordinator(opened.search.root, opened.folder)
    say(f"queued the search as job {job}; --status shows how it stands")
