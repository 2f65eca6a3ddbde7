"""The small tables of the page: claims, the paper's values beside ours, and what an audit found."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd

from harness.report.claims.listing import CLAIM_HEADER, claim_rows, explained
from harness.report.claims.verdicts import Verdict
from harness.report.collect import axes_of, records
from harness.report.escape import NOTHING, clean, shown
from harness.report.labels import axis_label
from harness.report.page import Section
from harness.report.tables.table import Table, decimals
from harness.study import Plan

# The order in which findings are listed.
_TONES = {"failed": "bad", "remark": "open", "passed": "good"}
_CLAIM_TONES = {"reproduced": "good", "contradicted": "bad", "inconclusive": "open"}
ARMS = 3
"""Arms named beside one finding."""


def claims_section(plan: Plan, claims: Sequence[Verdict], judged_before: Collection[int] = ()) -> list[Section]:
    """The verdicts, failed ones first; none if the study claims nothing."""
    if not claims:
        return []
    tones = tuple(_CLAIM_TONES.get(verdict.word, "") for verdict in claims)
    return [
        Section(
            title="Claims",
            header=CLAIM_HEADER,
            rows=claim_rows(claims),
            tones=tones,
            notes=explained(plan, claims, judged_before),
        )
    ]


def numbers_section(found: Table) -> Section:
    """All numbers of the wide table: n, intervals, differences from the reference and adjusted p-values."""
    return Section(title="All numbers", header=found.header, rows=found.plain_rows())


def paper_section(plan: Plan, cells: pd.DataFrame) -> list[Section]:
    """The published values with their protocol, and ours; none if there is no published value."""
    if "paper" not in cells or not cells["paper"].notna().any():
        return []
    axes = axes_of(cells)
    found = cells[cells["paper"].notna()]
    # As many decimals as the table has for the same numbers.
    digits = decimals(list(found["mean"]))
    rows = tuple(
        (
            *(shown(record[axis]) for axis in axes),
            f"{record['paper']:g}",
            _number(record["mean"], digits),
            _number(record["paper_delta"], digits, sign=True),
            clean(record["paper_trust"]) + (", unverified" if record["paper_unverified"] else ""),
            *(clean(record[f"paper_{name}"]) or NOTHING for name in ("differs", "unknown", "protocol", "source")),
        )
        for record in records(found)
    )
    header = (
        *(axis_label(plan, axis) for axis in axes), "paper", "here", "difference", "trust", "other protocol",
        "not known", "paper's protocol", "source",
    )  # fmt: skip
    notes = ("No difference is shown where the protocol is known to differ, or where the value is unverified.",)
    return [Section(title="The paper beside ours", header=header, rows=rows, notes=notes)]


def audit_section(findings: Sequence[Any]) -> list[Section]:
    """The findings of `harness audit`, failed ones first, equal ones together; none if it was not run.

    Args:
        findings: mappings of check, verdict (passed, failed or remark), text and arm. What is none is left out.
    """
    arms: dict[tuple[str, str, str], list[str]] = {}
    for item in findings:
        if isinstance(item, dict) and item.get("verdict") in _TONES:
            place = (str(item["verdict"]), clean(str(item.get("check", ""))), clean(str(item.get("text", ""))))
            arms.setdefault(place, []).append(clean(str(item.get("arm", ""))))
    if not arms:
        return []
    order = sorted(arms, key=lambda place: list(_TONES).index(place[0]))
    rows = tuple((*place, _arms([name for name in arms[place] if name])) for place in order)
    return [
        Section(
            title="Audit",
            header=("verdict", "check", "finding", "cells"),
            rows=rows,
            tones=tuple(_TONES[verdict] for verdict, _, _ in order),
            notes=("As harness audit found it last, on a few images and before anything was computed.",),
        )
    ]


def _arms(names: list[str]) -> str:
    more = f" and {len(names) - ARMS} more" if len(names) > ARMS else ""
    return "; ".join(names[:ARMS]) + more


def _number(value: float, digits: int, *, sign: bool = False) -> str:
    if math.isnan(value):
        return NOTHING
    # A minus sign is as wide as a plus, so that columns align.
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")
