"""Texts on cost for plan and status: hours done and to do, size of models and targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from statistics import median

from harness.launch.cost import Answer, Cost, remaining
from harness.launch.site import read_site
from harness.spec import FineTune, Pretrain, Run
from harness.spec.model.described import costed_model
from harness.store import State, Store

HALVES = ("bf16", "fp16")
"""Precisions in which activations take about half."""

SHOWN = 12
"""Largest number of models and targets that plan lists."""

LOOKED_AT = 100
"""Largest number of trainings whose environments are read."""


def cost_of(runs: Mapping[str, Run], states: Mapping[str, State], store: Store, root: Path) -> Cost:
    """Cost of a study's runs.

    root: folder of the project, whose site profile may state multiply-adds a second for each stage.
    """
    rates = {stage: site.multiply_adds_per_second for stage, site in read_site(root).items()}
    return remaining(runs, states, store, rates)


def cost_text(cost: Cost) -> str:
    """`3.1 CPU-hours done, 0.8 to do (from 20 finished runs on cpu, +-8 %)`."""
    # An estimate comes from finished runs, so the first of a store have none.
    if cost.to_do_hours is None and not cost.done_hours:
        return "unknown until a run is done"
    left = "unknown" if cost.to_do_hours is None else f"{'at least ' if cost.unknown else ''}{hours(cost.to_do_hours)}"
    spread = "" if cost.spread is None else f", +-{100 * cost.spread:.0f} %"
    basis = f"   ({cost.basis}{spread})" if cost.basis else ""
    return f"{hours(cost.done_hours)} {cost.unit} done   {left} to do{basis}"


def graph_lines(runs: Mapping[str, Run], states: Mapping[str, State], store: Store) -> list[str]:
    """Lines on finished trainings: how many were compiled and captured, and when their first step was done.

    Of the first LOOKED_AT; no line where neither was asked for, as on a CPU.
    """
    done = (name for name, run in runs.items() if states[name].result and isinstance(run, Pretrain | FineTune))
    noted = [store.environment(name) for name in islice(done, LOOKED_AT)]
    lines, of = [], f"of {len(noted)} trainings"
    if compiled := [one for one in noted if one.get("compiled")]:
        seconds = [float(one.get("first_step_seconds", 0)) for one in compiled]
        took = f"first step after {median(seconds):.0f} s, {hours(sum(seconds) / 3600)} h in all"
        lines.append(f"compiled  {len(compiled)} {of}: {took}")
    if asked := [one for one in noted if "captured" in one]:
        lines.append(f"captured  {sum(bool(one['captured']) for one in asked)} {of}")
        reasons = Counter(str(one.get("not captured")) for one in asked if not one["captured"])
        lines += [f"          {number} not: {reason:.56}" for reason, number in reasons.most_common()]
    return lines


def hours(value: float) -> str:
    """Hours with two digits that count, and with none behind the point from 100 on."""
    if 0 < value < 1e-4:
        return f"{float(f'{value:.2g}'):f}"  # without an exponent
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 or value == 0 else f"{value:.2g}"


def model_lines(answers: Iterable[Answer]) -> list[str]:
    """One line per described model, and one for the number of the others."""
    lines, silent = [], 0
    for answer in answers:
        if answer.found is not None:
            found = answer.found
            # A frozen encoder has neither gradients nor moments.
            what = "weights and optimiser state" if answer.model.stage != "frozen" else "weights"
            lines.append(
                f"{answer.model.text}: {short(found.parameters)} parameters, {short(found.multiply_adds)} "
                f"multiply-adds an image, {short(found.memory_bytes)}B of {what}"
            )
        elif answer.error:
            lines.append(f"{answer.model.text}: {answer.error}")
        else:
            silent += 1
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    # Only beside models that are counted: where none is, the list is left out altogether.
    unknown = [f"{silent} not counted yet; --describe counts them"] if silent and lines else []
    return lines[:SHOWN] + more + unknown


def peak_lines(runs: Iterable[Run], answers: Iterable[Answer]) -> list[str]:
    """About how much memory a training takes at its peak, a line for each model and batch size, the largest first."""
    counts = {answer.model.digest: answer.found for answer in answers}
    sizes: dict[str, int] = {}
    for run in runs:
        if not isinstance(run, Pretrain | FineTune):
            continue
        model, recipe = costed_model(run), run.recipe
        if (found := counts.get(model.digest)) is None:
            continue
        image = found.activation_bytes // (2 if recipe.precision in HALVES else 1)
        target = run.target_memory if isinstance(run, Pretrain) else 0
        # Weights and optimiser state do not grow with the batch; activations and targets do.
        peak = found.memory_bytes + recipe.batch_size * image + target
        what = f"{model.text}, {recipe.precision}: about {short(peak)}B for a batch of {recipe.batch_size:,}"
        sizes[f"{what}, {short(image)}B an image of activations"] = peak
    lines = sorted(sizes, key=lambda line: -sizes[line])
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    told = ["these are estimates: harness bench measures; --micro-batch and --recompute take less"] if lines else []
    return lines[:SHOWN] + more + told


def target_lines(runs: Iterable[Run]) -> list[str]:
    """Memory that the targets of pre-trainings take, a line for each target at an image size, the largest first."""
    sizes: dict[str, int] = {}
    for run in runs:
        if isinstance(run, Pretrain):
            classes = run.target.classes
            kind = f"{run.target.kind} of {classes} classes" if classes else run.target.kind
            side = run.image_size // run.target.downsample
            # An image at a time, as batch sizes differ between recipes.
            sizes[f"{kind} at {side} x {side}"] = run.target_memory // run.recipe.batch_size
    found = sorted(sizes.items(), key=lambda item: -item[1])
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return [
        f"{what}: at least {short(size)}B an image for prediction, its gradient and target"
        for what, size in found[:SHOWN]
    ] + more


def short(count: int) -> str:
    """A large number in thousands (k), millions (M) or thousand millions (G), with two digits behind the point."""
    for letter, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:,.2f} {letter}"
    return f"{count} "
