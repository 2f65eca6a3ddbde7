"""From runs to cells: seeds aggregated, beside the paper's value and the difference from the reference."""

from __future__ import annotations

import math

import pandas as pd

from harness.papers import PaperTable
from harness.report.collect import STATES, axes_of, records
from harness.study import Plan

CELL = ["cell", "evaluation"]


def summary(plan: Plan, runs: pd.DataFrame) -> pd.DataFrame:
    """All that the table shows: `cells_frame`, then the columns of `with_difference` and `with_paper`."""
    study = plan.study
    reference = study.cells.index(study.complete(study.reference))
    cells = with_difference(cells_frame(runs), runs, reference)
    return cells if study.paper is None else with_paper(cells, study.paper, study.grid.axes)


def cells_frame(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each cell and evaluation, in the order of the runs.

    Columns: cell, the axes, evaluation, n (seeds with a value), n_planned (seeds that are not excluded),
    mean, sd (of the sample, ddof 1; NaN for n = 1), the number of seeds in each state, and reason (each
    distinct state: reason).
    """
    groups = runs.assign(**{state: (runs["state"] == state).astype(int) for state in STATES}).groupby(CELL, sort=False)
    numbers = groups["value"].agg(n="count", mean="mean", sd="std")
    counts = groups[list(STATES)].sum()
    numbers.insert(1, "n_planned", groups.size() - counts["excluded"])
    first = runs.drop_duplicates(CELL)[["cell", *axes_of(runs), "evaluation"]]
    frame = first.join(numbers, on=CELL).join(counts, on=CELL)
    return frame.join(_reasons(runs), on=CELL).fillna({"reason": ""}).reset_index(drop=True)


def _reasons(runs: pd.DataFrame) -> pd.Series[str]:
    told = runs[runs["reason"] != ""]
    texts = (told["state"] + ": " + told["reason"]).groupby([told[name] for name in CELL], sort=False)
    return texts.agg(lambda found: "; ".join(dict.fromkeys(found))).rename("reason").astype(object)


def with_difference(cells: pd.DataFrame, runs: pd.DataFrame, reference: int) -> pd.DataFrame:
    """Add reference (whether this is the cell of that number), difference and paired.

    The same seed index gives every cell the same start and data order, so the difference from the reference
    is the mean over the seeds that both cells have; paired is their number.
    """
    base = runs.loc[runs["cell"] == reference, ["evaluation", "seed", "value"]]
    both = runs.merge(base.rename(columns={"value": "base"}), on=["evaluation", "seed"], how="left")
    deltas = (both["value"] - both["base"]).groupby([both[name] for name in CELL], sort=False)
    found = deltas.agg(difference="mean", paired="count")
    return cells.assign(reference=cells["cell"] == reference).join(found, on=CELL)


def with_paper(cells: pd.DataFrame, paper: PaperTable, axes: tuple[str, ...]) -> pd.DataFrame:
    """Add the published values: paper (NaN where there is none), paper_trust, paper_unverified, paper_source.

    They stand beside the evaluation that is named as the table's metric; if there is none, beside the first
    one.
    """
    names = list(dict.fromkeys(cells["evaluation"]))
    beside = paper.metric if paper.metric in names else (names or [""])[0]
    points = records(cells[axes_of(cells)])
    found = [
        paper.lookup(dict(zip(axes, point.values(), strict=True))) if name == beside else None
        for point, name in zip(points, cells["evaluation"], strict=True)
    ]
    return cells.assign(
        paper=[value.value if value else math.nan for value in found],
        paper_trust=[value.trust if value else "" for value in found],
        paper_unverified=[value is not None and not value.verified for value in found],
        paper_source=[value.source if value else "" for value in found],
    )
