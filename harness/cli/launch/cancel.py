"""`harness cancel`: take runs out of the Slurm queue."""

from __future__ import annotations

from harness.cli.common import ScaleName, Seeds, StorePath, StudyFile, Where, labels, planned, say
from harness.launch.executor import clusters


def cancel(
    study: StudyFile,
    scale: ScaleName = None,
    where: Where = None,
    seeds: Seeds = None,
    store: StorePath = None,
) -> None:
    """Take runs out of the Slurm queue and stop those at work there. Runs that another study waits for are spared.

    Example: harness cancel studies/quickstart.py --where mask_ratio=0.6
    """
    found = planned(study, scale, where, seeds, store)
    plan, runs = found.plan, found.store
    specs, names, count = plan.runs(), labels(plan), 0
    for cluster in clusters(runs, plan.name):
        gone, spared = cluster.cancel(specs)
        count += len(gone) + len(spared)
        for name in gone:
            say(f"cancelled {names[name]}   {specs[name].kind}")
        for name in spared:
            say(f"spared    {names[name]}   {specs[name].kind}: another study waits for it")
    if not count:
        say("nothing is queued or at work on the cluster")
