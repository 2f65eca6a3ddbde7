"""What a study says in two sentences: what pre-training gained, and which cells differ from the reference."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from harness.report.collect import axes_of
from harness.report.escape import shown
from harness.report.labels import axis_label, evaluation_label
from harness.report.tables.paper_values import column_beside
from harness.report.tables.table import LEVEL, decimals, from_scratch
from harness.study import Plan

NAMED = 3
"""Cells that are named; more are counted."""


def headline(plan: Plan, cells: pd.DataFrame) -> str:
    """Sentences on the evaluation that claims refer to, with intervals that hold for all cells together (95 %)."""
    name = column_beside(plan, list(dict.fromkeys(cells["evaluation"])))
    part = cells[cells["evaluation"] == name]
    base = part[part["reference"] & (part["n"] > 0)]
    if base.empty:
        return "The reference has no value yet."
    digits = decimals(list(part["mean"])) - 1
    told = [_reference(plan, name, base.iloc[0], digits), *_scratch(plan, part, digits), *_others(plan, part, digits)]
    return " ".join(told)


def _reference(plan: Plan, name: str, base: pd.Series, digits: int) -> str:
    label = evaluation_label(plan, name).removesuffix(" (%)")
    spread = "" if math.isnan(base["low"]) else f" (95 % interval {_range(base['low'], base['high'], digits)})"
    return f"The reference has {label} {base['mean']:.{digits}f}{spread}, n = {base['n']}."


def _scratch(plan: Plan, part: pd.DataFrame, digits: int) -> Iterator[str]:
    """What pre-training gains over each control from scratch."""
    for _, cell in part[_is_scratch(plan, part)].iterrows():
        if not math.isnan(cell["difference"]):
            low, high = -cell["simultaneous_high"], -cell["simultaneous_low"]
            between = "" if math.isnan(low) else f" ({_range(low, high, digits)})"
            doubt = "" if cell["p"] < LEVEL else ", which noise alone may explain"
            yield f"Over training from scratch it gains {-cell['difference']:+.{digits}f}{between}{doubt}."


def _others(plan: Plan, part: pd.DataFrame, digits: int) -> Iterator[str]:
    """Which other cells are better or worse than the reference, and how many are not told from it."""
    others = part[~part["reference"] & ~_is_scratch(plan, part) & (part["n"] > 0) & part["p"].notna()]
    if others.empty:
        return
    clear = others[others["p"] < LEVEL]
    for word, found in (("better", clear[clear["difference"] > 0]), ("worse", clear[clear["difference"] < 0])):
        if len(found):
            order = found.reindex(found["difference"].abs().sort_values(ascending=False).index)
            named = [_cell(plan, cell, digits) for _, cell in order.head(NAMED).iterrows()]
            more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
            yield f"{word.capitalize()} than it: {'; '.join(named)}{more}."
    open_ones = len(others) - len(clear)
    if open_ones == len(others):
        largest = float(others[["simultaneous_low", "simultaneous_high"]].abs().to_numpy().max())
        yield f"None of the {len(others)} other cells is told from it; one may differ by {largest:.{digits}f}."
    elif open_ones:
        yield f"{open_ones} other cell{'s are' if open_ones > 1 else ' is'} not told from it."


def _cell(plan: Plan, cell: pd.Series, digits: int) -> str:
    """A cell by what it changes in the reference, with its difference and interval."""
    reference = plan.study.complete(plan.study.reference)
    columns = [name for name in cell.index if name in reference or name.startswith("axis.")]
    changed = {name: cell[name] for name in columns if cell[name] != reference.get(name.removeprefix("axis."))}
    where = ", ".join(
        f"{axis_label(plan, name)} {shown(value)}" for name, value in changed.items() if value is not None
    )
    between = _range(cell["simultaneous_low"], cell["simultaneous_high"], digits)
    return f"{where} by {cell['difference']:+.{digits}f} ({between})".replace("-", "−")


def _is_scratch(plan: Plan, part: pd.DataFrame) -> pd.Series[bool]:
    scratch = from_scratch(plan)
    points = part[axes_of(part)].itertuples(index=False, name=None)
    return pd.Series([point in scratch for point in points], index=part.index, dtype=bool)


def _range(low: float, high: float, digits: int) -> str:
    return f"{low:.{digits}f} to {high:.{digits}f}".replace("-", "−")
