"""All checks of a study: factors, contract of each pre-training, rates of each fine-tuning, windows, recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from harness.audit.contract import (
    Batch,
    Finding,
    Step,
    awake,
    dead_parameters,
    first_step,
    fixed_batch,
    is_clean,
    is_masked,
    leak,
    reach_of_visible,
    shortened,
)
from harness.audit.factors import check_factors, check_recipe
from harness.audit.masks import check_masks
from harness.audit.pieces import piece_findings
from harness.audit.rates import check_rates
from harness.audit.windows import check_windows
from harness.core.model.corruption import declared_leaks
from harness.core.pretrain.mim import MaskedImageModel
from harness.spec import FineTune, HarnessError, Images, Pretrain, Shapes, pretraining, upstreams
from harness.spec.data.datasets import Folder
from harness.spec.differences import differences
from harness.study import Plan

BATCH, MORE = 2, 16
"""Images that first steps are compared on: few at first, then more where two runs agree, which masks do by chance."""


def audit(plan: Plan, tell: Callable[[str], None] = lambda text: None) -> list[Finding]:
    """Findings of every check of a study at one scale, at its first seed.

    Args:
        tell: called with the name of what is checked next.

    Raises:
        HarnessError: the reference is excluded at this scale, or left out by a selection.
    """
    tell("specs")
    found = [*check_factors(plan)]
    tell("pieces of your own")
    found += piece_findings(plan)
    starts = pretrainings(plan)
    found += _contracts(starts, tell)
    for name, run in finetunings(plan).items():
        tell(f"rates of {name}")
        found += check_rates(run, name)
    tell("windows")
    found += check_windows(plan)
    return [*found, *check_recipe(plan)]


def pretrainings(plan: Plan) -> dict[str, Pretrain]:
    """Distinct pre-trainings, ignoring their recipes, by the text of the first cell that needs each."""
    recipe = plan.scale.pretrain
    found: dict[str, tuple[str, Pretrain]] = {}
    for row in plan.firsts():
        for run in row.evaluations.values():
            if (start := pretraining(run)) is not None:
                found.setdefault(start.replace(recipe=recipe).digest, (row.text, start))
    return dict(found.values())


def finetunings(plan: Plan) -> dict[str, FineTune]:
    """One fine-tuning for each pair of recipe and encoder, by the text of the first cell that needs it."""
    found: dict[str, tuple[str, FineTune]] = {}
    for row in plan.rows:
        for run in (run for final in row.evaluations.values() for run in (*upstreams(final), final)):
            if isinstance(run, FineTune):
                found.setdefault(run.recipe.digest + run.built.digest, (row.text, run))
    return dict(found.values())


def _contracts(starts: dict[str, Pretrain], tell: Callable[[str], None]) -> Iterator[Finding]:
    steps: list[tuple[str, Pretrain, Step]] = []
    for arm, planned in starts.items():
        tell(arm)
        try:
            run, batch = _first_batch(planned)
        except HarnessError as error:
            yield Finding("masked", "remark", f"not looked at: {error}", arm)
            continue
        if run.data != planned.data:
            name = getattr(planned.data, "name", planned.data.kind)
            yield Finding("data", "remark", f"data set {name} is not at hand: checked on generated images", arm)
        for mask in run.masks:
            yield from check_masks(mask, run.image_size, seed=run.seed, arm=arm)
        model = awake(run, batch)  # one model serves both checks, which do not train it
        yield _masked(run, batch, model, arm)
        clean = is_clean(run, batch, model)
        text = "the target is made of the clean image" if clean else "the target does not show what is hidden"
        yield Finding("clean", "passed" if clean else "failed", text, arm)
        yield from _live(run, arm)
        step = first_step(run, batch)
        yield from _twins(run, step, steps, arm)
        steps.append((arm, run, step))


def _first_batch(run: Pretrain, size: int = BATCH) -> tuple[Pretrain, Batch]:
    """First batch of a pre-training; of generated images, with the run changed so, if its data set is not here."""
    try:
        return run, fixed_batch(run, size)
    except HarnessError:
        # A folder whose digest is known was read before, so that its absence is an error.
        away = isinstance(run.data, Images) or (isinstance(run.data, Folder) and run.data.content is None)
        if not away or run.data.channels != Shapes.channels:
            raise
    generated = run.replace(data=Shapes(image_size=run.image_size, train=64, test=16))
    return generated, fixed_batch(generated, size)


def _masked(run: Pretrain, batch: Batch, model: MaskedImageModel, arm: str) -> Finding:
    if is_masked(run, batch, model):
        if leaks := declared_leaks(run):
            return Finding("masked", "remark", f"hidden pixels reach the encoder as declared: {', '.join(leaks)}", arm)
        return Finding("masked", "passed", "hidden pixels do not reach the encoder", arm)
    if not batch.units.any() or batch.units.all():
        return Finding("masked", "failed", "the mask hides nothing, or everything", arm)
    if reach_of_visible(run, batch, model) == 0.0:
        return Finding(
            "masked", "failed", "visible pixels do not reach the encoder: the mask is the wrong way round", arm
        )
    return Finding(
        "masked", "failed", f"hidden pixels reach the encoder: its output changes by {leak(run, batch, model):.2g}", arm
    )


def _live(run: Pretrain, arm: str) -> Iterator[Finding]:
    if dead := dead_parameters(run):
        yield Finding("live", "failed", f"parameters without a gradient: {shortened(dead)}", arm)
    else:
        yield Finding("live", "passed", "every parameter gets a gradient", arm)


def _agree_on_more(run: Pretrain, other: Pretrain) -> bool:
    """True if two pre-trainings have the same first step on more images, where masks no longer agree by chance."""
    one, theirs = (first_step(*_first_batch(found, MORE)) for found in (run, other))
    return one.same_as(theirs)


def _twins(run: Pretrain, step: Step, others: list[tuple[str, Pretrain, Step]], arm: str) -> Iterator[Finding]:
    """A finding for each earlier pre-training with another spec but the same first step."""
    for name, other, theirs in others:
        # A recipe acts after the first step, so equal first steps say nothing of it.
        paths = [item.path for item in differences(other, run) if item.path.split(".")[0] not in ("recipe", "assumed")]
        if paths and step.same_as(theirs) and _agree_on_more(run, other):
            text = f"differs from {name} in {', '.join(paths)}, but not in loss or gradients: a dead switch"
            yield Finding("live", "failed", text, arm)
