"""Two results of one study: which cells changed by more than noise."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pandas as pd

from harness.report.collect import PROVENANCE, axes_of, runs_frame
from harness.report.tables.footnotes import mixtures
from harness.report.tables.table import csv_text
from harness.spec import HarnessError
from harness.stats.additive import levels
from harness.stats.intervals import ERROR, Estimate, Floats, t_quantile, tails
from harness.stats.simultaneous import holm
from harness.store import Store
from harness.study import Plan

_NEEDED = {"cell", "seed", "evaluation", "state", "value", "key", "pretrain_key"}

Verdict = Literal["changed", "within noise", "identical", "one seed", "only before", "only after", "no value"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One cell and evaluation in both results.

    axes: its values as text. n: pre-trainings, or seeds without one, that have a value in both. before, after: means
    over them. difference: after minus before, low to high its 95 % interval (for this cell alone). p: adjusted for the
    number of cells. other_spec: whether the runs have other keys, so that a change may be meant. What does not exist is
    NaN.
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
    origins = [f"{prefix}{name}" for prefix in ("", "pretrain_") for name in PROVENANCE]
    unknown = {name: "" for name in origins if name not in frame}  # an earlier version wrote the table
    return frame.assign(value=pd.to_numeric(frame["value"], errors="coerce"), **unknown)


def compare(before: pd.DataFrame, after: pd.DataFrame) -> Comparison:
    """Pair two frames of `read_runs` by cell, evaluation and seed, and judge every cell.

    What a cell's pairs differ by is its noise. The differences of one evaluation are fitted by the table's own model,
    cell + seed + residual, with the table's rule for whose variance a cell takes (harness.stats.additive). Two-sided t
    tests of no change, adjusted by Holm's method for all cells and evaluations. The unit is the pre-training: pairs
    that start from the same one are averaged. Cells that are equal in every pair are not part of the noise.

    Raises:
        HarnessError: the results have different axes, or share no cell.
    """
    axes = axes_of(before)
    if set(axes) != set(axes_of(after)):
        theirs = ", ".join(axes_of(after))
        raise HarnessError(f"the results have different axes: ({', '.join(axes)}) and ({theirs})")
    pairs = _pairs(*(_named(frame, axes) for frame in (before, after)))
    if pairs["difference"].isna().all():
        raise HarnessError("no cell has a value in both results")
    groups = {cast("tuple[str, ...]", name): part for name, part in pairs.groupby("name", sort=False)}
    order = dict.fromkeys([*_named(before, axes)["name"], *_named(after, axes)["name"]])
    plain = [_change(name, groups[name]) for name in order if name in groups]
    changes, notes = _judged(plain, groups)
    return Comparison(axes=tuple(axes), changes=changes, notes=(*notes, *_provenance(before, after)))


def mixed(before: pd.DataFrame, after: pd.DataFrame) -> tuple[str, ...]:
    """A sentence for each commit, device or version that one of the results mixes."""
    return tuple(
        f"{name}: {text}" for name, frame in (("before", before), ("after", after)) for text in mixtures(frame)
    )


def of_other_code(before: pd.DataFrame, after: pd.DataFrame) -> tuple[str, ...]:
    """A sentence for each of commit and code that the two results do not share."""
    return tuple(note for note in _differing(before, after) if note.startswith(("commit:", "code:")))


def _named(frame: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """What is compared; a column `name`, a cell's axes and evaluation, stands for axes, which may have any name."""
    names = frame[[*axes, "evaluation"]].astype(str).itertuples(index=False, name=None)
    columns = frame[["state", "seed", "value", "key", "pretrain_key"]]
    return columns.assign(name=pd.Series(list(names), index=frame.index, dtype=object))


def _pairs(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    one, two = (frame[frame["state"] != "excluded"].drop(columns="state") for frame in (before, after))
    for which, frame in (("first", one), ("second", two)):
        if frame.duplicated(["name", "seed", "key"]).any():
            raise HarnessError(f"the {which} result has a cell and seed twice")
    # Several evaluations of one pre-training have its cell and seed: they are paired in their order.
    one, two = (frame.assign(repeat=frame.groupby(["name", "seed"], dropna=False).cumcount()) for frame in (one, two))
    found = one.merge(two, on=["name", "seed", "repeat"], how="outer", sort=False)
    start = found["pretrain_key_x"].fillna("")
    return found.assign(difference=found["value_y"] - found["value_x"], unit=start.where(start != "", found["seed"]))


def _change(name: tuple[str, ...], part: pd.DataFrame) -> Change:
    """A cell before it is judged; its verdict is final only where nothing can be compared."""
    *axes, evaluation = name
    both, keys = part[part["difference"].notna()], part[["key_x", "key_y"]].dropna()
    means = (both if len(both) else part)[["value_x", "value_y"]].mean()
    there = part[["value_x", "value_y"]].notna().any()
    verdict: Verdict = "only before" if there["value_x"] else "only after"
    if there["value_x"] == there["value_y"]:
        verdict = "identical" if len(both) else "no value"
    return Change(
        axes=tuple(axes), evaluation=evaluation, n=both["unit"].nunique(), verdict=verdict,
        before=float(means["value_x"]), after=float(means["value_y"]),
        difference=float(both.groupby("unit")["difference"].mean().mean()) if len(both) else math.nan,
        other_spec=bool((keys["key_x"] != keys["key_y"]).any()),
    )  # fmt: skip


def _judged(
    changes: Sequence[Change], groups: Mapping[tuple[str, ...], pd.DataFrame]
) -> tuple[tuple[Change, ...], list[str]]:
    """The changes with intervals, p-values and verdicts, and how they were found."""
    found, notes = list(changes), []
    moved = [place for place, change in enumerate(found) if change.n and _differences(change, groups).any()]
    tested: list[int] = []
    for name in dict.fromkeys(found[place].evaluation for place in moved):
        places = [place for place in moved if found[place].evaluation == name]
        rows = pd.DataFrame({place: _differences(found[place], groups) for place in places}).T
        table = levels(rows.to_numpy(dtype=np.float64))
        half, p = t_quantile(1 - ERROR / 2, table.df) * table.error, tails(table)
        for row, place in enumerate(places):
            low, high = found[place].difference - half[row], found[place].difference + half[row]
            found[place] = replace(found[place], low=float(low), high=float(high), p=float(p[row]), verdict="one seed")
        tested += [place for place in places if not math.isnan(found[place].p)]
        notes.append(f"{name}: {_noise(table, np.array([found[place].n for place in places], dtype=np.float64))}")
    for place, p in zip(tested, holm([found[place].p for place in tested]), strict=True):
        found[place] = replace(found[place], p=float(p), verdict="changed" if p < ERROR else "within noise")
    if not tested:
        return tuple(found), ["No cell has two seeds in both results that differ: there is no noise to judge by."]
    return tuple(found), [*notes, "Paired by seed; two-sided t tests; p adjusted for all of them by Holm's method."]


def _differences(change: Change, groups: Mapping[tuple[str, ...], pd.DataFrame]) -> pd.Series[float]:
    """After minus before of a cell's units, by the first seed of each."""
    part = groups[*change.axes, change.evaluation].dropna(subset=["difference"])
    units = part.groupby("unit").agg(seed=("seed", "min"), difference=("difference", "mean"))
    return units.set_index("seed")["difference"]


def _noise(table: Estimate, n: Floats) -> str:
    """Sentence on the standard deviation of the differences of one evaluation, in rows of n units."""
    known, parts = np.isfinite(table.error), []
    if (pooled := known & ~table.own).any():
        sd, df = (table.error * np.sqrt(n))[pooled][0], table.df[pooled][0]
        parts.append(f"noise of a difference between equal seeds: sd {sd:.3g}, pooled, {df:.3g} degrees of freedom")
    if table.own.any():
        whose = (
            f"{int(table.own.sum())} of {int(known.sum())} cells {'has its' if table.own.sum() == 1 else 'have their'}"
        )
        parts.append(f"to be safe, {whose} own variance, which the pooled one may understate")
    return "; ".join(parts or ["no cell has two seeds in both results that differ"]) + "."


def _provenance(before: pd.DataFrame, after: pd.DataFrame) -> list[str]:
    return [*mixed(before, after), *_differing(before, after)]


def _differing(before: pd.DataFrame, after: pd.DataFrame) -> list[str]:
    notes = []
    for name in PROVENANCE:
        one, two = (
            dict.fromkeys(value or "unknown" for value in frame.loc[frame["state"] == "done", name])
            for frame in (before, after)
        )
        if set(one) != set(two):
            notes.append(f"{name}: before {', '.join(one)}; after {', '.join(two)}.")
    return notes
