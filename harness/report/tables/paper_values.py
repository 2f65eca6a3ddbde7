"""Published values joined to cells by the axes, with the known differences between both protocols."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.papers import PaperTable, Protocol, PublishedValue, protocol_of
from harness.papers.protocol import UNKNOWN
from harness.report.collect import axes_of, records
from harness.stats.additive import Additive
from harness.stats.intervals import CONFIDENCE, t_quantile
from harness.study import Plan

PAPER_SD = 0.09
"""Standard deviation of a published accuracy from run to run, in points: MAE, ViT-B, over fine-tuning seeds.

From facebookresearch/mae, FINETUNE.md: 83.63, 83.66, 83.52 and 83.46, which is 0.094.
"""

SEPARABLE = 0.25
"""Smallest difference of published values that counts as one: 1.96 sqrt(2) PAPER_SD."""


@dataclass(frozen=True)
class OrderAgreement:
    """Counts of cell pairs that the paper separates and of those with the same order here.

    pairs, kept: pairs with values here. resolved, resolved_kept: pairs whose difference here is significant too.
    closer, closer_kept: pairs that differ in the paper, but by less than `SEPARABLE`.
    """

    pairs: int
    kept: int
    resolved: int
    resolved_kept: int
    closer: int
    closer_kept: int


def column_beside(plan: Plan, names: list[str]) -> str:
    """Evaluation that paper and claims refer to: the one named like the paper's metric, else the first."""
    metrics = [table.metric for table in plan.study.papers[:1]]
    return metrics[0] if metrics and metrics[0] in names else (names or [""])[0]


def tables_beside(plan: Plan, names: list[str]) -> dict[str, PaperTable]:
    """Published table of each evaluation that has one: the first is that of `column_beside`."""
    papers = plan.study.papers
    by_name = {table.metric: table for table in papers if table.metric in names}
    return {column_beside(plan, names): papers[0], **by_name} if papers else {}


def with_paper(cells: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Add the published values.

    Columns: paper (NaN where there is none), paper_trust, paper_unverified, paper_source, paper_protocol (what is known
    of it), paper_differs (known differences from ours), paper_unknown (what is not known of it), and paper_delta (our
    mean minus the paper's; NaN where a known difference of protocol or an unverified value forbids it).

    Each table is joined to one evaluation only (`tables_beside`).
    """
    tables = tables_beside(plan, list(dict.fromkeys(cells["evaluation"])))
    ours = {name: _protocols(plan, name) for name in tables}
    points = records(cells[axes_of(cells)])
    rows = []
    for point, record in zip(points, records(cells), strict=True):
        values, name = dict(zip(plan.study.grid.axes, point.values(), strict=True)), record["evaluation"]
        if name in tables:
            found = tables[name].lookup(values)
            rows.append(_columns(found, ours[name].get(tuple(values.values())), record["mean"]))
        else:
            rows.append(_columns(None, None, math.nan))
    columns = pd.DataFrame(rows, index=cells.index, columns=list(_columns(None, None, math.nan)))
    return pd.concat([cells, columns], axis=1)


def _columns(found: PublishedValue | None, ours: Protocol | None, mean: float) -> dict[str, object]:
    theirs = found.protocol if found else UNKNOWN
    differing = theirs.differing(ours) if ours else {}
    comparable = found is not None and found.verified and ours is not None and not differing
    return {
        "paper": found.value if found else math.nan,
        "paper_trust": found.trust if found else "",
        "paper_unverified": found is not None and not found.verified,
        "paper_source": found.source if found else "",
        "paper_protocol": _listed(theirs.items()),
        "paper_differs": "; ".join(f"{name} {a}, here {b}" for name, (a, b) in differing.items()),
        "paper_unknown": ", ".join(theirs.unknown()) if found else "",
        "paper_delta": mean - found.value if found and comparable else math.nan,
    }


def _listed(items: dict[str, str]) -> str:
    return "; ".join(f"{name} {value}" for name, value in items.items())


def _protocols(plan: Plan, name: str) -> dict[tuple[object, ...], Protocol]:
    """Our own protocol by cell."""
    found: dict[tuple[object, ...], Protocol] = {}
    for row in plan.rows:
        place = tuple(row.axes.values())
        if place not in found and name in row.evaluations:
            found[place] = protocol_of(row.evaluations[name])
    return found


def order_agreement(cells: pd.DataFrame, model: Additive) -> OrderAgreement:
    """Agreement of the order of cells with the paper's; unverified values do not enter.

    Args:
        cells: the rows of one evaluation, with the columns of `with_paper`. model: fitted to the same cells in order.
    """
    paper = cells["paper"].where(~cells["paper_unverified"].astype(bool)).to_numpy(dtype=np.float64)
    found = model.pairs()
    theirs = paper[:, None] - paper
    once = np.triu(np.ones(theirs.shape, dtype=bool), 1) & np.isfinite(theirs) & np.isfinite(found.value)
    separate = once & (np.abs(theirs) >= SEPARABLE - 1e-9)
    same = theirs * found.value > 0
    closer = once & ~separate & (np.abs(theirs) > 1e-9)
    with np.errstate(invalid="ignore"):
        clear = np.abs(found.value) > t_quantile((1 + CONFIDENCE) / 2, found.df) * found.error
    resolved = separate & clear
    counts = (separate, separate & same, resolved, resolved & same, closer, closer & same)
    return OrderAgreement(*(int(flags.sum()) for flags in counts))
