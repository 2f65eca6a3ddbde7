"""Verdicts on claims: reproduced, contradicted, no difference beyond the margin, or why there is none."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, assert_never, get_args

import numpy as np
import pandas as pd

from harness.report.claims.contrasts import Sides, sides
from harness.report.collect import naming, starts_from_scratch
from harness.report.escape import shown
from harness.report.labels import axis_label
from harness.report.tables.paper_values import column_beside
from harness.report.tables.statistics import matrix, units
from harness.stats.additive import Additive, fit
from harness.stats.bounds import Bounds, bounds
from harness.stats.intervals import ERROR, Floats
from harness.stats.planning import seeds_to_exclude_zero
from harness.study import Plan
from harness.study.claims import Claim, Comparison, margin_at
from harness.study.study import cell_text

Word = Literal[
    "contradicted", "no difference beyond the margin", "not testable at this scale", "inconclusive", "not run yet",
    "reproduced",
]  # fmt: skip
ORDER: tuple[Word, ...] = get_args(Word)
"""Order of verdicts in tables, failed claims first."""

Alphas = tuple[float, float]
FIXED: Alphas = (ERROR / 2, ERROR / 2)
"""Half of the error on each side."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome of one claim.

    Attributes:
        effect: left minus right in points (for an inner maximum, the best inner value minus the better end), NaN if
            unknown. low, high: its interval, infinite if unbounded.
        n: seeds of the cells that enter, the fewest and the most. needed: about how many a cell would decide it if the
            effect is as estimated; None if it is decided, unknown, or more than 1,000.
        margin: in points, NaN if there is none.
        reason: why it is not testable or what is missing. remark: what was compared. chosen: the two cells whose
            difference the effect is, where the best of several was looked for; else empty. held: what its two cells
            share of the axes that tell cells apart, in words; empty if the claim says it, or if there are more cells.
    """

    claim: Claim
    word: Word
    effect: float = math.nan
    low: float = -math.inf
    high: float = math.inf
    n: tuple[int, int] = (0, 0)
    needed: int | None = None
    margin: float = math.nan
    reason: str = ""
    remark: str = ""
    chosen: str = ""
    held: str = ""

    @property
    def sentence(self) -> str:
        """The claim in words, and at which values of other axes: `a beats b, at mask ratio 0.6`."""
        return f"{self.claim.sentence}, at {self.held}" if self.held else self.claim.sentence

    @property
    def open(self) -> bool:
        """True if more seeds could decide the claim."""
        return self.word in ("inconclusive", "not run yet")

    @property
    def tested(self) -> bool:
        """True if its cells have values: only then can its verdict be false."""
        return math.isfinite(self.effect)


@dataclass(frozen=True, eq=False)
class Scored:
    """Results of one evaluation of a study, arranged for judging claims.

    Attributes:
        plan: the study at one scale. evaluation: the name of the one that is judged.
        values: float [cells, seeds], all cells of the study, NaN where there is none.
        excluded: reason by number of the excluded cells.
        gain: float [cells], weights of the reference minus the cell from scratch; None without just one such cell.
    """

    plan: Plan
    evaluation: str
    values: Floats
    excluded: Mapping[int, str]
    gain: Floats | None
    model: Additive = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", fit(self.values))


def scored(plan: Plan, runs: pd.DataFrame, evaluation: str = "") -> Scored:
    """Results of one evaluation as a table of cells and seeds: by default the paper's, or else the first one."""
    study = plan.study
    name = evaluation or column_beside(plan, list(dict.fromkeys(runs["evaluation"])))
    numbers = list(range(len(study.cells)))
    left_out = runs[(runs["state"] == "excluded") & (runs["evaluation"] == name)]
    excluded = {int(cell): str(reason) for cell, reason in zip(left_out["cell"], left_out["reason"], strict=True)}
    return Scored(plan, name, matrix(units(runs), name, numbers), excluded, _gain(plan, name, excluded))


def _gain(plan: Plan, name: str, excluded: Mapping[int, str]) -> Floats | None:
    cells = plan.study.cells
    found = {
        cells.index(row.axes)
        for row in plan.rows
        if name in row.evaluations and starts_from_scratch(row.evaluations[name])
    }
    reference = cells.index(plan.study.complete(plan.study.reference))
    if len(found) != 1 or found == {reference} or reference in excluded:
        return None
    weights = np.zeros(len(cells))
    weights[[reference, found.pop()]] = 1.0, -1.0
    return weights


def compared_cells(claim: Claim, data: Scored) -> tuple[int, ...]:
    """Numbers of the cells that a verdict depends on, including those of its margin; empty if untestable."""
    compared = sides(claim, data.plan.study.cells, data.excluded)
    if isinstance(compared, str):
        return ()
    margin = _Margin.of(claim, data)
    return tuple(sorted({*compared.cells, *(np.flatnonzero(margin.weights).tolist() if margin else ())}))


def verdict(claim: Claim, data: Scored, alphas: Alphas = FIXED) -> Verdict:
    """Judge one claim.

    Args:
        alphas: errors of the lower and upper bound; smaller with repeated looks (harness.stats.sequential).
    """
    compared = sides(claim, data.plan.study.cells, data.excluded)
    if isinstance(compared, str):
        return Verdict(claim=claim, word="not testable at this scale", reason=compared)
    margin = _Margin.of(claim, data)
    wanted, held = _kind(claim) != "better", _held(claim, compared, data.plan)
    if margin is None and wanted:
        reason = "no margin is declared for this scale, and no single cell from scratch gives one"
        word: Word = "not testable at this scale"
        return Verdict(claim=claim, word=word, reason=reason, remark=compared.remark, held=held)
    used = list(compared_cells(claim, data))
    n = data.model.n[used]
    plain = Verdict(
        claim=claim, word="inconclusive", n=(int(n.min()), int(n.max())), remark=compared.remark, held=held,
        margin=margin.points(data) if margin else math.nan,
    )  # fmt: skip
    if lacking := int((n == 0).sum()):
        have = "has" if lacking == 1 else "have"
        return replace(plain, word="not run yet", reason=f"{lacking} of its {len(used)} cells {have} no value yet")
    if wanted and not plain.margin > 0:
        return replace(plain, reason="the reference gains nothing over training from scratch, so no share is a margin")
    return _decided(plain, compared, data, margin, alphas)


def _held(claim: Claim, compared: Sides, plan: Plan) -> str:
    """What the two cells of a claim share of the axes that tell cells apart and its sentence does not say."""
    cells = plan.study.cells
    if len(compared.cells) != 2:
        return ""
    one, two = (cells[number] for number in compared.cells)
    shared = {axis: shown(one[axis]) for axis in one if one[axis] == two[axis] and one[axis] is not None}
    told = {text for text in shared.values() if re.search(rf"(?<![\w.]){re.escape(text)}(?!\w|\.\d)", claim.sentence)}
    axes = [axis for axis in naming(pd.DataFrame(cells, dtype=object)) if shared.get(axis, "") not in {"", *told}]
    return ", ".join(f"{axis_label(plan, axis)} {shared[axis]}" for axis in axes)


@dataclass(frozen=True, eq=False)
class _Margin:
    """Margin as a weighted sum of cells plus a constant, so that an estimated margin keeps its uncertainty."""

    weights: Floats
    offset: float

    @classmethod
    def of(cls, claim: Claim, data: Scored) -> _Margin | None:
        """Declared margin, or the study's share of the reference's gain over training from scratch."""
        declared = margin_at(claim, data.plan.scale.name)
        if declared is not None:
            return cls(np.zeros(len(data.values)), declared)
        return None if data.gain is None else cls(data.plan.study.margin_share * data.gain, 0.0)

    def points(self, data: Scored) -> float:
        if not self.weights.any():
            return self.offset
        return float(data.model.contrasts(self.weights[None]).value[0])


def _decided(plain: Verdict, compared: Sides, data: Scored, margin: _Margin | None, alphas: Alphas) -> Verdict:
    none = np.zeros(len(data.values))

    def bound(sign: float) -> Bounds:
        """Bounds of the effect plus `sign` times the margin."""
        shift, offset = (none, 0.0) if margin is None else (sign * margin.weights, sign * margin.offset)
        return bounds(data.model, compared.left, compared.right, shift=shift, offset=offset, alphas=alphas)

    effect = bound(0.0)
    plus, minus = (bound(1.0), bound(-1.0)) if margin else (effect, effect)
    word = _word(plain.claim, effect, plus, minus, has_margin=margin is not None and plain.margin > 0)
    chosen = _chosen(compared, effect.pair, data.plan)
    found = replace(plain, word=word, effect=effect.effect, low=effect.low, high=effect.high, chosen=chosen)
    if not found.open:
        return found
    reason = "one seed shows no spread" if data.model.df == 0 else ""
    needed = _needed(found, effect, plus, minus, has_margin=margin is not None and plain.margin > 0)
    return replace(found, reason=reason, needed=int(needed) if math.isfinite(needed) else None)


def _chosen(compared: Sides, pair: tuple[int, int], plan: Plan) -> str:
    """The best candidate of each side, where there are several and each is one cell."""
    rows = (compared.left[pair[0]], compared.right[pair[1]])
    if len(compared.left) == len(compared.right) == 1 or any(np.count_nonzero(row) != 1 for row in rows):
        return ""
    left, right = (cell_text(plan.study.cells[int(np.flatnonzero(row)[0])]) for row in rows)
    return f"{left} against {right}"


def _word(claim: Claim, effect: Bounds, plus: Bounds, minus: Bounds, *, has_margin: bool) -> Word:
    """Verdict from the bounds of the effect, of the effect plus the margin (plus) and minus the margin (minus)."""
    inside = has_margin and plus.low > 0 and minus.high < 0
    match _kind(claim):
        case "better":
            if effect.low > 0:
                return "reproduced"
            if effect.high < 0:
                return "contradicted"
            return "no difference beyond the margin" if inside else "inconclusive"
        case "no_worse":
            if plus.low > 0:
                return "reproduced"
            return "contradicted" if plus.high < 0 else "inconclusive"
        case "same":
            if inside:
                return "reproduced"
            return "contradicted" if minus.low > 0 or plus.high < 0 else "inconclusive"
        case kind:
            assert_never(kind)


def _kind(claim: Claim) -> Literal["better", "no_worse", "same"]:
    """Kind of comparison; an inner maximum claims that the best inner value is better than both ends."""
    return claim.kind if isinstance(claim, Comparison) else "better"


def _needed(found: Verdict, effect: Bounds, plus: Bounds, minus: Bounds, *, has_margin: bool) -> float:
    """Seeds per cell with which the claim would be decided with probability 1/2; inf if no number suffices."""

    def seeds(side: Bounds) -> float:
        return seeds_to_exclude_zero(side, found.n[0], ERROR / 2)

    both = max(seeds(plus), seeds(minus)) if has_margin and plus.effect > 0 > minus.effect else math.inf
    match _kind(found.claim):
        case "better":
            return min(seeds(effect), both)
        case "no_worse":
            return seeds(plus)
        case "same":
            return both if math.isfinite(both) else seeds(minus if effect.effect > 0 else plus)
        case kind:
            assert_never(kind)
