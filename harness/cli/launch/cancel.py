"""`harness cancel`: take runs out of the Slurm queue."""

from __future__ import annotations

from harness.cli.common import ScaleName, Seeds, StorePath, StudyFile, Where, labels, planned, say


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
    from harness.launch.slurm import submit as slurm

    plan, runs = planned(study, scale, where, seeds, store)
    gone, spared = slurm.cancel(plan.runs(), runs, study=f"{plan.study.name}/{plan.scale.name}")
    names = labels(plan)
    for name in gone:
        say(f"cancelled {names[name]}   {plan.runs()[name].kind}")
    for name in spared:
        say(f"spared    {names[name]}   {plan.runs()[name].kind}: another study waits for it")
    if not gone and not spared:
        say("nothing is queued or at work on the cluster")
