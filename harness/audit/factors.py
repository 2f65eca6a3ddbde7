"""Check that cells differ from the reference only in the fields that their axes declare."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from typing import NamedTuple

from pydantic import ValidationError

from harness.audit.contract import Finding, shortened
from harness.papers import PRESETS
from harness.spec import Evaluation, HarnessError, Mask, Pretrain, Scale, Scratch, Skip, Spec, pretraining
from harness.spec.differences import Difference, differences
from harness.study import Plan, Row, Study, expand

KEPT = ("data", "image_size", "backbone", "recipe", "seed", "start")
"""Fields of a pre-training that an axis may change only if the study declares it. The others are the method itself."""

WHOLE = ("backbone", "data")
"""Fields that are declared as a whole, whichever of their parts differ."""

UNKEYED = "assumed"
"""The field that is no part of a run's key: notes on values that a paper leaves open."""
SHOWN = 4
"""Fields that a finding names; it counts the others."""


@dataclass(frozen=True)
class Arm:
    """A cell, and by column the fields in which its evaluation differs from the reference's at the same seed."""

    row: Row
    differences: dict[str, list[Difference]]


def arms(plan: Plan) -> list[Arm]:
    """Differences of every cell from the reference cell, at the first seed.

    Raises:
        HarnessError: the reference is excluded at this scale, or left out by a selection.
    """
    rows = [row for row in plan.firsts() if not row.excluded]
    wanted = plan.study.complete(plan.study.reference)
    reference = next((row for row in rows if row.axes == wanted), None)
    if reference is None:
        raise HarnessError(f"the reference {wanted} is not among the cells that run")
    return [
        Arm(
            row,
            {
                column: differences(reference.evaluations.get(column), evaluation)
                for column, evaluation in row.evaluations.items()
            },
        )
        for row in rows
    ]


class _Change(NamedTuple):
    """A field in which the evaluation of a cell differs from the reference's. arm: number of the cell."""

    arm: int
    column: str
    item: Difference


def check_factors(plan: Plan) -> Iterator[Finding]:
    """Compare the fields in which cells differ from the reference with those that the study's axes may change.

    Each changed field is assigned to the axis that it varies with best. Undeclared fields are one finding an axis, with
    the declaration that would allow them.
    """
    study, cells = plan.study, arms(plan)
    reference = next(arm for arm in cells if arm.row.axes == study.complete(study.reference)).row.evaluations
    if alone := sorted({column for arm in cells for column in arm.differences} - set(reference)):
        text = f"not compared, as the reference lacks it: {', '.join(alone)}"
        yield Finding("factors", "remark", text)
    axes_of = [differing_axes(study, arm) for arm in cells]
    differing = {axis: {n for n, axes in enumerate(axes_of) if axis in axes} for axis in study.grid.axes}
    preset = _Preset(plan)
    undeclared: list[_Change] = []
    declared: list[_Change] = []
    by_preset: list[_Change] = []
    for one in _changes(cells, reference):
        ours, theirs = cells[one.arm].row.evaluations[one.column], reference[one.column]
        may = allowed(study, axes_of[one.arm], one.item)
        # The preset comes first: what follows from the backbone needs no declaration, even where one would allow it.
        (by_preset if preset.explains(one.item, ours, theirs) else declared if may else undeclared).append(one)
    for axis, slipped in _by_axis(undeclared, differing).items():
        # A declaration replaces the default rule, so the remedy must also name what the axis changes rightly now.
        by_it = [one for one in declared if one.arm in differing[axis] and _only(study, axes_of[one.arm], axis, one)]
        code = _remedy(study, axis, {one.item.path for one in (*slipped, *by_it)})
        text = f"{axis} also changes {_listed(slipped)}; if the question is about that, say so: {code}"
        for number in dict.fromkeys(one.arm for one in slipped):
            yield Finding("factors", "failed", text, cells[number].row.text)
    for axis, changed in _by_axis([*declared, *by_preset], differing).items():
        paths = sorted({one.item.path for one in changed})
        yield Finding("factors", "passed", f"{axis} changes {', '.join(paths)}")
    if not undeclared:
        yield Finding("factors", "passed", "cells differ from the reference in declared factors only")


def _changes(cells: list[Arm], reference: Mapping[str, Evaluation]) -> Iterator[_Change]:
    for number, arm in enumerate(cells):
        for column, items in arm.differences.items():
            for item in items:
                if column in reference and not item.path.endswith(UNKEYED):
                    yield _Change(number, column, item)


def _by_axis(found: Iterable[_Change], differing: Mapping[str, Set[int]]) -> dict[str, list[_Change]]:
    """Changes by the axis that explains each: the axis whose differing cells overlap most with those of the field."""
    where: dict[str, set[int]] = {}
    found = list(found)
    for one in found:
        where.setdefault(one.item.path, set()).add(one.arm)
    laid: dict[tuple[str, int], str] = {}
    for path, left in where.items():
        while left:  # ends: every cell in it differs from the reference in some axis
            # Overlap over union (Jaccard), so that an axis of many values does not claim every field.
            axis = max(differing, key=lambda name: len(differing[name] & left) / len(differing[name] | left))
            laid |= {(path, number): axis for number in differing[axis] & left}
            left = left - differing[axis]
    grouped: dict[str, list[_Change]] = {}
    for one in found:
        grouped.setdefault(laid[one.item.path, one.arm], []).append(one)
    return grouped


def _only(study: Study, axes: list[str], axis: str, one: _Change) -> bool:
    """True if this axis allows the change and no other axis in which the cell differs does."""
    others = [name for name in axes if name != axis]
    return allowed(study, [axis], one.item) and not allowed(study, others, one.item)


def _remedy(study: Study, axis: str, paths: Set[str]) -> str:
    """Declaration of an axis, as Python, that keeps what it declares now and adds these fields."""
    fields = {*study.factors.get(axis, ()), *map(_declared, paths)}
    # A field within another declared one would say the same twice.
    fields = {path for path in fields if not any(path.startswith(f"{other}.") for other in fields)}
    return f"factors={{{axis!r}: ({', '.join(map(repr, sorted(fields)))},)}}".replace("'", '"')


def _declared(path: str) -> str:
    """A field as an axis declares it: `start.backbone` for `start.backbone.args`, `start.mask` for its size."""
    parts = path.split(".")
    for place, part in enumerate(parts):
        if part in WHOLE or (place and parts[place - 1] == "start" and part not in KEPT):
            return ".".join(parts[: place + 1])
    return path


def _listed(found: list[_Change]) -> str:
    """Changed fields with both values, taken from the first cell and evaluation that has each."""
    # Reversed: of equal keys a dict keeps the last value, which is then the first change.
    first = {one.item.path: one for one in reversed(found)}
    shown_fields = [
        f"{path or 'the kind of evaluation'}: {shown(one.item.right)} instead of {shown(one.item.left)}"
        for path, one in sorted(first.items())
    ]
    columns = list(dict.fromkeys(one.column for one in found))
    return f"{shortened(shown_fields, SHOWN)} (in {', '.join(columns)})"


class _Preset:
    """Pieces that a method's preset chooses itself: the site of a mask token follows from the backbone."""

    def __init__(self, plan: Plan) -> None:
        self._scale = plan.scale
        self._made: dict[str, list[Pretrain | None]] = {}

    def explains(self, item: Difference, ours: Evaluation, theirs: Evaluation) -> bool:
        """True if one preset gives both runs their piece, each for its own backbone, image and data."""
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
        mask = None if field == "mask" else run.mask  # the preset's default mask may not fit this image
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
    except (Skip, HarnessError, ValidationError):  # no such method for this backbone or image
        return None


def shown(value: object) -> str:
    """A field's value in a few words: the kind of a piece, the function of a user's own, the name of a data set."""
    if isinstance(value, Spec):
        found = [getattr(value, name, "") for name in ("function", "name", "kind")]
        return str(next((name for name in found if name), type(value).__name__))
    return repr(value)


def differing_axes(study: Study, arm: Arm) -> list[str]:
    """Names of the axes in which a cell differs from the reference."""
    reference = study.complete(study.reference)
    return [axis for axis, value in arm.row.axes.items() if value != reference[axis]]


def allowed(study: Study, axes: list[str], item: Difference) -> bool:
    """True if one of these axes may change this field."""
    return any(_may_change(study.factors.get(axis), item) for axis in axes)


def _may_change(declared: tuple[str, ...] | None, item: Difference) -> bool:
    if declared is not None:
        return any(item.path == path or item.path.startswith(f"{path}.") for path in declared)
    path = item.path.removeprefix("start.") if item.path.startswith("start.start") else item.path
    # Two starts: an analysis of a fine-tuning of a pre-training. What an axis may change is the pre-training.
    if path == "start":  # from scratch, or from another kind of start
        return isinstance(item.left, Scratch) or isinstance(item.right, Scratch)
    stage, _, field = path.partition(".")
    return stage == "start" and field.split(".")[0] not in KEPT


def check_recipe(plan: Plan) -> Iterator[Finding]:
    """Remarks on how the reference at this scale differs from the published run: the reference at scale `paper`."""
    if plan.scale.name == "paper" or "paper" not in [scale.name for scale in plan.study.scales]:
        return
    reference = {axis: [value] for axis, value in plan.study.complete(plan.study.reference).items()}
    study = replace(plan.study, first_seed=0)  # scales may begin at other seeds, which are labels
    pair = [expand(study, scale=name, where=reference, seeds=1).rows for name in (plan.scale.name, "paper")]
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
