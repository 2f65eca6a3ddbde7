"""Do cells differ from the reference in what their axes are about, and in nothing else?"""

from __future__ import annotations

from collections.abc import Iterator

from harness.audit.contract import Arm, arms
from harness.audit.finding import Finding
from harness.spec import Scratch, Spec
from harness.spec.differences import Difference, differences
from harness.study import Plan, Study, expand

KEPT = ("data", "image_size", "backbone", "recipe", "seed", "start")
"""Fields of a pre-training that an axis changes only if the study declares it: all others are pieces of the method."""

UNKEYED = "assumed"


def check_factors(plan: Plan) -> Iterator[Finding]:
    """The fields in which cells differ from the reference, against those that the study's axes may change."""
    changed: dict[str, set[str]] = {}
    slips = 0
    for arm in arms(plan):
        axes = differing_axes(plan.study, arm)
        for column, found in arm.differences.items():
            for item in found:
                if item.path.endswith(UNKEYED):
                    continue
                if allowed(plan.study, axes, item):
                    changed.setdefault(", ".join(axes), set()).add(item.path)
                    continue
                slips += 1
                values = f"{shown(item.right)} instead of {shown(item.left)}"
                text = f"{column} differs from the reference's in {item.path}: {values}"
                about = f"; the cell differs in {', '.join(axes)}" if axes else ""
                yield Finding("factors", "failed", text + about, arm.row.text)
    for axes_text, paths in changed.items():
        yield Finding("factors", "remark", f"{axes_text or 'nothing'} changes {', '.join(sorted(paths))}")
    if not slips:
        yield Finding("factors", "passed", "cells differ from the reference in declared factors only")


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
