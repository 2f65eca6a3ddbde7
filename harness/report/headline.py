"""What a study says in a few sentences: what pre-training gained, its claims, and which cells differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from harness.report.claims.listing import DIGITS
from harness.report.claims.verdicts import ORDER, Verdict
from harness.report.collect import axes_of, axis_columns, naming_axes
from harness.report.escape import clean, shown
from harness.report.labels import axis_label, evaluation_label
from harness.report.numbers import between, number, signed
from harness.report.tables.footnotes import reference_text
from harness.report.tables.paper_values import column_beside
from harness.report.tables.table import decimals, from_scratch
from harness.stats.intervals import ERROR
from harness.study import Plan

NAMED = 3
"""Cells that are named; more are counted."""


def headline(plan: Plan, cells: pd.DataFrame, claims: Sequence[Verdict] = ()) -> str:
    """What a study says, in one paragraph of `sentences`."""
    return " ".join(sentences(plan, cells, claims))


def sentences(plan: Plan, cells: pd.DataFrame, claims: Sequence[Verdict] = ()) -> tuple[str, ...]:
    """Sentences on the evaluation that claims refer to, with intervals that hold for all cells together (95 %).

    First what pre-training gains over a control from scratch, or without one the reference's value, then the claims,
    then the other cells.
    """
    name = column_beside(plan, list(dict.fromkeys(cells["evaluation"])))
    part = cells[cells["evaluation"] == name]
    base = part[part["reference"] & (part["n"] > 0)]
    if base.empty:
        return ("The reference has no value yet.", *_unfinished(part))
    digits = decimals(list(part["mean"])) - 1
    scratch = bool(_is_scratch(plan, base).iloc[0])
    words = _Words(reference_text(plan, cells), *_unit(evaluation_label(plan, name)), digits, scratch)
    controls = _controls(plan, part, base.iloc[0])
    # A reference from scratch is the control itself: the other cells are told against it.
    plain = scratch or controls.empty
    first = _value(words, base.iloc[0]) if plain else _gain(words, base.iloc[0], controls.iloc[0])
    noisy = () if plain else _noisier(base.iloc[0], controls.iloc[0])
    return (
        first,
        *noisy,
        *_claims(claims),
        *_others(plan, part, words),
        *_one_seed(plan, part, words),
        *_unfinished(part),
    )


@dataclass(frozen=True)
class _Words:
    """What sentences share: the reference in words, the measure and its unit, and digits after the point.

    scratch: the reference was trained from scratch.
    """

    reference: str
    measure: str
    unit: str
    digits: int
    scratch: bool

    def value(self, found: float) -> str:
        return f"{number(found, self.digits)}{self.unit}"

    def points(self, found: float) -> str:
        return f"{signed(found, self.digits)}{' points' if self.unit else ''}"

    @property
    def named(self) -> str:
        named = f"reference ({self.reference})" if self.reference else "reference"
        return f"{named}, trained from scratch," if self.scratch else named


def _unit(label: str) -> tuple[str, str]:
    """`top-1 accuracy (%)` as the measure and its unit."""
    return (label.removesuffix(" (%)"), " %") if label.endswith(" (%)") else (label, "")


def _value(words: _Words, base: pd.Series) -> str:
    """The value of the reference, where there is no control from scratch."""
    spread = _spread(base["low"], base["high"], base["n"], words.digits)
    return f"The {words.named} has {words.measure} {words.value(base['mean'])} {spread}."


def _gain(words: _Words, base: pd.Series, control: pd.Series) -> str:
    """What pre-training gains over the control from scratch, and whether noise alone may explain it."""
    gain, least = -control["difference"], min(base["n"], control["n"])
    spread = _spread(-control["simultaneous_high"], -control["simultaneous_low"], least, words.digits)
    levels = f"{words.value(base['mean'])} with the {words.named}, {words.value(control['mean'])} from scratch"
    if control["p"] < ERROR:
        verb = "helps" if gain > 0 else "harms"
        return f"Pre-training {verb}: {words.points(gain)} of {words.measure} {spread}, {levels}."
    return f"Whether pre-training helps is open: {words.points(gain)} of {words.measure} {spread}, {levels}."


def _noisier(base: pd.Series, control: pd.Series) -> Iterator[str]:
    """Why an interval of the gain is wider than others beside it: a cell keeps its own variance."""
    own = [
        name for name, cell in (("the reference", base), ("the control from scratch", control)) if cell["own_variance"]
    ]
    if own:
        vary = (
            "they vary more than the other cells and keep their"
            if len(own) > 1
            else "it varies more than the other cells and keeps its"
        )
        yield f"Intervals with {' and '.join(own)} are wider: {vary} own variance."


def _spread(low: float, high: float, seeds: int, digits: int) -> str:
    interval = "" if math.isnan(low) else f"95 % interval {between(low, high, digits)}, "
    return f"({interval}{_seeds(seeds)})"


def _seeds(count: int) -> str:
    return f"{count} seed{'s' if count > 1 else ''}"


def _claims(claims: Sequence[Verdict]) -> Iterator[str]:
    """The only claim with its effect, or how many were judged in which way."""
    counts = Counter(found.word for found in claims)
    if len(claims) > 1:
        yield f"Claims: {', '.join(f'{counts[word]} {word}' for word in reversed(ORDER) if counts[word])}."
    elif claims:
        found = claims[0]
        interval = between(found.low, found.high, DIGITS)
        effect = f" ({signed(found.effect, DIGITS)}, {interval})" if math.isfinite(found.low) else ""
        yield f"{found.word.capitalize()}: {clean(found.sentence)}{effect}."


def _unfinished(part: pd.DataFrame) -> Iterator[str]:
    done, planned = int(part["n"].sum()), int(part["n_planned"].sum())
    if done < planned:
        yield f"Unfinished: {done} of {planned} values are there."


def _one_seed(plan: Plan, part: pd.DataFrame, words: _Words) -> Iterator[str]:
    """Which cell is the best so far where one seed shows no noise, and what a verdict takes."""
    if part["n"].max() > 1:
        return
    best = part.sort_values("mean", ascending=False, kind="stable").iloc[0]
    where = "the reference" if best["reference"] else _where(plan, best, naming_axes(part))
    so_far = f"Best so far is {where} with {words.value(best['mean'])}. " if (part["n"] > 0).sum() > 1 else ""
    yield f"{so_far}One seed shows no noise: any verdict takes more (--seeds 5)."


def _others(plan: Plan, part: pd.DataFrame, words: _Words) -> Iterator[str]:
    """Which other cells are better or worse than the reference, and how many cannot be told from it."""
    others = part[~part["reference"] & ~_is_scratch(plan, part) & (part["n"] > 0) & part["p"].notna()]
    clear, names = others[others["p"] < ERROR], naming_axes(part)
    for word, found in (("Better", clear[clear["difference"] > 0]), ("Worse", clear[clear["difference"] < 0])):
        if len(found):
            order = found.reindex(found["difference"].abs().sort_values(ascending=False).index)
            named = [_cell(plan, cell, names, words.digits) for _, cell in order.head(NAMED).iterrows()]
            more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
            yield f"{word} than the reference: {'; '.join(named)}{more}."
    if open_ones := len(others) - len(clear):
        count = "one" if open_ones == 1 else f"{open_ones}"
        whole = f"{count} other cell{'s' * (open_ones > 1)}"
        if len(clear):
            yield f"{whole[0].upper()}{whole[1:]} cannot be told from it."
        else:
            largest = float(others[["simultaneous_low", "simultaneous_high"]].abs().to_numpy().max())
            most = f"{number(largest, words.digits)}{' points' if words.unit else ''}"
            yield (
                f"The {whole} cannot be told from the reference: a difference of up to {most} either way is still "
                "possible."
            )


def _cell(plan: Plan, cell: pd.Series, names: Sequence[str], digits: int) -> str:
    """A cell by what it changes in the reference, with its difference and interval."""
    interval = between(cell["simultaneous_low"], cell["simultaneous_high"], digits)
    return f"{_where(plan, cell, names)} by {signed(cell['difference'], digits)} ({interval})"


def _where(plan: Plan, cell: pd.Series, names: Sequence[str]) -> str:
    """A cell by what it changes in the reference."""
    columns = axis_columns(plan.study.grid.axes)
    point = {columns[axis]: value for axis, value in plan.study.complete(plan.study.reference).items()}
    changed = [(name, cell[name]) for name in names if cell[name] != point[name] and cell[name] is not None]
    return ", ".join(f"{axis_label(plan, name)} {shown(value)}" for name, value in changed)


def _controls(plan: Plan, part: pd.DataFrame, base: pd.Series) -> pd.DataFrame:
    """Measured controls from scratch, first the one that shares most axes with the reference, such as its backbone."""
    found = part[_is_scratch(plan, part) & (part["n"] > 0) & part["difference"].notna()]
    shared = found[axes_of(part)].eq(base[axes_of(part)]).sum(axis=1)
    return found.reindex(shared.sort_values(ascending=False, kind="stable").index)


def _is_scratch(plan: Plan, part: pd.DataFrame) -> pd.Series[bool]:
    scratch = from_scratch(plan)
    points = part[axes_of(part)].itertuples(index=False, name=None)
    return pd.Series([point in scratch for point in points], index=part.index, dtype=bool)
