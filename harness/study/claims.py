"""Claims of a paper, as comparisons between cells of a study. Declarations only; the report gives the verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, assert_never

Scalar = str | int | float | bool | None
Where = Mapping[str, Scalar]
"""Axis values that select cells; an axis that is not named is free."""

Margin = float | Mapping[str, float] | None
"""A difference that does not matter, in points: at every scale, or by the name of the scale, "*" being any other one.
None: the study's own."""


@dataclass(frozen=True)
class Best:
    """The best cell among those that `where` selects."""

    where: Where = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Cells `left` against cells `right`, both within `at`, equal on all axes that neither of them names.

    kind: left is better; left is no worse than right by more than the margin; both are the same within it.
    margin: of no_worse and same; with it a claim of better can end as `no difference beyond the margin`.
    """

    sentence: str
    kind: Literal["better", "no_worse", "same"]
    left: Where | Best
    right: Where | Best
    at: Where
    margin: Margin = None


@dataclass(frozen=True)
class InnerMaximum:
    """Accuracy over a numeric axis is highest at a value that is neither its first nor its last.

    A plateau that reaches an end of the axis is no inner maximum.
    """

    sentence: str
    axis: str
    at: Where
    margin: Margin = None


Claim = Comparison | InnerMaximum


def best(**where: Scalar) -> Best:
    """The best of the cells with these axis values."""
    return Best(where)


def better(
    sentence: str, left: Where | Best, right: Where | Best, *, at: Where | None = None, margin: Margin = None
) -> Comparison:
    """Claim that `left` scores higher than `right`."""
    return Comparison(sentence, "better", left, right, at or {}, margin)


def no_worse(
    sentence: str, left: Where | Best, right: Where | Best, *, at: Where | None = None, margin: Margin = None
) -> Comparison:
    """Claim that `left` does not score lower than `right` by more than the margin."""
    return Comparison(sentence, "no_worse", left, right, at or {}, margin)


def same(
    sentence: str, left: Where | Best, right: Where | Best, *, at: Where | None = None, margin: Margin = None
) -> Comparison:
    """Claim that `left` and `right` score the same within the margin."""
    return Comparison(sentence, "same", left, right, at or {}, margin)


def inner_maximum(sentence: str, *, axis: str, at: Where | None = None, margin: Margin = None) -> InnerMaximum:
    """Claim that the score has a maximum inside the range of `axis`."""
    return InnerMaximum(sentence, axis, at or {}, margin)


def margin_at(claim: Claim, scale: str) -> float | None:
    """The declared margin of a claim at the scale of that name, in points."""
    return claim.margin.get(scale, claim.margin.get("*")) if isinstance(claim.margin, Mapping) else claim.margin


def selections(claim: Claim) -> list[Where]:
    """Axis values that select each set of cells in a claim."""
    match claim:
        case Comparison():
            sides = (side.where if isinstance(side, Best) else side for side in (claim.left, claim.right))
            return [{**claim.at, **side} for side in sides]
        case InnerMaximum():
            return [claim.at]
        case _:
            assert_never(claim)


def selector(where: Where) -> Callable[[Mapping[str, Scalar]], bool]:
    """Predicate that is True for cells with these axis values."""
    return lambda cell: all(axis in cell and cell[axis] == value for axis, value in where.items())
