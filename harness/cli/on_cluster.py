"""`harness cancel`, `harness doctor`, and what `run --on slurm` and `plan --on slurm` say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.common import ScaleName, Seeds, StorePath, StudyFile, Where, labels, planned, say
from harness.launch.resources import Resources
from harness.spec import HarnessError, Run
from harness.store import Store, open_store
from harness.study import Plan


def submit_plan(plan: Plan, store: Store, specs: dict[str, Run], resources: Resources, *, retry: bool) -> None:
    """Queue what is to be computed, and say what was queued."""
    from harness.launch.doctor import problems
    from harness.launch.site import read_site
    from harness.launch.slurm.submit import close_entries, submit

    site = read_site(plan.study.root)
    if found := [problem for problem in problems(store.root, site) if problem.stops]:
        raise HarnessError(f"{found[0].text}; harness doctor shows all it finds")
    close_entries(store)
    done = submit(
        specs,
        store,
        site,
        resources,
        study=f"{plan.study.name}/{plan.scale.name}",
        project=plan.study.root,
        retry=retry,
    )
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


def show_scripts(plan: Plan, store: Store, specs: dict[str, Run]) -> None:
    """The jobs and sbatch scripts that `run --on slurm` would queue."""
    from harness.launch.doctor import problems
    from harness.launch.site import read_site
    from harness.launch.slurm.submit import scripts

    site = read_site(plan.study.root)
    for problem in problems(store.root, site):
        say(f"  {'problem' if problem.stops else 'note':<10} {problem.text}")
    arrays, texts = scripts(specs, store, site)
    counts = Counter(array.stage for array in arrays)
    for stage, count in counts.items():
        jobs = [element for array in arrays if array.stage == stage for element in array.elements]
        say(f"  {stage:<10} {sum(map(len, jobs))} runs in {len(jobs)} jobs, {count} arrays")
        for line in texts[stage].splitlines():
            say(f"             {line}")


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


def doctor(
    folder: Annotated[Path, typer.Argument(help="a folder of the project")] = Path(),
    store: StorePath = None,
    probe: Annotated[bool, typer.Option("--probe", help="also run a small job of a minute on a node")] = False,
) -> None:
    """Check the site profile, the cluster and the store before anything is queued.

    Example: harness doctor
    """
    from harness.launch.doctor import probe_node, problems
    from harness.launch.site import read_site
    from harness.machine import project_root

    root = project_root(folder.resolve())
    site = read_site(root)
    place = open_store(store, root).root
    found = problems(place, site)
    if probe and not any(problem.stops for problem in found):
        found += probe_node(place, site["evaluation"])
    for problem in found:
        say(f"{'problem' if problem.stops else 'note':<8} {problem.text}")
    if any(problem.stops for problem in found):
        raise typer.Exit(2)
    say("nothing stands in the way of a submission")
