"""Two results of one study: which cells changed by more than noise."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from harness.report.collect import PROVENANCE, axes_of, runs_frame
from harness.report.notes import mixtures
from harness.report.tables import csv_text
from harness.spec import HarnessError
from harness.store import Store
from harness.study import Plan

LEVEL = 0.05
"""Share of comparisons without any true change in which at least one cell is called changed, at most."""

UNEQUAL = 0.01
"""Bartlett's p below which cells are taken to differ in their spread, and each is judged by its own."""

_NEEDED = {"cell", "seed", "evaluation", "state", "value", "key", "pretrain_key", *PROVENANCE}

Verdict = Literal["changed", "within noise", "identical", "one seed", "only before", "only after", "no value"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One cell and evaluation in both results.

    axes: its values as text. n: seeds that have a value in both; before, after: means over them. difference: after
    minus before, low to high its 95 % interval (for this cell alone). p: adjusted for the number of cells. other_spec:
    whether the runs have other keys, so that a change may be meant. What does not exist is NaN.
    """

    axes: tuple[str, ...]
    evaluation: str
    n: int
    before: float = math.nan
    after: float = math.nan
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    verdict: Verdict
    other_spec: bool = False


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All cells of two results, in the order of the first. notes: how they were judged, and where they come from."""

    axes: tuple[str, ...]
    changes: tuple[Change, ...]
    notes: tuple[str, ...]


def read_runs(path: Path, plan: Plan | None = None) -> pd.DataFrame:
    """A result as a frame of runs whose columns but `value` hold text.

    Args:
        path: a runs.csv, a folder that holds one, or, given a plan, a store.

    Raises:
        HarnessError: it is none of these, or the table lacks a column.
    """
    file = path / "runs.csv" if path.is_dir() else path
    if file.is_file():
        text = file.read_text(encoding="utf-8", errors="replace")
    elif path.is_dir() and plan is not None:
        text = csv_text(runs_frame(plan, Store(path)))
    elif path.is_dir():
        raise HarnessError(f"{path} holds no runs.csv; if it is a store, name the study with --study")
    else:
        raise HarnessError(f"there is no {path}; name a runs.csv, a folder with one, or a store")
    try:
        frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError):
        raise HarnessError(f"{file} is no table of runs") from None
    if missing := sorted(_NEEDED - set(frame.columns)):
        raise HarnessError(f"{file} is no table of runs: it lacks the column {missing[0]}")
    return frame.assign(value=pd.to_numeric(frame["value"], errors="coerce"))


def compare(before: pd.DataFrame, after: pd.DataFrame) -> Comparison:
    """Pair two frames of `read_runs` by cell, evaluation and seed, and judge every cell.

    The differences of a cell's pairs are its noise. Their spread is pooled over all cells that changed at all, or, if
    Bartlett's test finds spreads unequal, each cell's own. Two-sided t tests, adjusted by Holm's method.

    Raises:
        HarnessError: the results have other axes, or share no cell.
    """
    axes = axes_of(before)
    if set(axes) != set(axes_of(after)):
        raise HarnessError(f"the results have other axes: {', '.join(axes)} and {', '.join(axes_of(after))}")
    identity = [*axes, "evaluation"]
    groups = {tuple(map(str, name)): part for name, part in _pairs(before, after, identity).groupby(identity)}
    order = pd.concat([before[identity], after[identity]]).drop_duplicates().itertuples(index=False, name=None)
    parts = [(name, groups[name]) for name in order if name in groups]
    if not any(part["value_x"].notna().any() and part["value_y"].notna().any() for _, part in parts):
        raise HarnessError("no cell has a value in both results")
    pairs = [(part["value_y"] - part["value_x"]).dropna().to_numpy() for _, part in parts]
    spread = _Spread(pairs)
    found = [_change(name, part, spread) for name, part in parts]
    return Comparison(
        axes=tuple(axes),
        changes=tuple(_adjusted(found)),
        notes=(*spread.notes, *_provenance(before, after)),
    )


def mixed(before: pd.DataFrame, after: pd.DataFrame) -> tuple[str, ...]:
    """A sentence for each commit, device or version that one of the results mixes."""
    return tuple(
        f"{name}: {text}" for name, frame in (("before", before), ("after", after)) for text in mixtures(frame)
    )


def _pairs(before: pd.DataFrame, after: pd.DataFrame, identity: list[str]) -> pd.DataFrame:
    columns = [*identity, "seed", "value", "key"]
    one, two = (frame.loc[frame["state"] != "excluded", columns] for frame in (before, after))
    for name, frame in (("first", one), ("second", two)):
        if frame.duplicated([*identity, "seed"]).any():
            raise HarnessError(f"the {name} result has a cell and seed twice")
    return one.merge(two, on=[*identity, "seed"], how="outer", sort=False)


class _Spread:
    """The noise of differences: pooled over cells, or each cell's own."""

    def __init__(self, pairs: Sequence[np.ndarray]) -> None:
        moved = [values for values in pairs if len(values) > 1 and values.any()]
        variances = [float(values.var(ddof=1)) for values in moved]
        self.degrees = sum(len(values) - 1 for values in moved)
        total = sum(found * (len(values) - 1) for found, values in zip(variances, moved, strict=True))
        self.variance = total / self.degrees if self.degrees else math.nan
        noisy = [values for values, found in zip(moved, variances, strict=True) if found > 0]
        self.unequal = len(noisy) > 1 and bool(stats.bartlett(*noisy).pvalue < UNEQUAL)

    def of(self, values: np.ndarray) -> tuple[float, int]:
        """Variance and degrees of freedom for one cell."""
        if self.unequal and len(values) > 1:
            return float(values.var(ddof=1)), len(values) - 1
        return (self.variance, self.degrees) if not self.unequal else (math.nan, 0)

    @property
    def notes(self) -> tuple[str, ...]:
        """How cells were judged."""
        if not self.degrees:
            return ("No cell has two seeds in both results that differ: there is no noise to judge by.",)
        if self.unequal:
            spread = "Cells differ in their spread (Bartlett's test), so each is judged by its own."
        else:
            root = math.sqrt(self.variance)
            spread = (
                f"Noise of a difference between equal seeds: sd {root:.3g}, pooled, {self.degrees} degrees of freedom."
            )
        return (spread, "Paired by seed; two-sided t tests; p adjusted for the number of cells by Holm's method.")


def _change(name: tuple[str, ...], part: pd.DataFrame, spread: _Spread) -> Change:
    *axes, evaluation = name
    both = part[part["value_x"].notna() & part["value_y"].notna()]
    keys = part[["key_x", "key_y"]].dropna()
    plain = Change(
        axes=tuple(axes), evaluation=evaluation, n=len(both), verdict="no value",
        other_spec=bool((keys["key_x"] != keys["key_y"]).any()),
    )  # fmt: skip
    if both.empty:
        there = [bool(part[column].notna().any()) for column in ("value_x", "value_y")]
        verdict: Verdict = "no value" if there[0] == there[1] else "only before" if there[0] else "only after"
        return _with(plain, before=float(part["value_x"].mean()), after=float(part["value_y"].mean()), verdict=verdict)
    values = (both["value_y"] - both["value_x"]).to_numpy()
    found = _with(plain, before=float(both["value_x"].mean()), after=float(both["value_y"].mean()))
    return _judged(found, values, *spread.of(values))


def _judged(change: Change, values: np.ndarray, variance: float, degrees: int) -> Change:
    mean = float(values.mean())
    if not values.any():
        return _with(change, difference=0.0, verdict="identical")
    if not degrees:
        return _with(change, difference=mean, verdict="one seed")
    error = math.sqrt(variance / len(values))
    half = float(stats.t.ppf(1 - LEVEL / 2, degrees)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, degrees)) if error else float(mean == 0)
    return _with(change, difference=mean, low=mean - half, high=mean + half, p=p, verdict="within noise")


def _adjusted(changes: Sequence[Change]) -> list[Change]:
    """With Holm's p values, and the verdicts that follow from them."""
    tested = sorted((change.p, place) for place, change in enumerate(changes) if not math.isnan(change.p))
    found, largest = list(changes), 0.0
    for rank, (p, place) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - rank)))
        verdict: Verdict = "changed" if largest < LEVEL else "within noise"
        found[place] = _with(found[place], p=largest, verdict=verdict)
    return found


def _with(change: Change, **values: object) -> Change:
    return Change(**{**change.__dict__, **values})


def _provenance(before: pd.DataFrame, after: pd.DataFrame) -> list[str]:
    notes = list(mixed(before, after))
    for name in PROVENANCE:
        one, two = (
            ", ".join(dict.fromkeys(value or "unknown" for value in frame.loc[frame["state"] == "done", name]))
            for frame in (before, after)
        )
        if one != two:
            notes.append(f"{name}: before {one}; after {two}.")
    return notes
