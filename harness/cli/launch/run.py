"""`harness run` and `harness retry`: compute runs in this process, on this machine or on Slurm."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Annotated

import typer

from harness.cli.common import (
    On,
    ScaleName,
    Seeds,
    Slots,
    StorePath,
    StudyFile,
    Where,
    labels,
    planned,
    reported,
    results_folder,
    runs_of,
    say,
    with_resources,
)
from harness.cli.finished.report import show_report
from harness.cli.launch.live import Display, Stop
from harness.launch.executor import Executor, ExecutorName, Here, drive, open_executor, overview
from harness.launch.local.pool import gpus
from harness.launch.queue import Queue
from harness.launch.ready import check_runs
from harness.launch.resources import Resources, slow_bf16
from harness.spec import HarnessError, Run, key, upstreams
from harness.store import Store
from harness.study import Plan, expand

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
    plan, runs = planned(study, scale, where, seeds, store)
    if until_decided:
        require_looks(plan, selected=bool(where or seeds))
        _until_decided(plan, runs, resources, on, slots)
        return
    _compute(plan, runs, runs_of(plan), resources, on, slots, retry=False)


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
    """Compute failed, cancelled and lost runs again, and what waits for them.

    Example: harness retry studies/quickstart.py --where mask_ratio=0.6
    """
    plan, runs = planned(study, scale, where, seeds, store)
    specs = runs_of(plan)
    # Blocked runs are not among them: they come along with the run that they wait for.
    again = ("failed", "cancelled", "lost")
    failed = {name for name, place in overview(specs, runs).places.items() if place.word in again}
    if not failed:
        say("nothing has failed")
        return
    # An evaluation waits for its pre-training, so it is computed with it although it has not failed itself.
    chosen = {name: spec for name, spec in specs.items() if {name, *_before(spec)} & failed}
    needed = {first for spec in chosen.values() for first in _before(spec)}
    wanted = {name: spec for name, spec in specs.items() if name in chosen or name in needed}
    _compute(plan, runs, wanted, resources, on, slots, retry=True)


def _before(run: Run) -> list[str]:
    return [key(first) for first in upstreams(run)]


def _compute(
    plan: Plan,
    store: Store,
    specs: dict[str, Run],
    resources: Resources,
    on: ExecutorName,
    slots: int | None,
    *,
    retry: bool,
) -> None:
    """Compute or queue runs. Where they are computed here, write the report and exit with 1 if some failed."""
    folder = results_folder(plan)
    executor = _executor(plan, store, resources, on, slots)
    if not isinstance(executor, Here):
        queue_plan(store, executor, specs, retry=retry)
        return
    executor.submit(specs, retry=retry)
    queue = executor.queue
    # Only runs that are still to be computed: results from data that is gone can be reported all the same.
    check_runs({name: queue.run(name) for name in queue.open()}, store)
    for line in slow_bf16(map(queue.run, queue.open()), resources.device, gpus):
        say(line)
    for name in queue.open()[:1]:
        store.register(queue.run(name))  # a store that cannot be written shows before anything is started
    stop = Stop()
    if len(queue):
        with Display(f"{plan.study.name} · {plan.scale.name}", specs, labels(plan), queue) as display:
            drive(executor, display.show, stopping=stop)
    else:
        say(f"nothing to compute: {_counts(queue)}")
    seeds = len({row.seed for row in plan.rows})
    whole = len(plan.firsts()) == len(plan.study.cells)  # a selection must not narrow the study's tables
    shown = plan if whole or plan.study.looks else expand(plan.study, scale=plan.scale.name, seeds=seeds)
    show_report(reported(shown, store), store, folder)
    counts = Counter(queue.endings.values())
    # Before interruptions: for a failure, the same command again is not enough.
    if counts["failed"] or counts["blocked"]:
        say(f"{_counts(queue)}. harness logs shows why, harness retry runs them again.")
        raise typer.Exit(1)
    if counts["interrupted"]:
        say(f"{_counts(queue)}. The same command goes on from here.")
        raise typer.Exit(130)


def _executor(plan: Plan, store: Store, resources: Resources, on: ExecutorName, slots: int | None) -> Executor:
    if on == "slurm" and slots is not None:
        raise HarnessError("--slots belongs to --on local; on Slurm the site profile says pack and slots")
    study = f"{plan.study.name}/{plan.scale.name}"
    return open_executor(on, store, resources, study=study, project=plan.study.root, slots=slots)


def _counts(queue: Queue) -> str:
    words = {"interrupted": "not finished"}
    counts = Counter(words.get(ending, ending) for ending in queue.endings.values())
    return ", ".join(f"{count} {ending}" for ending, count in counts.items()) or "no runs"


def queue_plan(store: Store, executor: Executor, specs: dict[str, Run], *, retry: bool) -> None:
    """Queue the missing runs on a cluster and print what was queued."""
    queue = Queue(specs, store, retry=retry)
    check_runs({name: queue.run(name) for name in queue.open()}, store)
    done = executor.submit(specs, retry=retry)
    if done.runs:
        say(f"queued {done.runs} runs in {done.jobs} jobs, {done.arrays} arrays")
    if done.waiting:
        say(f"{done.waiting} runs were queued or at work already")
    if done.left:
        say(f"{done.left} runs left out: the queue takes no more of your jobs; the same command submits them later")
    if done.refused:
        raise HarnessError(f"sbatch refused the rest: {done.refused}")
    if not done.runs and not done.waiting and not done.left:
        say("nothing to compute. harness report writes the tables")
    else:
        say("harness status shows how they stand, harness report writes the tables")


def _until_decided(plan: Plan, store: Store, resources: Resources, on: ExecutorName, slots: int | None) -> None:
    """Compute look after look until all claims are decided, then write the report."""

    def here(wanted: Plan) -> None:
        try:
            _compute(wanted, store, runs_of(wanted), resources, on, slots, retry=False)
        except typer.Exit as ended:
            if ended.exit_code != 1:  # failures leave other claims to be decided
                raise

    folder = results_folder(plan)  # refused at once, not after the last look
    executor = _executor(plan, store, resources, on, slots)
    failed = follow(plan, store, here if isinstance(executor, Here) else on_cluster(store, executor))
    show_report(reported(plan, store), store, folder)
    if failed:
        say(f"{failed} runs failed or wait for one that did. harness logs shows why, harness retry runs them again.")
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


def follow(plan: Plan, store: Store, compute: Callable[[Plan], None]) -> int:
    """Compute look after look until no claim is open or no run is left to try.

    Decisions are replayed from the store at each look, so this may be stopped and called again at any moment.

    Returns:
        Number of runs that failed or wait for one that did.
    """
    from harness.report.claims.sequential import scheduled

    before: list[str] = []
    while True:
        wanted = scheduled(plan, store)
        queue = Queue(runs_of(wanted), store, reading=True)
        queue.blocked()
        left = queue.open()
        if not left or left == before:  # failed ones stay failed until they are retried
            return sum(ending in ("failed", "blocked") for ending in queue.endings.values())
        before = left
        say(f"{len(left)} runs for {len({row.seed for row in wanted.rows})} seeds a cell at most")
        compute(wanted)


def on_cluster(store: Store, executor: Executor) -> Callable[[Plan], None]:
    """Function that queues the runs of a look and waits until none is queued or running."""

    def compute(wanted: Plan) -> None:
        specs = runs_of(wanted)
        queue_plan(store, executor, specs, retry=False)
        say("waiting for the look; this may be stopped, and the same command goes on from the store")
        while True:
            seen = executor.states(specs)
            words = {place.word for place in seen.places.values()}
            # A cluster that does not answer has not said that nothing runs any more.
            if not seen.silent and not words & {"queued", "running"}:
                break
            time.sleep(POLL_SECONDS)
        # Else the next look would queue them again, against the wish of whoever cancelled them.
        if "cancelled" in words:
            raise HarnessError("runs of this look were cancelled; the same command queues them again")

    return compute
