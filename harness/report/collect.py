"""From a plan and a store to a frame: one row for each cell, seed and evaluation, none left out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.report.escape import clean, shorten, shown
from harness.spec import Evaluation, FineTune, Scalar, Scratch, key, pretraining, upstreams
from harness.store import STATES as STATES_OF_RUNS
from harness.store import State, StateName, Store
from harness.store.states import failed_upstream
from harness.study import Plan, Row

STATES = (*STATES_OF_RUNS, "excluded")
"""States of a row: those of its evaluation, or excluded: its cell cannot run."""

Standings = Mapping[str, tuple[StateName, str]]
"""State and reason by key of a run, as its executor sees them."""

STAGES = {"pretrain": "pre-training", "finetune": "fine-tuning"}

PROVENANCE = (
    "commit", "device", "torch", "timm", "harness", "threads", "code", "numpy", "python", "torchvision", "processor",
)  # fmt: skip
"""Facts that should be equal in all runs of one table. code: digest of the modules that determine numbers."""

REASON_LENGTH = 240

_RUN_COLUMNS = {
    "key": "object", "seconds": "float64", "cpu_seconds": "float64", **dict.fromkeys(PROVENANCE, "object"),
    "threads": "Int64", "host": "object", "started": "object",
}  # fmt: skip
_LEADING = {"evaluation": "object", "state": "object", "reason": "object", "value": "float64"}
_TRAILING = _RUN_COLUMNS | {f"pretrain_{name}": kind for name, kind in _RUN_COLUMNS.items()}
_OF_CELLS = (
    "n", "n_planned", "mean", "sd", "low", "high", "values", "reference", "difference", "difference_low",
    "difference_high", "simultaneous_low", "simultaneous_high", "p", "own_variance", "best", "paired", "by_seed",
    "residual_sd", "df", "paper", "paper_trust", "paper_unverified", "paper_source", "paper_protocol", "paper_differs",
    "paper_unknown", "paper_delta", *STATES,
)  # fmt: skip
_RESERVED = frozenset({"cell", "seed", *_LEADING, *_TRAILING, *_OF_CELLS})


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Cells that share their pre-trainings.

    axes: of the first of these cells. keys: of the pre-trainings, in the order of seeds.
    """

    axes: dict[str, Scalar]
    keys: tuple[str, ...]


def axis_columns(names: Sequence[str]) -> dict[str, str]:
    """The column of each axis: its own name, or `axis.<name>` where the report has such a column already."""
    columns = {}
    for name in names:
        column = name
        while column in _RESERVED or column.startswith("metric."):
            column = f"axis.{column}"
        columns[name] = column
    return columns


def runs_frame(plan: Plan, store: Store, standings: Standings | None = None) -> pd.DataFrame:
    """A row for each cell, seed and evaluation.

    Where runs stand is read from the store's files, unless `standings` says so.

    Columns: `cell` (its number in the study), the axes (None where an axis does not apply), seed, evaluation,
    state (one of STATES), reason (why there is no value), value (the metric that tables show, NaN unless
    done), `metric.<name>` for every metric of the results, then key, seconds, cpu_seconds and provenance of the
    evaluation, and the same with the prefix `pretrain_` of the pre-training that it starts from. A commit of
    a changed working tree ends in `-dirty`.

    An excluded cell has a row for every evaluation of the plan; if the plan has none at all, one without a
    name.
    """
    snapshot = _Snapshot(plan, store, standings or {})
    numbers = {tuple(cell.values()): number for number, cell in enumerate(plan.study.cells)}
    columns = axis_columns(plan.study.grid.axes)
    names = plan.columns() or ("",)
    found: list[dict[str, Any]] = []
    for row in plan.rows:
        place: dict[str, Any] = {"cell": numbers[tuple(row.axes.values())], "seed": row.seed}
        place |= {columns[axis]: value for axis, value in row.axes.items()}
        found += [place | record for record in _records(row, names, snapshot)]
    return _frame(found, tuple(columns.values()))


def axes_of(frame: pd.DataFrame) -> list[str]:
    """The axis columns of a frame of runs or cells: those between `cell` and `seed` or `evaluation`."""
    names = list(frame.columns)
    end = names.index("seed") if "seed" in names else names.index("evaluation")
    return names[1:end]


def naming_axes(cells: pd.DataFrame) -> list[str]:
    """The axes that tell cells apart: all that vary, or the first of them alone if it is a word of its own for each."""
    return naming(cells.drop_duplicates("cell")[axes_of(cells)])


def naming(points: pd.DataFrame) -> list[str]:
    """`naming_axes` of a frame with a row for each cell and no other columns than axes."""
    axes = list(points.columns)
    varying = [axis for axis in axes if points[axis].map(shown).nunique() > 1] or axes
    if varying and len(points) > 1:
        words = points[varying[0]]
        if words.nunique() == len(points) and all(isinstance(word, str) for word in words):
            return varying[:1]
    return varying


def starts_from_scratch(run: Evaluation) -> bool:
    """True if no pre-training is behind an evaluation."""
    start = run.start.start if isinstance(run.start, FineTune) else run.start  # an analysis starts from a fine-tuning
    return isinstance(start, Scratch)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as dicts by column name."""
    found = [{str(name): value for name, value in record.items()} for record in frame.to_dict("records")]
    return found or [{} for _ in frame.index]  # before pandas 3 rows without columns are no rows


def arms(plan: Plan) -> tuple[Arm, ...]:
    """The distinct sets of pre-trainings of a plan, in the order of its cells."""
    cells: dict[tuple[tuple[Scalar, ...], str], tuple[Row, list[str]]] = {}
    for row in plan.rows:
        for name, evaluation in row.evaluations.items():
            if (first := pretraining(evaluation)) is not None:
                _, keys = cells.setdefault((tuple(row.axes.values()), name), (row, []))
                keys.append(key(first))
    found: dict[tuple[str, ...], Arm] = {}
    for row, keys in cells.values():
        distinct = tuple(dict.fromkeys(keys))
        found.setdefault(distinct, Arm(axes=row.axes, keys=distinct))
    return tuple(found.values())


class _Snapshot:
    """The states and environments of all runs of a plan, each read once."""

    def __init__(self, plan: Plan, store: Store, standings: Standings) -> None:
        self.states, self.standings = store.states(plan.runs()), standings
        done = [name for name, state in self.states.items() if state.word == "done"]
        self._provenance = {name: _provenance(store.environment(name)) for name in done}

    def columns(self, name: str) -> dict[str, Any]:
        result = self.states[name].result
        spent = {"seconds": result.seconds, "cpu_seconds": result.cpu_seconds} if result else {}
        return {"key": name} | spent | self._provenance.get(name, {})


def _provenance(environment: object) -> dict[str, Any]:
    """The columns that an environment fills; whatever it lacks stays empty."""
    found = environment if isinstance(environment, dict) else {}
    versions = found.get("versions")
    texts = {**(versions if isinstance(versions, dict) else {}), **found}
    columns: dict[str, Any] = {
        name: clean(str(texts[name]))
        for name in (*PROVENANCE, "host", "started")
        if texts.get(name) and name != "threads"
    }
    if columns.get("commit") and found.get("dirty"):
        columns["commit"] += "-dirty"
    if isinstance(threads := found.get("threads"), int):
        columns["threads"] = threads
    return columns


def _records(row: Row, names: Sequence[str], snapshot: _Snapshot) -> Iterator[dict[str, Any]]:
    if row.excluded or not row.evaluations:
        yield from ({"evaluation": name, "state": "excluded", "reason": _brief(row.excluded)} for name in names)
        return
    for name, evaluation in row.evaluations.items():
        yield {"evaluation": name, **_record(evaluation, snapshot)}


def _record(evaluation: Evaluation, snapshot: _Snapshot) -> dict[str, Any]:
    first = pretraining(evaluation)
    before = snapshot.columns(key(first)) if first else {}
    state = snapshot.states[key(evaluation)]
    word, reason = _standing(evaluation, snapshot.states)
    told, why = snapshot.standings.get(key(evaluation), (word, ""))
    if told != word and state.word != "done":  # a result may have come since it was told
        word, reason = told, why
    metrics = state.result.metrics if state.result else {}
    value = metrics.get(evaluation.shown_metric, math.nan)
    if word == "done" and not math.isfinite(value):
        value, reason = math.nan, f"its result has no finite {evaluation.shown_metric}"
    return {
        "state": word,
        "reason": _brief(reason),
        "value": value,
        **{f"metric.{clean(name)}": number for name, number in metrics.items()},
        **snapshot.columns(key(evaluation)),
        **{f"pretrain_{name}": found for name, found in before.items()},
    }


def _standing(evaluation: Evaluation, states: Mapping[str, State]) -> tuple[str, str]:
    """State of an evaluation by the store's files, and the reason why it is not done."""
    state, before = states[key(evaluation)], upstreams(evaluation)
    if state.word == "failed":
        return "failed", _last_line(state.error)
    if failed := failed_upstream(evaluation, lambda name: states[name].word):
        return "blocked", f"its {STAGES[failed.kind]} failed: {_last_line(states[key(failed)].error)}"
    if state.word == "done" or not before or states[key(before[-1])].word == "done":
        return state.word, ""
    for first in before:
        if (word := states[key(first)].word) not in ("done", "missing"):
            return state.word, f"its {STAGES[first.kind]} is {word}"
    return state.word, ""


def _last_line(error: str) -> str:
    lines = [line for line in map(clean, error.splitlines()) if line]
    return lines[-1] if lines else "no traceback was kept"


def _brief(text: str) -> str:
    return shorten(clean(text), REASON_LENGTH)


def _frame(rows: Sequence[dict[str, Any]], axes: Sequence[str]) -> pd.DataFrame:
    metrics = dict.fromkeys(name for record in rows for name in record if name.startswith("metric."))
    kinds: dict[str, str] = {"cell": "int64", **dict.fromkeys(axes, "object"), "seed": "int64", **_LEADING}
    kinds |= dict.fromkeys(metrics, "float64") | _TRAILING
    empty = {"object": "", "float64": math.nan, "Int64": None}
    columns = {
        # Explicit types: left to guess, pandas would turn the None of an axis into NaN, and 4 into 4.0.
        name: pd.Series([record.get(name, empty.get(kind)) for record in rows], dtype=kind)
        for name, kind in kinds.items()
    }
    return pd.DataFrame(columns)
