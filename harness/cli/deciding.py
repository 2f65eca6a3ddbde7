"""`harness run --until-decided`: more seeds where claims are open, up to the study's last look."""

from __future__ import annotations

import time
from collections.abc import Callable

from harness.cli.common import runs_of, say
from harness.cli.on_cluster import submit_plan
from harness.launch.queue import Queue
from harness.launch.resources import Resources
from harness.launch.slurm.run_states import overview
from harness.spec import HarnessError
from harness.store import Store
from harness.study import Plan

POLL_SECONDS = 30.0


def require_looks(plan: Plan, *, selected: bool) -> None:
    """Refuse what cannot be decided.

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
    """Compute the first look, then what open claims want, look by look, until none is open or no run is left to try.

    What was decided is read from the store each time, so this may be stopped and called again at any moment.

    Returns:
        How many of the runs failed, or wait for one that did.
    """
    from harness.report.sequential import scheduled

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


def on_slurm(store: Store, resources: Resources) -> Callable[[Plan], None]:
    """Queue what a look wants and wait until the cluster has no more of it to do."""

    def compute(wanted: Plan) -> None:
        specs = runs_of(wanted)
        submit_plan(wanted, store, specs, resources, retry=False)
        say("waiting for the look; this may be stopped, and the same command goes on from the store")
        while True:
            seen = overview(specs, store)
            words = {place.word for place in seen.places.values()}
            if not seen.silent and not words & {"queued", "running"}:
                break
            time.sleep(POLL_SECONDS)
        if "cancelled" in words:
            raise HarnessError("runs of this look were cancelled; the same command queues them again")

    return compute
