"""Distributed runs in a Slurm job: srun starts the processes of all nodes, and each takes its rows of every batch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

from harness.launch.flight import redirect
from harness.launch.local.pool import gpus
from harness.launch.queue import Ending, Event, has_start
from harness.launch.resources import Resources
from harness.spec import Run
from harness.store import Store


def rank() -> int:
    """This process's number among those that srun started."""
    return int(os.environ.get("SLURM_PROCID", "0"))


def compute_together(
    wanted: Callable[[], dict[str, Run]],
    store: Store,
    resources: Resources,
    meeting: Path,
    *,
    retry: bool,
    report: Callable[[Event], None],
    stopping: Callable[[], bool],
    unwanted: Callable[[str], bool],
) -> dict[str, Ending]:
    """Compute runs one after the other, each in all processes of the job.

    Args:
        wanted: the runs that are to be computed; asked on rank 0, which decides for all.
        meeting: a file on the shared disk where the processes meet: node names need not resolve. It lies beside the
            submission rather than in a run's folder, as the group outlives a run and meets before an attempt is owned.

    Returns:
        How each run ended, on every rank.
    """
    local, found = int(os.environ.get("SLURM_LOCALID", "0")), gpus()
    if len(found) > 1:  # one alone: srun has bound this process to its own
        os.environ["CUDA_VISIBLE_DEVICES"] = found[local % len(found)]
    from harness.core.runtime.distributed import join
    from harness.launch.job import prepare, work

    device = prepare(resources)
    endings: dict[str, Ending] = {}
    with join(meeting, rank(), resources.processes, device) as group:
        for name in group.lead(lambda: list(wanted())):
            if group.agree(stopping())[0]:
                endings[name] = "interrupted"
                continue
            if (verdict := group.lead(lambda name=name: _before(name, store, unwanted))) is not None:  # type: ignore[misc]
                endings[name] = verdict
                continue
            ended = work(
                store,
                store.spec(name),
                device,
                resources,
                group=group,
                retry=retry,
                report=report,
                stopping=lambda name=name: stopping() or unwanted(name),
                begin=redirect,
            )
            endings[name] = cast(Ending, ended.kind if group.broken else group.share(ended.kind))
            if rank() == 0:
                report(ended)
            if group.broken:
                os._exit(1)  # at once: those who wait for this process notice by its end
    return endings


def _before(name: str, store: Store, unwanted: Callable[[str], bool]) -> Ending | None:
    """Ending of a run that is not to be begun; None if it is."""
    if unwanted(name):
        return "interrupted"
    return None if has_start(store, store.spec(name)) else "blocked"
