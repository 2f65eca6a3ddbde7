"""Aggregation of runs to cells: means over seeds, intervals, the paper's value, differences from the reference.

The unit of replication is the pre-training (its seed): evaluations that start from the same one are averaged first.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from harness.report.collect import STATES, axes_of
from harness.report.tables.paper_values import with_paper
from harness.stats.additive import Additive, fit
from harness.stats.comparisons import among_best, differences
from harness.stats.intervals import Floats, half_width
from harness.study import Plan

CELL = ["cell", "evaluation"]


def summary(plan: Plan, runs: pd.DataFrame) -> pd.DataFrame:
    """Frame of cells with all columns of the table: `cells_frame`, `with_comparisons` and `with_paper`."""
    study = plan.study
    reference = study.cells.index(study.complete(study.reference))
    cells = with_comparisons(cells_frame(runs), runs, reference)
    return with_paper(cells, plan) if study.papers else cells


def units(runs: pd.DataFrame) -> pd.DataFrame:
    """Units of replication: one row per cell, evaluation and pre-training (or run, without a pre-training).

    value: mean of the evaluations of this pre-training, NaN if none is done. seed: the smallest seed among them, by
    which units of different cells are paired. Excluded rows are dropped.
    """
    wanted = runs[runs["state"] != "excluded"]
    unit = wanted["pretrain_key"].where(wanted["pretrain_key"] != "", wanted["key"])
    keyed = wanted.assign(unit=unit)[[*CELL, "unit", "seed", "value"]]
    found = keyed.groupby([*CELL, "unit"], sort=False).agg(seed=("seed", "min"), value=("value", "mean"))
    return found.reset_index()


def matrix(found: pd.DataFrame, evaluation: str, cells: list[int]) -> Floats:
    """Units of one evaluation as float [cells, seeds], NaN where a value is missing."""
    rows = found[found["evaluation"] == evaluation]
    seeds = sorted(set(rows["seed"]))
    wide = rows.pivot_table(index="cell", columns="seed", values="value", aggfunc="mean", dropna=False)
    return wide.reindex(index=cells, columns=seeds).to_numpy(dtype=np.float64)


def cells_frame(runs: pd.DataFrame) -> pd.DataFrame:
    """Frame with one row per cell and evaluation, in the order of the runs.

    Columns: cell, the axes, evaluation, n (units with a value), n_planned (units that are not excluded), mean, sd (of
    the sample of units, ddof 1), low and high (95 % interval of the mean, from the cell's own sd and n - 1 degrees of
    freedom, so that it holds whatever the other cells do; NaN for one seed, as the sd is), values (runs with a value),
    the number of runs in each state, and reason (each distinct state: reason).
    """
    flags = runs.assign(**{state: (runs["state"] == state).astype(int) for state in STATES})
    counts = flags.groupby(CELL, sort=False)[list(STATES)].sum()
    counts.insert(0, "values", runs.groupby(CELL, sort=False)["value"].count())
    found = units(runs).groupby(CELL, sort=False)["value"]
    numbers = found.agg(n="count", n_planned="size", mean="mean", sd="std")
    first = runs.drop_duplicates(CELL)[["cell", *axes_of(runs), "evaluation"]]
    frame = first.join(numbers, on=CELL).fillna({"n": 0, "n_planned": 0}).astype({"n": int, "n_planned": int})
    half = half_width(frame["sd"].to_numpy(), frame["n"].to_numpy(), frame["n"].to_numpy() - 1)
    frame = frame.assign(low=frame["mean"] - half, high=frame["mean"] + half)
    return frame.join(counts, on=CELL).join(_reasons(runs), on=CELL).fillna({"reason": ""}).reset_index(drop=True)


def _reasons(runs: pd.DataFrame) -> pd.Series[str]:
    told = runs[runs["reason"] != ""]
    texts = (told["state"] + ": " + told["reason"]).groupby([told[name] for name in CELL], sort=False)
    return texts.agg(lambda found: "; ".join(dict.fromkeys(found))).rename("reason").astype(object)


def with_comparisons(cells: pd.DataFrame, runs: pd.DataFrame, reference: int) -> pd.DataFrame:
    """Add comparisons of cells by the additive model of each evaluation (harness.stats.additive).

    Columns: reference (True for the cell of that number); difference (from the reference, by least squares);
    difference_low, difference_high (its 95 % interval); simultaneous_low, simultaneous_high (intervals that hold for
    all differences of the evaluation together with 95 %) and p (adjusted alike); own_variance (True if the cell has
    its own variance instead of the pooled one); best (True if the cell cannot be distinguished from the best one, with
    95 % for all cells together; False everywhere below three seeds); paired (seeds that both have); by_seed (True if
    cell and reference have values of different seeds, so that the difference is not that of their means); residual_sd,
    df (of the model, equal in all rows of an evaluation).
    """
    found = units(runs)
    parts = [_compared(part, found, reference) for _, part in cells.groupby("evaluation", sort=False)]
    return pd.concat(parts).sort_index() if parts else cells


def model_of(part: pd.DataFrame, runs: pd.DataFrame) -> Additive:
    """Additive model of one evaluation, its cells in the order of the rows of `part`."""
    return fit(matrix(units(runs), str(part["evaluation"].iloc[0]), list(part["cell"])))


def _compared(part: pd.DataFrame, found: pd.DataFrame, reference: int) -> pd.DataFrame:
    numbers = list(part["cell"])
    model = fit(matrix(found, str(part["evaluation"].iloc[0]), numbers))
    base = numbers.index(reference) if reference in numbers else None
    against = differences(model, base)
    value, n = against.found.value, model.n
    return part.assign(
        reference=part["cell"] == reference,
        difference=value,
        difference_low=value - against.half,
        difference_high=value + against.half,
        simultaneous_low=value - against.simultaneous,
        simultaneous_high=value + against.simultaneous,
        p=against.p,
        own_variance=model.own,
        best=among_best(model),
        paired=against.shared,
        by_seed=np.isfinite(value) & (against.shared < np.maximum(n, n[base] if base is not None else 0)),
        residual_sd=math.sqrt(model.variance),
        df=model.df,
    )
