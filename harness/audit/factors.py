"""Do cells differ from the reference in what their axes are about, and in nothing else?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from functools import partial
from typing import NamedTuple

from pydantic import ValidationError

from harness.audit.contract import Arm, arms
from harness.audit.finding import Finding
from harness.papers import a2mim, mae, released_simmim_cnn, simmim, simmim_cnn, symmim
from harness.spec import Evaluation, HarnessError, Mask, Pretrain, Scale, Scratch, Skip, Spec, pretraining
from harness.spec.differences import Difference, differences
from harness.study import Plan, Study, expand

KEPT = ("data", "image_size", "backbone", "recipe", "seed", "start")
"""Fields of a pre-training that an axis changes only if the study declares it: all others are pieces of the method."""

WHOLE = ("backbone", "data")
"""Fields that are declared as a whole: which of their parts differ is of no interest."""

UNKEYED = "assumed"
SHOWN = 4
"""Fields of a finding that are named."""

PRESETS: tuple[Callable[..., Pretrain], ...] = (
    simmim, simmim_cnn, released_simmim_cnn, a2mim, partial(a2mim, variant="released"), mae, symmim,
)  # fmt: skip
"""What makes a pre-training of a scale, and chooses its pieces by the scale's backbone and image."""


class _Found(NamedTuple):
    """A field in which the evaluation of a cell differs from the reference's."""

    arm: int
    column: str
    item: Difference


def check_factors(plan: Plan) -> Iterator[Finding]:
    """The fields in which cells differ from the reference, against those that the study's axes may change.

    Each field is laid to the axis that it goes with best; what is not declared is one finding an axis, with what would
    declare it.
    """
    study, cells = plan.study, arms(plan)
    reference = next(arm for arm in cells if arm.row.axes == study.complete(study.reference)).row.evaluations
    if alone := sorted({column for arm in cells for column in arm.differences} - set(reference)):
        text = f"not compared, as the reference lacks it: {', '.join(alone)}"
        yield Finding("factors", "remark", text)
    axes_of = [differing_axes(study, arm) for arm in cells]
    differing = {axis: {n for n, axes in enumerate(axes_of) if axis in axes} for axis in study.grid.axes}
    preset = _Preset(plan)
    slips: list[_Found] = []
    fine: list[_Found] = []
    given: list[_Found] = []
    for one in _found(cells, reference):
        ours, theirs = cells[one.arm].row.evaluations[one.column], reference[one.column]
        declared = allowed(study, axes_of[one.arm], one.item)
        (given if preset.explains(one.item, ours, theirs) else fine if declared else slips).append(one)
    for axis, slipped in _by_axis(slips, differing).items():
        by_it = [one for one in fine if one.arm in differing[axis] and _only(study, axes_of[one.arm], axis, one)]
        code = _remedy(study, axis, {one.item.path for one in (*slipped, *by_it)})
        text = f"{axis} also changes {_listed(slipped)}; if the question is about that, say so: {code}"
        for number in dict.fromkeys(one.arm for one in slipped):
            yield Finding("factors", "failed", text, cells[number].row.text)
    for axis, changed in _by_axis([*fine, *given], differing).items():
        paths = sorted({one.item.path for one in changed})
        yield Finding("factors", "remark", f"{axis} changes {', '.join(paths)}")
    if not slips:
        yield Finding("factors", "passed", "cells differ from the reference in declared factors only")


def _found(cells: list[Arm], reference: Mapping[str, Evaluation]) -> Iterator[_Found]:
    for number, arm in enumerate(cells):
        for column, items in arm.differences.items():
            for item in items:
                if column in reference and not item.path.endswith(UNKEYED):
                    yield _Found(number, column, item)


def _by_axis(found: Iterable[_Found], differing: Mapping[str, Set[int]]) -> dict[str, list[_Found]]:
    """What was found, by the axis whose cells are those that a field differs in, or as many of them as can be."""
    where: dict[str, set[int]] = {}
    found = list(found)
    for one in found:
        where.setdefault(one.item.path, set()).add(one.arm)
    laid: dict[tuple[str, int], str] = {}
    for path, left in where.items():
        while left:  # every cell differs from the reference in some axis
            axis = max(differing, key=lambda name: len(differing[name] & left) / len(differing[name] | left))
            laid |= {(path, number): axis for number in differing[axis] & left}
            left = left - differing[axis]
    chosen: dict[str, list[_Found]] = {}
    for one in found:
        chosen.setdefault(laid[one.item.path, one.arm], []).append(one)
    return chosen


def _only(study: Study, axes: list[str], axis: str, one: _Found) -> bool:
    """Whether a difference is allowed because of this axis alone, of those in which its cell differs."""
    others = [name for name in axes if name != axis]
    return allowed(study, [axis], one.item) and not allowed(study, others, one.item)


def _remedy(study: Study, axis: str, paths: Set[str]) -> str:
    """The declaration of an axis that allows what it is allowed now, and these fields."""
    fields = {*study.factors.get(axis, ()), *map(_declared, paths)}
    fields = {path for path in fields if not any(path.startswith(f"{other}.") for other in fields)}
    return f"factors={{{axis!r}: ({', '.join(map(repr, sorted(fields)))},)}}".replace("'", '"')


def _declared(path: str) -> str:
    """A field as an axis declares it: `start.backbone` for `start.backbone.args`, `start.mask` for its size."""
    parts = path.split(".")
    for place, part in enumerate(parts):
        if part in WHOLE or (place and parts[place - 1] == "start" and part not in KEPT):
            return ".".join(parts[: place + 1])
    return path


def _listed(found: list[_Found]) -> str:
    """Fields with their values in the first cell, in the first evaluation that has them."""
    first = {one.item.path: one for one in reversed(found)}
    shown_fields = [
        f"{path or 'the kind of evaluation'}: {shown(one.item.right)} instead of {shown(one.item.left)}"
        for path, one in sorted(first.items())
    ]
    more = f" and {len(shown_fields) - SHOWN} more" if len(shown_fields) > SHOWN else ""
    columns = list(dict.fromkeys(one.column for one in found))
    return f"{', '.join(shown_fields[:SHOWN])}{more} (in {', '.join(columns)})"


class _Preset:
    """What a method's preset sets by itself: the site of a mask token goes with the backbone, and is no slip."""

    def __init__(self, plan: Plan) -> None:
        self._scale = plan.scale
        self._made: dict[str, list[Pretrain | None]] = {}

    def explains(self, item: Difference, ours: Evaluation, theirs: Evaluation) -> bool:
        """Whether one preset gives both sides their piece, each for its own backbone, image and data."""
        left, right = pretraining(theirs), pretraining(ours)
        inner = item.path.rpartition("start.")[2] if item.path.startswith("start.") else ""
        field = inner.partition(".")[0]
        if left is None or right is None or field in KEPT or field not in Pretrain.model_fields:
            return False
        return any(
            one is not None
            and other is not None
            and getattr(one, field) == getattr(left, field)
            and getattr(other, field) == getattr(right, field)
            for one, other in zip(self._presets(left, field), self._presets(right, field), strict=True)
        )

    def _presets(self, run: Pretrain, field: str) -> list[Pretrain | None]:
        mask = None if field == "mask" else run.mask  # the default one need not fit
        scale = self._scale.replace(
            backbone=run.backbone, image_size=run.image_size, data=run.data, pretrain=run.recipe
        )
        place = scale.digest + (mask.digest if mask else "")
        if place not in self._made:
            self._made[place] = [_preset(function, scale, mask) for function in PRESETS]
        return self._made[place]


def _preset(function: Callable[..., Pretrain], scale: Scale, mask: Mask | None) -> Pretrain | None:
    try:
        return function(scale, mask=mask)
    except (Skip, HarnessError, ValidationError):  # it has none for this backbone or image
        return None


def shown(value: object) -> str:
    """A field's value in a few words: a piece by its kind, a data set by its name."""
    if isinstance(value, Spec):
        return str(getattr(value, "name", "") or getattr(value, "kind", type(value).__name__))
    return repr(value)


def differing_axes(study: Study, arm: Arm) -> list[str]:
    """The axes in which a cell differs from the reference."""
    reference = study.complete(study.reference)
    return [axis for axis, value in arm.row.axes.items() if value != reference[axis]]


def allowed(study: Study, axes: list[str], item: Difference) -> bool:
    """Whether one of these axes may change this field."""
    return any(_may_change(study.factors.get(axis), item) for axis in axes)


def _may_change(declared: tuple[str, ...] | None, item: Difference) -> bool:
    if declared is not None:
        return any(item.path == path or item.path.startswith(f"{path}.") for path in declared)
    path = item.path.removeprefix("start.") if item.path.startswith("start.start") else item.path  # of an analysis
    if path == "start":  # from scratch, or from another kind of start
        return isinstance(item.left, Scratch) or isinstance(item.right, Scratch)
    stage, _, field = path.partition(".")
    return stage == "start" and field.split(".")[0] not in KEPT


def check_recipe(plan: Plan) -> Iterator[Finding]:
    """In what the reference at this scale differs from the published run, which is the reference at scale `paper`."""
    if plan.scale.name == "paper" or "paper" not in [scale.name for scale in plan.study.scales]:
        return
    reference = {axis: [value] for axis, value in plan.study.complete(plan.study.reference).items()}
    pair = [expand(plan.study, scale=name, where=reference, seeds=1).rows for name in (plan.scale.name, "paper")]
    ours, theirs = (rows[0] for rows in pair)
    for row, name in ((ours, plan.scale.name), (theirs, "paper")):
        if row.excluded:
            yield Finding("recipe", "remark", f"the reference is excluded at scale {name}: {row.excluded}")
            return
    for column, published in theirs.evaluations.items():
        for item in differences(published, ours.evaluations.get(column)):
            if not item.path.endswith(UNKEYED):
                here, there = shown(item.right), shown(item.left)
                text = f"{column}: {item.path} is {here} here and {there} in the published run"
                yield Finding("recipe", "remark", text)
