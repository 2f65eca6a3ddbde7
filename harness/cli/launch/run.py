"""`harness run` and `harness retry`: compute runs in this process, on this machine or on Slurm."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Annotated

import typer

from harness.api import Results, Watch, results
from harness.cli.common import (
    On,
    ScaleName,
    Seeds,
    Slots,
    StorePath,
    StudyFile,
    Where,
    counted,
    labels,
    planned,
    results_folder,
    say,
    with_resources,
)
from harness.cli.finished.report import show_report
from harness.cli.launch.live import Display, Stop
from harness.launch.executor import Executor, ExecutorName, Here, Submitted
from harness.launch.local.pool import gpus
from harness.launch.queue import Ending, Queue
from harness.launch.resources import Resources, slow_bf16
from harness.spec import HarnessError, Run
from harness.store import Store
from harness.study import Plan

UntilDecided = Annotated[
    bool,
    typer.Option("--until-decided", help="add seeds where claims are open, at the study's looks; waits, on Slurm too"),
]


@with_resources
def run(
    study: StudyFile,
    scale: ScaleName = None,
    where: Where = None,
    seeds: Seeds = None,
    store: StorePath = None,
    on: On = "local",
    slots: Slots = None,
    until_decided: UntilDecided = False,
    *,
    resources: Resources,
) -> None:
    """Compute what is missing, then write tables and figures. Done runs are never computed again.

    Example: harness run studies/quickstart.py --where mask_ratio=0.6
    """
    found = planned(study, scale, where, seeds, store)
    if until_decided:
        require_looks(found.plan, selected=bool(where or seeds))
        _until_decided(found, resources, on, slots)
        return
    _compute(found, None, resources, on, slots, retry=False)


@with_resources
def retry(
    study: StudyFile,
    scale: ScaleName = None,
    where: Where = None,
    seeds: Seeds = None,
    store: StorePath = None,
    on: On = "local",
    slots: Slots = None,
    *,
    resources: Resources,
) -> None:
    """Compute failed, cancelled and interrupted runs again, and what waits for them.

    Example: harness retry studies/quickstart.py --where mask_ratio=0.6
    """
    found = planned(study, scale, where, seeds, store)
    if not (failed := found.failed()):
        say("nothing has failed")
        return
    _compute(found, failed, resources, on, slots, retry=True)


def _compute(
    found: Results,
    runs: dict[str, Run] | None,
    resources: Resources,
    on: ExecutorName,
    slots: int | None,
    *,
    retry: bool,
) -> None:
    """Compute or queue runs. Where they are computed here, write the report and exit with 1 if some failed."""
    folder, plan = results_folder(found.plan), found.plan
    progress = partial(_watched, found, runs, resources)
    work = found.compute(runs, on=on, slots=slots, resources=resources, retry=retry, progress=progress)
    if work.submitted is not None:
        say_submitted(work.submitted)
        return
    seeds = len({row.seed for row in plan.rows})
    whole = len(plan.firsts()) == len(plan.study.cells)  # a selection must not narrow the study's tables
    shown = found if whole or plan.study.looks else results(plan.study, plan.scale.name, seeds=seeds, store=found.store)
    if not whole:
        say("The table is the whole study's: --where chose what to compute.")
    show_report(shown.looked(), folder)
    counts = Counter(work.endings.values())
    # Before interruptions: for a failure, the same command again is not enough.
    if counts["failed"] or counts["blocked"]:
        say(f"{_counts(work.endings, found.store)}. harness logs shows why, harness retry runs them again.")
        raise typer.Exit(1)
    if counts["interrupted"]:
        say(f"{_counts(work.endings, found.store)}. The same command goes on from here.")
        raise typer.Exit(130)


@contextmanager
def _watched(found: Results, runs: dict[str, Run] | None, resources: Resources, queue: Queue) -> Iterator[Watch]:
    """Show the runs of a queue while they are computed, and end the command after a signal."""
    for line in slow_bf16(map(queue.run, queue.open()), resources.device, gpus):
        say(line)
    if not len(queue):
        say(f"nothing to compute: {_counts(queue.endings, found.store)}")
        yield Watch(lambda event: None, lambda: False)
        return
    specs, title = found.plan.runs() if runs is None else runs, f"{found.plan.study.name} · {found.plan.scale.name}"
    with Display(title, specs, labels(found.plan), queue) as display, Stop(tell=display.stopping) as stop:
        yield Watch(display.show, stop)
    if stop():
        counts = _counts(queue.endings, found.store)
        say(f"{counts}. The same command goes on from here; harness report shows what is done so far.")
        raise typer.Exit(130)


def _counts(endings: Mapping[str, Ending], store: Store) -> str:
    """`3 done, 1 interrupted, 2 not begun`: runs that a stop kept from beginning have no checkpoint."""
    stopped = store.states([name for name, ending in endings.items() if ending == "interrupted"])
    waited = {name for name, state in stopped.items() if state.word == "missing"}
    counts = Counter("not begun" if name in waited else ending for name, ending in endings.items())
    return ", ".join(f"{count} {ending}" for ending, count in counts.items()) or "no runs"


def say_submitted(done: Submitted) -> None:
    """Print what was queued on a cluster.

    Raises:
        HarnessError: the cluster refused runs.
    """
    if done.runs:
        say(f"queued {counted(done.runs, 'run')} in {counted(done.jobs, 'job')}, {counted(done.arrays, 'array')}")
    if done.waiting:
        say(f"queued or at work already: {counted(done.waiting, 'run')}")
    if done.left:
        left = counted(done.left, "run")
        say(f"{left} left out: the queue takes no more of your jobs; the same command submits them later")
    if done.refused:
        raise HarnessError(f"sbatch refused the rest: {done.refused}")
    if not done.runs and not done.waiting and not done.left:
        say("nothing to compute. harness report writes the tables")
    else:
        say("harness status shows how they stand, harness report writes the tables")


def _until_decided(found: Results, resources: Resources, on: ExecutorName, slots: int | None) -> None:
    """Compute look after look until all claims are decided, then write the report."""

    def here(wanted: Results) -> None:
        try:
            _compute(wanted, None, resources, on, slots, retry=False)
        except typer.Exit as ended:
            if ended.exit_code != 1:  # failures leave other claims to be decided
                raise

    folder = results_folder(found.plan)  # refused at once, not after the last look
    executor = found.executor(on, slots=slots, resources=resources)
    failed = follow(found, here if isinstance(executor, Here) else on_cluster(executor))
    show_report(found.looked(), folder)
    if failed:
        runs = counted(failed, "run")
        again = "harness retry --on slurm" if on == "slurm" else "harness retry"
        say(f"{runs} failed or blocked by one that did. harness logs shows why, {again} runs them again.")
        raise typer.Exit(1)


POLL_SECONDS = 30.0
"""Interval at which a cluster is asked whether the runs of a look have ended."""


def require_looks(plan: Plan, *, selected: bool) -> None:
    """Refuse studies that --until-decided cannot handle.

    Raises:
        HarnessError: the study has no looks or no claims, or a part of it was chosen.
    """
    study = plan.study
    if not study.claims:
        raise HarnessError(f"--until-decided: {study.name} makes no claims")
    if not study.looks:
        looks = f"looks=({study.seeds}, {study.seeds + 3}, {study.seeds + 5})"
        raise HarnessError(f"--until-decided: {study.name} has no looks; fix them beforehand, such as Study({looks})")
    if selected:
        raise HarnessError(
            "--until-decided takes the whole study: its claims say which cells, its looks how many seeds"
        )


def follow(found: Results, compute: Callable[[Results], None]) -> int:
    """Compute look after look until no claim is open or no run is left to try.

    Decisions are replayed from the store at each look, so this may be stopped and called again at any moment.

    Returns:
        Number of runs that failed or wait for one that did.
    """
    from harness.report.claims.sequential import scheduled

    before: list[str] = []
    while True:
        wanted = Results(scheduled(found.plan, found.store), found.store)
        queue = Queue(wanted.runs(), found.store, reading=True)
        queue.blocked()
        left = queue.open()
        if not left or left == before:  # failed ones stay failed until they are retried
            return sum(ending in ("failed", "blocked") for ending in queue.endings.values())
        before = left
        seeds = len({row.seed for row in wanted.plan.rows})
        say(f"{counted(len(left), 'run')} for {counted(seeds, 'seed')} a cell at most")
        compute(wanted)


def on_cluster(executor: Executor) -> Callable[[Results], None]:
    """Function that queues the runs of a look and waits until none is queued or running."""

    def compute(wanted: Results) -> None:
        if (done := wanted.compute(on=executor).submitted) is not None:
            say_submitted(done)
        say("waiting for the look; this may be stopped, and the same command goes on from the store")
        while True:
            seen = executor.states(wanted.runs())
            words = {place.word for place in seen.places.values()}
            # A cluster that does not answer has not said that nothing runs any more.
            if not seen.silent and not words & {"queued", "running"}:
                break
            time.sleep(POLL_SECONDS)
        # Else the next look would queue them again, against the wish of whoever cancelled them.
        if "cancelled" in words:
            raise HarnessError("runs of this look were cancelled; the same command queues them again")

    return compute
