"""Provenance of each value, and differences of its recipe from the reference's: compact, for the page's script."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from harness.report.collect import PROVENANCE, records
from harness.report.escape import clean, shorten
from harness.report.labels import evaluation_label
from harness.spec import Evaluation
from harness.spec.differences import Difference, differences
from harness.study import Plan

PLACE = (*PROVENANCE, "host")
"""Columns that say where a run was computed; their values are equal for many runs, so the page has them once."""

_VALUE_LENGTH = 160


class _Distinct:
    """Values in the order of their first appearance; each is written once and named by its place."""

    def __init__(self) -> None:
        self._places: dict[Hashable, int] = {}

    def place(self, value: Hashable) -> int:
        return self._places.setdefault(value, len(self._places))

    def all(self) -> list[Any]:
        return list(self._places)


def details(plan: Plan, runs: pd.DataFrame) -> dict[str, Any]:
    """For each cell the values behind it, in the order of `runs`.

    values: by number of the cell, lists of seed, evaluation, state, value (None without one), reason, run,
    pre-training (-1 without one) and differences. The last six are places in the lists of texts, texts, runs, runs and
    differences; a run is its key, seconds, start and its place in `places`, whose columns are `columns`. A list of
    differences holds path, the reference's value and this one's; it is None where there is no reference to compare
    with.
    """
    texts, places, found, diffs = _Distinct(), _Distinct(), _Distinct(), _Distinct()
    recipes = _differences(plan)
    names = {name: evaluation_label(plan, name) for name in runs["evaluation"].unique()}
    values: dict[int, list[list[Any]]] = {}
    for record in records(runs):
        name = (record["cell"], record["seed"], record["evaluation"])
        # In the order that the page's script reads, as the docstring lists it.
        line = [
            record["seed"],
            texts.place(names[record["evaluation"]]),
            texts.place(record["state"]),
            None if math.isnan(record["value"]) else record["value"],  # JSON has no NaN
            texts.place(record["reason"]),
            _run(record, "", places, found),
            _run(record, "pretrain_", places, found),
            diffs.place(recipes.get(name)),
        ]
        values.setdefault(record["cell"], []).append(line)
    return {
        "columns": PLACE,
        "texts": texts.all(),
        "places": places.all(),
        "runs": found.all(),
        "differences": diffs.all(),
        "values": values,
    }


def _run(record: Mapping[str, Any], prefix: str, places: _Distinct, found: _Distinct) -> int:
    """The place of a record's run, or -1 where it has none."""
    if not record[f"{prefix}key"]:
        return -1
    where = tuple("" if pd.isna(value := record[f"{prefix}{name}"]) else str(value) for name in PLACE)
    seconds = record[f"{prefix}seconds"]
    return found.place(
        (
            record[f"{prefix}key"],
            None if math.isnan(seconds) else round(seconds, 1),
            record[f"{prefix}started"],
            places.place(where),
        )
    )


def _differences(plan: Plan) -> dict[tuple[int, int, str], tuple[tuple[str, str, str], ...]]:
    """By cell, seed and evaluation: path, the reference's value, and this one's."""
    study = plan.study
    # A reference may leave axes out, which cells have with None.
    wanted = study.complete(study.reference)
    reference = {
        (row.seed, name): evaluation
        for row in plan.rows
        if row.axes == wanted and not row.repeat
        for name, evaluation in row.evaluations.items()
    }
    numbers = {tuple(cell.values()): number for number, cell in enumerate(study.cells)}
    return {
        (numbers[tuple(row.axes.values())], row.seed, name): _shown(base, evaluation)
        for row in plan.rows
        if not row.repeat  # repeats differ from it in their own seed alone
        for name, evaluation in row.evaluations.items()
        if (base := reference.get((row.seed, name))) is not None
    }


def _shown(reference: Evaluation, evaluation: Evaluation) -> tuple[tuple[str, str, str], ...]:
    found = _found(reference, evaluation)
    return tuple((_text(item.path), _value(item.left), _value(item.right)) for item in found)


def _found(reference: Evaluation, evaluation: Evaluation) -> list[Difference]:
    # Two kinds of evaluation have other fields, which no comparison one by one could pair.
    if type(reference) is not type(evaluation):
        return [Difference("the evaluation", type(reference).__name__, type(evaluation).__name__)]
    return differences(reference, evaluation)


def _value(value: object) -> str:
    return _text(value if isinstance(value, str) else repr(value))


def _text(text: str) -> str:
    return shorten(clean(text), _VALUE_LENGTH)
