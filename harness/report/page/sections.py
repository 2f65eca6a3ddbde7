"""The small tables of the page: claims, the paper's values beside ours, and what an audit found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from harness.papers.tables import ORIGINS
from harness.report.claims.listing import CLAIM_HEADER, claim_rows, explained, told_rows
from harness.report.claims.verdicts import Verdict
from harness.report.collect import naming_axes, records
from harness.report.escape import clean, shown
from harness.report.labels import axis_label, short_label
from harness.report.numbers import number, published, signed
from harness.report.page import Section
from harness.report.tables.footnotes import one_commit, origin_doubts
from harness.report.tables.table import Table, decimals
from harness.study import Plan

# The order in which findings are listed.
_TONES = {"failed": "bad", "remark": "open", "passed": "good"}
_CLAIM_TONES = {"reproduced": "good", "contradicted": "bad", "inconclusive": "open"}
ARMS = 3
"""Arms named beside one finding."""


def verdicts_section(claims: Sequence[Verdict]) -> list[Section]:
    """The verdicts in words, failed ones first; none if the study claims nothing."""
    if not claims:
        return []
    rows = tuple(tuple(map(unbroken, row)) for row in told_rows(claims))
    return [Section(title="Claims", header=("verdict", "claim", "measured"), rows=rows, tones=_tones(claims))]


def unbroken(text: str) -> str:
    """A text for the page whose numbers stay on one line with their units and names."""
    return text.replace(" %", "\u00a0%").replace("n = ", "n\u00a0=\u00a0")


def claims_section(plan: Plan, claims: Sequence[Verdict], judged_before: Collection[int] = ()) -> list[Section]:
    """All numbers of the verdicts, with their errors and margins; none if the study claims nothing."""
    if not claims:
        return []
    notes = explained(plan, claims, judged_before)
    return [
        Section(title="Claims in full", header=CLAIM_HEADER, rows=claim_rows(claims), tones=_tones(claims), notes=notes)
    ]


def _tones(claims: Sequence[Verdict]) -> tuple[str, ...]:
    return tuple(_CLAIM_TONES.get(verdict.word, "") for verdict in claims)


def numbers_section(found: Table) -> Section:
    """All numbers of the wide table: n, intervals, differences from the reference and adjusted p-values."""
    return Section(title="All numbers", header=found.header, rows=found.plain_rows(), folded=True)


_PROTOCOL = {
    "paper's protocol": "protocol", "other here": "differs", "not known": "unknown", "source": "source",
    "numbers": "trust",
}  # fmt: skip
"""What is said of a published value beside its number, by column of the frame."""


def paper_section(plan: Plan, cells: pd.DataFrame) -> list[Section]:
    """The published values and ours, and below them their protocols, each once; none if there is no published value."""
    if "paper" not in cells or not cells["paper"].notna().any():
        return []
    axes = naming_axes(cells)
    found = records(cells[cells["paper"].notna()])
    # As many decimals as the table has for the same numbers.
    digits = decimals([record["mean"] for record in found])
    protocols = list(dict.fromkeys(map(_protocol, found)))
    several, mixed = len(protocols) > 1, len({record["evaluation"] for record in found}) > 1
    rows = tuple(
        (
            *[short_label(plan, record["evaluation"])] * mixed,
            *(shown(record[axis]) for axis in axes),
            published(record["paper"]),
            number(record["mean"], digits),
            signed(record["paper_delta"], digits),
            *[str(1 + protocols.index(_protocol(record)))] * several,
        )
        for record in found
    )
    header = (
        *["evaluation"] * mixed,
        *(axis_label(plan, axis) for axis in axes),
        "paper",
        "here",
        "difference",
        *["protocol"] * several,
    )
    notes = (
        "No difference is shown where the protocol is known to differ, or where the value is unverified.",
        *(f"Protocol {place}: {text}" if several else text for place, text in enumerate(protocols, 1)),
    )
    return [Section(title="The paper beside ours", header=header, rows=rows, notes=notes)]


def _protocol(record: Mapping[str, Any]) -> str:
    """Under which conditions a published value was measured, and how far they are known."""
    told = {word: clean(record[f"paper_{column}"]) for word, column in _PROTOCOL.items()}
    told["numbers"] = ORIGINS.get(told["numbers"], told["numbers"]) + ", unverified" * bool(record["paper_unverified"])
    return "; ".join(f"{word}: {text}" for word, text in told.items() if text) + "."


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


def checks(findings: Sequence[Any], runs: pd.DataFrame) -> tuple[tuple[str, str], ...]:
    """What speaks for the numbers or against them, and its tone: seeds, the audit, where the runs come from."""
    words = Counter(str(item.get("verdict")) for item in findings if isinstance(item, dict))
    seeds = runs["seed"].nunique()
    audit = ("not audited", "open")
    if words["failed"]:
        audit = (f"audit: {words['failed']} failed", "bad")
    elif words["remark"]:
        audit = (f"audit passed, {words['remark']} remark{'s' * (words['remark'] > 1)}", "open")
    elif words["passed"]:
        audit = ("audit passed", "good")
    origin: tuple[tuple[str, str], ...] = ()
    if (runs["state"] == "done").any():
        doubts, one = origin_doubts(runs), "commit" if one_commit(runs) else "code"
        origin = ((doubts, "open") if doubts else (f"one {one}, device and versions", "good"),)
    return ((f"{seeds} seed{'s' * (seeds > 1)}", "" if seeds > 1 else "open"), audit, *origin)


def _arms(names: list[str]) -> str:
    more = f" and {len(names) - ARMS} more" if len(names) > ARMS else ""
    return "; ".join(names[:ARMS]) + more
