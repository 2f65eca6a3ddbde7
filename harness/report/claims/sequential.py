"""Claims judged at planned looks: each look's state from the store, and the runs that the next look needs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd

from harness.report.claims.contrasts import sides
from harness.report.claims.verdicts import Alphas, Scored, Verdict, compared_cells, scored, verdict
from harness.report.collect import runs_frame
from harness.stats.intervals import ERROR
from harness.stats.sequential import error_of_a_look
from harness.store import Store
from harness.study import Plan, expand
from harness.study.claims import Claim


@dataclass(frozen=True)
class Standing:
    """Verdict on a claim at its last complete look.

    wanted: (cell, seed) pairs of the next look; empty once the claim is decided or after the last look. waits: number
    of seeds of the look that is incomplete; 0 if none is.
    """

    verdict: Verdict
    wanted: frozenset[tuple[int, int]] = frozenset()
    waits: int = 0


def standing(claim: Claim, plan: Plan, runs: pd.DataFrame) -> Standing:
    """Replay the looks of a claim from the results; no other state is kept.

    A look at n seeds uses n seeds of the cells that the claim compares and the first look's seeds of all other cells,
    even if the store holds more. Otherwise seeds computed later could reverse a decision.
    """
    looks, found = plan.study.looks, None
    for number in looks:
        data = _at_look(claim, plan, runs, number)
        found = verdict(claim, data, errors(claim, data))
        if found.word == "not testable at this scale":
            break
        used = compared_cells(claim, data)
        counted = runs["cell"].isin(used) & runs["seed"].isin(plan.seed_range(number))
        seen = runs[counted & (runs["state"] != "excluded")]
        named = seen[seen["evaluation"] == data.evaluation]
        places = set(zip(named["cell"], named["seed"], strict=True))
        lacking = named[named["value"].isna()]  # a seed with several evaluations has all of them or waits
        have = places - set(zip(lacking["cell"], lacking["seed"], strict=True))
        wanted = {(cell, seed) for cell in used for seed in plan.seed_range(number)}
        if wanted - have:
            return Standing(_waiting(found, number), frozenset(wanted), number)
        if not found.open:
            break
    assert found is not None
    return Standing(found if not found.open else replace(found, reason=f"open after all {looks[-1]} seeds"))


def _waiting(found: Verdict, number: int) -> Verdict:
    # With values at a part of its seeds it may look decided, but no look was taken yet.
    return replace(found, word="inconclusive", reason=f"waits for {number} seeds") if found.tested else found


def _at_look(claim: Claim, plan: Plan, runs: pd.DataFrame, number: int) -> Scored:
    least = plan.study.looks[0]
    at_first = runs["seed"].isin(plan.seed_range(least))
    first = scored(plan, runs[at_first])
    if number == least:
        return first
    used = runs["cell"].isin(compared_cells(claim, first))
    return scored(plan, runs[at_first | used & runs["seed"].isin(plan.seed_range(number))])


def errors(claim: Claim, data: Scored) -> Alphas:
    """One-sided errors of the lower and upper bound of a claim at each look."""
    compared = sides(claim, data.plan.study.cells, data.excluded)
    if isinstance(compared, str):
        return ERROR / 2, ERROR / 2
    cells, members = len(data.values) - len(data.excluded), len(compared_cells(claim, data))
    looks, candidates = data.plan.study.looks, (len(compared.left), len(compared.right))
    low, high = (error_of_a_look(looks, cells, members, many, ERROR) for many in candidates)
    return low, high


def scheduled(plan: Plan, store: Store) -> Plan:
    """Plan of the first look of all cells plus the runs that undecided claims need for their next look.

    Raises:
        HarnessError: a cell of a further seed is refused.
    """
    study = plan.study
    whole = expand(study, scale=plan.scale.name, seeds=study.looks[-1])
    runs = runs_frame(whole, store)
    wanted = {place for claim in study.claims for place in standing(claim, whole, runs).wanted}
    return _limited(whole, wanted, runs)


def looked(plan: Plan, store: Store) -> Plan:
    """Plan to report: the first look of all cells plus rows of later looks that have begun."""
    study = plan.study
    whole = expand(study, scale=plan.scale.name, seeds=study.looks[-1])
    return _limited(whole, set(), runs_frame(whole, store))


def _limited(whole: Plan, wanted: set[tuple[int, int]], runs: pd.DataFrame) -> Plan:
    """The plan restricted to the first look of all cells, the wanted (cell, seed) pairs and rows that have begun."""
    begun = runs[(runs["state"] != "missing") & (runs["state"] != "excluded")]
    kept = wanted | set(zip(begun["cell"], begun["seed"], strict=True))
    numbers = {tuple(cell.values()): number for number, cell in enumerate(whole.study.cells)}
    first = whole.seed_range(whole.study.looks[0])
    rows = (row for row in whole.rows if row.seed in first or (numbers[tuple(row.axes.values())], row.seed) in kept)
    return replace(whole, rows=tuple(rows))
