"""From runs to cells: seeds aggregated, with intervals, beside the paper's value and the difference from the reference.

The unit of replication is the pre-training (its seed): evaluations that start from the same one are averaged first.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy import stats

from harness.report.additive import Additive, Estimate, Flags, Floats, fit, t_quantile
from harness.report.apart import Apart, apart
from harness.report.beside import with_paper
from harness.report.collect import STATES, axes_of
from harness.report.simultaneous import critical, groups, largest_below
from harness.study import Plan

CELL = ["cell", "evaluation"]
LEVEL = 0.95


def summary(plan: Plan, runs: pd.DataFrame) -> pd.DataFrame:
    """All that the table shows: `cells_frame`, then the columns of `with_comparisons` and of `with_paper`."""
    study = plan.study
    reference = study.cells.index(study.complete(study.reference))
    cells = with_comparisons(cells_frame(runs), runs, reference)
    return cells if study.paper is None else with_paper(cells, plan)


def units(runs: pd.DataFrame) -> pd.DataFrame:
    """One row for each cell, evaluation and pre-training, or run where there is none: value and seed.

    value: the mean of the evaluations nested in it, NaN without any. seed: the first of theirs, which says which units
    of other cells it is paired with. Excluded rows are left out.
    """
    wanted = runs[runs["state"] != "excluded"]
    unit = wanted["pretrain_key"].where(wanted["pretrain_key"] != "", wanted["key"])
    keyed = wanted.assign(unit=unit)[[*CELL, "unit", "seed", "value"]]
    found = keyed.groupby([*CELL, "unit"], sort=False).agg(seed=("seed", "min"), value=("value", "mean"))
    return found.reset_index()


def matrix(found: pd.DataFrame, evaluation: str, cells: list[int]) -> Floats:
    """The units of one evaluation as float [cells, seeds], NaN where there is none."""
    rows = found[found["evaluation"] == evaluation]
    seeds = sorted(set(rows["seed"]))
    wide = rows.pivot_table(index="cell", columns="seed", values="value", aggfunc="mean", dropna=False)
    return wide.reindex(index=cells, columns=seeds).to_numpy(dtype=np.float64)


def cells_frame(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each cell and evaluation, in the order of the runs.

    Columns: cell, the axes, evaluation, n (units with a value), n_planned (units that are not excluded), mean, sd (of
    the sample of units, ddof 1), low and high (95 % interval of the mean, from the cell's own sd and n - 1 degrees of
    freedom, so that it holds whatever the other cells do), borrowed (n is 1: sd is that of the other cells, pooled, and
    the interval is from the degrees of freedom of the largest of them, at least 95 %), values (runs with a value), the
    number of runs in each state, and reason (each distinct state: reason).
    """
    flags = runs.assign(**{state: (runs["state"] == state).astype(int) for state in STATES})
    counts = flags.groupby(CELL, sort=False)[list(STATES)].sum()
    counts.insert(0, "values", runs.groupby(CELL, sort=False)["value"].count())
    found = units(runs).groupby(CELL, sort=False)["value"]
    numbers = found.agg(n="count", n_planned="size", mean="mean", sd="std")
    first = runs.drop_duplicates(CELL)[["cell", *axes_of(runs), "evaluation"]]
    frame = first.join(numbers, on=CELL).fillna({"n": 0, "n_planned": 0}).astype({"n": int, "n_planned": int})
    parts = [_with_interval(part) for _, part in frame.groupby("evaluation", sort=False)]
    frame = pd.concat(parts).sort_index() if parts else frame
    return frame.join(counts, on=CELL).join(_reasons(runs), on=CELL).fillna({"reason": ""}).reset_index(drop=True)


def _with_interval(part: pd.DataFrame) -> pd.DataFrame:
    """Intervals of the means of one evaluation."""
    n, sd = part["n"].to_numpy(), part["sd"].to_numpy(dtype=np.float64)
    several = n > 1
    squares, df = (sd[several] ** 2 * (n[several] - 1)).sum(), (n[several] - 1).sum()
    borrowed = (n == 1) & bool(several.any())
    sd = np.where(borrowed, math.sqrt(squares / df) if df else np.nan, sd)
    half = half_width(sd, n, np.where(borrowed, n.max(initial=1) - 1, n - 1))
    return part.assign(sd=sd, low=part["mean"] - half, high=part["mean"] + half, borrowed=borrowed)


def half_width(sd: Floats, n: Floats, df: Floats) -> Floats:
    """Of the 95 % interval of a mean of n values, from a standard deviation with df degrees of freedom."""
    found: Floats = t_quantile((1 + LEVEL) / 2, df) * sd / np.sqrt(np.maximum(n, 1))
    return found


def _reasons(runs: pd.DataFrame) -> pd.Series[str]:
    told = runs[runs["reason"] != ""]
    texts = (told["state"] + ": " + told["reason"]).groupby([told[name] for name in CELL], sort=False)
    return texts.agg(lambda found: "; ".join(dict.fromkeys(found))).rename("reason").astype(object)


def with_comparisons(cells: pd.DataFrame, runs: pd.DataFrame, reference: int) -> pd.DataFrame:
    """Add what the model of harness.report.additive says of each evaluation.

    Columns: reference (whether this is the cell of that number); difference (from the reference, by least squares);
    difference_low, difference_high (its 95 % interval); simultaneous_low, simultaneous_high (intervals that hold for
    all differences of the evaluation together with 95 %) and p (adjusted alike: Dunnett's test, or Sidak's bound where
    variances are unequal); best (whether the cell cannot be told from the best one, with 95 % for all cells together,
    after Hsu 1981; False everywhere if there are no degrees of freedom); paired (seeds that both have);
    residual_sd, df, p_equal, unequal (of the model, the same in all rows of an evaluation; unequal: whether own
    variances were taken); p_apart, apart (likewise: the check of harness.report.apart that the reference is no noisier
    than the rest, and whether the differences take its own variance).
    """
    found = units(runs)
    parts = [_compared(part, found, reference) for _, part in cells.groupby("evaluation", sort=False)]
    return pd.concat(parts).sort_index() if parts else cells


def model_of(part: pd.DataFrame, runs: pd.DataFrame) -> Additive:
    """The model of the rows of one evaluation of a frame of cells, in their order."""
    return fit(matrix(units(runs), str(part["evaluation"].iloc[0]), list(part["cell"])))


def _compared(part: pd.DataFrame, found: pd.DataFrame, reference: int) -> pd.DataFrame:
    numbers = list(part["cell"])
    model = fit(matrix(found, str(part["evaluation"].iloc[0]), numbers))
    base = numbers.index(reference) if reference in numbers else None
    return part.assign(
        reference=part["cell"] == reference,
        **differences(model, base),
        best=among_best(model),
        residual_sd=math.sqrt(model.variance),
        df=model.df,
        p_equal=model.p_equal,
        unequal=not model.equal,
    )


def differences(model: Additive, base: int | None) -> dict[str, Floats]:
    """The columns difference to p, paired, p_apart and apart, of the cells of a model against the one of number `base`.

    All NaN without a base; the base itself differs from itself by 0, with no interval. The base has a variance of its
    own where it looks noisier than the rest, unless all cells have (Additive.equal).
    """
    count = len(model.values)
    names = ("difference", "difference_low", "difference_high", "simultaneous_low", "simultaneous_high", "p", "p_apart")
    if base is None or not model.n[base]:
        blank = {name: np.full(count, np.nan) for name in names}
        return blank | {"apart": np.zeros(count, dtype=bool), "paired": np.zeros(count, dtype=int)}
    alone = apart(model, base)
    taken = model.equal and alone.noisy
    weights = np.eye(count)
    weights[:, base] -= 1
    others = np.arange(count) != base
    found = alone.contrasts(weights) if taken else model.contrasts(weights)
    found = Estimate(*(np.where(others, column, np.nan) for column in (found.value, found.error, found.df)))
    single = t_quantile((1 + LEVEL) / 2, found.df) * found.error
    p, several = _dunnett(model, base, found, alone if taken else None)
    both = np.isfinite(model.values) & np.isfinite(model.values[base])
    columns = [np.where(others, found.value, 0.0), found.value - single, found.value + single]
    columns += [found.value - several, found.value + several, p, np.full(count, alone.p)]
    rest = {"apart": np.full(count, taken), "paired": both.sum(axis=1)}
    return dict(zip(names, columns, strict=True)) | rest


def _dunnett(model: Additive, base: int, found: Estimate, alone: Apart | None) -> tuple[Floats, Floats]:
    """Adjusted p-values and half-widths of simultaneous intervals of the differences from one cell.

    Args:
        alone: the model with the base apart, where its own variance is taken.
    """
    known = np.isfinite(found.error) & (found.df > 0)
    size = np.divide(np.abs(found.value), found.error, out=np.full(len(known), np.inf), where=known & (found.error > 0))
    size = np.where(known & (found.value == 0), 0.0, size)
    p, bound = np.full(len(known), np.nan), np.full(len(known), np.nan)
    if not known.any():
        return p, bound
    if model.equal:
        own, rest = (alone.own, alone.rest) if alone else (1.0, 1.0)
        comparisons, df = groups(own / model.n[base], rest / model.n[known]), float(found.df[known].min())
        p[known] = 1 - largest_below(np.minimum(size[known], 1e6), comparisons, df, two_sided=True)
        bound[known] = critical(1 - LEVEL, comparisons, df, two_sided=True)
    else:
        number, tails = int(known.sum()), 2 * stats.t.sf(np.minimum(size[known], 1e6), found.df[known])
        p[known] = -np.expm1(number * np.log1p(-np.minimum(tails, 1 - 1e-15)))
        bound[known] = t_quantile((1 + LEVEL ** (1 / number)) / 2, found.df[known])
    return np.clip(p, 0.0, 1.0), bound * found.error


def among_best(model: Additive) -> Flags:
    """bool [cells]: those that simultaneous comparisons cannot tell from the best, each tried as the best one."""
    n, count = model.n, len(model.values)
    present = n > 0
    if model.df <= 0 or present.sum() < 2:
        return np.zeros(count, dtype=bool)
    found = model.pairs()
    bound = (
        _bounds_as_best(model)[:, None] if model.equal else t_quantile(1 - (1 - LEVEL) / (present.sum() - 1), found.df)
    )
    worse = np.nan_to_num(-found.value - np.maximum(bound * found.error, 0.0), nan=-1.0) > 0
    best: Flags = present & ~worse.any(axis=1)
    return best


def _bounds_as_best(model: Additive) -> Floats:
    """For each cell the bound of one-sided comparisons of all others with it."""
    bounds = np.zeros(len(model.values))
    for number in set(model.n[model.n > 0].tolist()):
        members = np.flatnonzero(model.n == number)
        others = np.delete(model.n, members[0])
        bounds[members] = critical(1 - LEVEL, groups(1 / number, 1 / others[others > 0]), model.df)
    return bounds
