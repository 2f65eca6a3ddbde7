"""`harness plan`: cells, runs and costs before anything is computed."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

import typer

from harness.cli.common import (
    ScaleName,
    Seeds,
    StorePath,
    StudyFile,
    Where,
    counted,
    planned,
    say,
)
from harness.cli.launch.costs import cost_of, cost_text, model_lines, peak_lines, target_lines
from harness.launch.cost import check_models, check_names, known_models
from harness.launch.local.pool import gpus
from harness.launch.ready import missing_data, refuse_folders
from harness.launch.resources import slow_bf16
from harness.launch.site import read_site
from harness.spec import Pretrain, Run, pretraining
from harness.spec.model.described import costed_models
from harness.store import State, Store
from harness.study import Plan

SAMPLE = 20
"""Finished runs whose size is measured, and excluded cells listed per reason."""


def plan(
    study: StudyFile,
    scale: ScaleName = None,
    where: Where = None,
    seeds: Seeds = None,
    store: StorePath = None,
    on: Annotated[Literal["slurm"] | None, typer.Option("--on", help="slurm: also the jobs and sbatch scripts")] = None,
    describe: Annotated[
        bool,
        typer.Option(
            "--describe", help="count parameters and multiply-adds of the models, once, and the targets' memory"
        ),
    ] = False,
) -> None:
    """Show cells, shared pre-trainings, what is done, what would run and what it costs. Trains nothing.

    Example: harness plan studies/quickstart.py --where mask_ratio=0.6
    """
    found = planned(study, scale, where, seeds, store)
    plan, runs = found.plan, found.store
    specs = plan.runs()
    models = costed_models(specs)
    # Before anything else: a slip in a name should not wait for the store to be read.
    check_names(models)
    # Counting a model loads torch, so a plan shows what was counted before unless asked for more.
    answers = (check_models if describe else known_models)(runs.root, models)
    states = runs.states(specs)
    # Not of finished runs, whose results stay when their folder of images is gone.
    refuse_folders(run for name, run in specs.items() if states[name].word != "done")
    replicates = len({row.seed for row in plan.rows})
    say(f"{plan.study.name} · {plan.scale.name} · {_cells(plan)} x {counted(replicates, 'seed')}")
    for name, text in (
        ("runs", _runs(specs)),
        ("shared", _shared(plan)),
        ("excluded", _excluded(plan)),
        ("done", _progress(states)),
        ("models", model_lines(answers)),
        ("memory", [*peak_lines(specs.values(), answers), *target_lines(specs.values())] if describe else []),
        ("cost", [cost_text(cost_of(specs, states, runs, plan.study.root))] if specs else []),
        ("slow", slow_bf16(specs.values(), "auto", gpus)),
        ("disk", _disk(specs, states, runs)),
        ("data", _data(specs)),
        ("claims", _claims(plan)),
        ("assumed", _assumed(specs)),
        ("geometry", _geometry(specs)),
    ):
        for number, line in enumerate(text):
            say(f"  {name if number == 0 else '':<10} {line}")
    if on == "slurm":
        show_scripts(plan, runs, specs)
    say("nothing was started. harness run ... to start.")


def _cells(plan: Plan) -> str:
    """`5 cells`; `17 of 29 cells` where some are excluded."""
    cells, excluded = len(plan.firsts()), sum(map(len, plan.excluded().values()))
    return (f"{cells - excluded} of " if excluded else "") + counted(cells, "cell")


def _runs(specs: dict[str, Run]) -> list[str]:
    counts = Counter(run.kind for run in specs.values())
    return [", ".join(f"{count} {kind}" for kind, count in counts.items()) or "none"]


def _shared(plan: Plan) -> list[str]:
    users: Counter[str] = Counter()
    for row in plan.rows:
        # A set within a row: columns of a cell that share a pre-training count as one user.
        users.update({first.digest for e in row.evaluations.values() if (first := pretraining(e)) is not None})
    evaluations = sum(len(row.evaluations) for row in plan.rows)
    shared = sum(count > 1 for count in users.values())
    return [f"pre-trainings that serve several cells: {shared}"] if shared and evaluations else []


def _excluded(plan: Plan) -> list[str]:
    lines = []
    for reason, rows in plan.excluded().items():
        more = f" and {len(rows) - SAMPLE} more" if len(rows) > SAMPLE else ""
        cells = ", ".join(row.text for row in rows[:SAMPLE]) + more
        lines.append(f"{counted(len(rows), 'cell')}   {cells}: {reason}")
    return lines


def _progress(states: dict[str, State]) -> list[str]:
    words = Counter(state.word for state in states.values())
    others = [f"{words[word]} {word}" for word in ("running", "failed", "interrupted") if words[word]]
    text = f"{words['done']} of {len(states)}   to do {len(states) - words['done']}"
    return [text + (f"   ({', '.join(others)})" if others else "")]


def _disk(specs: dict[str, Run], states: dict[str, State], store: Store) -> list[str]:
    """Size of the runs when all are done, from the mean size of finished ones of each kind."""
    mean: dict[str, float] = {}
    for kind in {run.kind for run in specs.values()}:
        # A sample, as the size of each folder takes calls to a file system that may be far away.
        done = [name for name, run in specs.items() if run.kind == kind and states[name].word == "done"][:SAMPLE]
        if done:
            mean[kind] = sum(map(store.size, done)) / len(done)
    # Kinds differ too much in size for one to stand for another.
    unknown = sorted({run.kind for run in specs.values()} - set(mean))
    known = sum(mean.get(run.kind, 0.0) for run in specs.values())
    missing = f", plus {', '.join(unknown)} (unknown until one is done)" if unknown else ""
    return [(f"about {known / 1e6:,.1f} MB when all is done" if mean else "unknown until a run is done")
            + (missing if mean else "")]  # fmt: skip


def _data(specs: dict[str, Run]) -> list[str]:
    sets = {run.data.digest: run.data for run in specs.values()}
    small = {said for data in sets.values() if (said := data.small_classes()) is not None}
    return [*missing_data(specs.values()), *sorted(small)]


def _claims(plan: Plan) -> list[str]:
    return [claim.sentence for claim in plan.study.claims]


def _assumed(specs: dict[str, Run]) -> list[str]:
    # Without what stands under geometry, which a preset also notes.
    return sorted({note for run in specs.values() for note in run.assumed}.difference(_geometry(specs)))


def _geometry(specs: dict[str, Run]) -> list[str]:
    starts = (run for run in specs.values() if isinstance(run, Pretrain))
    return sorted({note for run in starts for mask in run.masks for note in mask.notes(run.image_size)})


def show_scripts(plan: Plan, store: Store, specs: dict[str, Run]) -> None:
    """Print the jobs and sbatch scripts that `run --on slurm` would queue."""
    from harness.launch.doctor import problems
    from harness.launch.slurm.submit import scripts

    site = read_site(plan.study.root)
    # Problems first: the jobs below would meet them.
    for problem in problems(store.root, site):
        say(f"  {'problem' if problem.stops else 'note':<10} {problem.text}")
    arrays, texts = scripts(specs, store, site)
    counts = Counter(array.stage for array in arrays)
    for stage, count in counts.items():
        jobs = [element for array in arrays if array.stage == stage for element in array.elements]
        runs = counted(sum(map(len, jobs)), "run")
        say(f"  {stage:<10} {runs} in {counted(len(jobs), 'job')}, {counted(count, 'array')}")
        for line in texts[stage].splitlines():
            say(f"             {line}", whole=True)
