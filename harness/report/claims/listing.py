"""Table of all claims of a study with their verdicts, failed claims first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence

import pandas as pd

from harness.report import escape
from harness.report.claims.sequential import standing
from harness.report.claims.verdicts import ORDER, Verdict, scored, verdict
from harness.report.escape import NOTHING, clean
from harness.report.labels import evaluation_label
from harness.report.numbers import signed, signed_between
from harness.stats.intervals import ERROR
from harness.study import Plan
from harness.study.claims import margin_at

DIGITS = 2
"""Digits of effects after the point."""

NEEDS = "needs about: seeds with which the claim would be decided in half of all cases, if the effect is as seen."

CLAIM_HEADER = ("verdict", "claim", "effect", "interval", "n", "needs about", "margin", "compared")


def judged(plan: Plan, runs: pd.DataFrame) -> tuple[Verdict, ...]:
    """Verdicts on all claims of a study, failed claims first, otherwise in the study's order.

    With looks, a claim is judged at the first look that decided it, with the bounds of a look.
    """
    study = plan.study
    if not study.claims:
        return ()
    if study.looks:
        found = [standing(claim, plan, runs).verdict for claim in study.claims]
    else:
        data = scored(plan, runs)
        found = [verdict(claim, data) for claim in study.claims]
    return tuple(sorted(found, key=lambda verdict: ORDER.index(verdict.word)))


def beside(plan: Plan, runs: pd.DataFrame) -> tuple[tuple[str, Verdict], ...]:
    """What the claims compare, by each evaluation that they are not judged by: its name and the effect."""
    by = scored(plan, runs).evaluation
    others = [scored(plan, runs, name) for name in plan.columns() if name != by]
    return tuple((data.evaluation, verdict(claim, data)) for claim in plan.study.claims for data in others)


def family_error(found: Sequence[Verdict]) -> float:
    """Upper bound of the probability that any claim is decided wrongly: the sum over the claims that were tested."""
    return min(1.0, ERROR * sum(verdict.tested for verdict in found))


def claim_rows(found: Sequence[Verdict]) -> tuple[tuple[str, ...], ...]:
    """Rows of the table, with the columns of CLAIM_HEADER."""
    return tuple(map(_row, found))


def told_rows(found: Sequence[Verdict]) -> tuple[tuple[str, str, str], ...]:
    """Verdict, claim, and what was measured in words."""
    return tuple((verdict.word, clean(verdict.sentence), _told(verdict)) for verdict in found)


def judged_seeds(plan: Plan, found: Sequence[Verdict]) -> frozenset[int]:
    """Numbers of seeds with which claims were judged; empty with looks, whose bounds allow for several."""
    return frozenset() if plan.study.looks else frozenset(n for n, most in (one.n for one in found) if n == most > 1)


def claims_text(
    plan: Plan,
    found: Sequence[Verdict],
    before: Collection[int] = (),
    others: Sequence[tuple[str, Verdict]] = (),
) -> str:
    """claims.md in Markdown.

    Args:
        before: numbers of seeds with which the claims were judged for earlier reports. others: as `beside` gives them.
    """
    rule = ("---", "---", *["---:"] * 5, "---")
    header, *rows = [map(escape.markdown, row) for row in (CLAIM_HEADER, *claim_rows(found))]
    body = escape.markdown_table(header, rule, rows)
    title = f"# Claims of {escape.markdown(plan.study.name) or 'the study'} at scale {escape.markdown(plan.scale.name)}"
    below = [*[NEEDS] * any(item.needed for item in found), *explained(plan, found, before)]
    parts = [title, body, *map(escape.markdown, below), *_others_text(plan, others)]
    return "\n\n".join(parts) + "\n"


def _others_text(plan: Plan, others: Sequence[tuple[str, Verdict]]) -> tuple[str, ...]:
    """The effects by other evaluations as a heading, a table and a sentence; nothing without any."""
    if not others:
        return ()
    shown = [(evaluation_label(plan, name), *_row(item)[1:5], clean(item.chosen) or NOTHING) for name, item in others]
    header, *rows = [map(escape.markdown, row) for row in (("evaluation", *CLAIM_HEADER[1:5], "compared"), *shown)]
    return (
        "## The same comparisons by other evaluations",
        escape.markdown_table(header, ("---", "---", *["---:"] * 3, "---"), rows),
        "No verdicts: nothing was claimed of these. Intervals are of 95 %, of all seeds there are, simultaneous over "
        "the candidates where a best one was chosen.",
    )


def claim_lines(plan: Plan, found: Sequence[Verdict], before: Collection[int] = ()) -> tuple[str, ...]:
    """Lines for a terminal: a summary, then one line per claim. before: as in `claims_text`."""
    if not found:
        return ()
    counts = Counter(verdict.word for verdict in found)
    summary = ", ".join(f"{counts[word]} {word}" for word in reversed(ORDER) if counts[word])
    return (f"Claims: {summary}. {explained(plan, found, before)[0]}", *map(_line, found))


def explained(plan: Plan, found: Sequence[Verdict], before: Collection[int] = ()) -> tuple[str, ...]:
    """Sentences on the error of verdicts, the looks and the margins. before: as in `claims_text`."""
    tested = sum(verdict.tested for verdict in found)
    error = (
        f"The probability that a claim is decided wrongly is at most {ERROR:.0%}; that any is, at most "
        f"{family_error(found):.0%} (claims tested: {tested})."
        if tested
        else "No claim is tested yet."
    )
    looks, seeds = plan.study.looks, sorted({*before, *judged_seeds(plan, found)})
    if len(seeds) > 1 and not looks:
        error = (
            f"Claims were judged with {', '.join(map(str, seeds))} seeds, and no looks are declared: judging again "
            f"with more seeds voids the {ERROR:.0%} that bound the probability of a wrong decision. Study(looks=...) "
            "and --until-decided keep them."
        )
    seen = (
        f"Claims were looked at with {', '.join(map(str, looks))} seeds; intervals hold at all looks together. A look "
        f"uses so many seeds of the cells that its claim compares, and {looks[0]} of all other cells."
        if looks
        else "Intervals are of 95 %, simultaneous over the candidates where a best one was chosen."
    )
    noise = (
        "Their noise is pooled over all cells of the study, but a noisier cell keeps its own: the same runs can have "
        "another interval in another study."
    )
    estimated = [item for item in found if math.isfinite(item.margin) and _declared(item, plan) is None]
    share = (
        f"Margins that are not declared are {plan.study.margin_share:.0%} of what the reference gains over training "
        "from scratch, whose uncertainty is taken into account."
    )
    return (error, f"{seen} {noise}", *[share] * bool(estimated))


def _declared(found: Verdict, plan: Plan) -> float | None:
    return margin_at(found.claim, plan.scale.name)


def _row(found: Verdict) -> tuple[str, ...]:
    low, high = found.n
    return (
        found.word,
        clean(found.sentence),
        signed(found.effect, DIGITS),
        signed_between(found.low, found.high, DIGITS),
        NOTHING if not high else str(low) if low == high else f"{low} to {high}",
        NOTHING if found.needed is None else str(found.needed),
        NOTHING if math.isnan(found.margin) else f"{found.margin:.2f}",
        "; ".join(clean(text) for text in (found.reason, found.remark, found.chosen) if text),
    )


def _line(found: Verdict) -> str:
    told = _told(found)
    return f"  {found.word}: {clean(found.sentence)}" + (f" ({told})" if told else "")


def _told(found: Verdict) -> str:
    """Effect, interval, seeds, seeds that it needs, and what was compared."""
    _, _, effect, interval, n, needed, _, compared = _row(found)
    measured = f"{effect}, {interval}, n = {n}" if interval != NOTHING else ""
    needs = f"needs about {needed} seeds" if needed != NOTHING else ""
    return "; ".join(filter(None, (measured, needs, compared)))
