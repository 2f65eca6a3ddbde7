"""Caption and notes of a table: measures, missing values, comparisons, the paper's column, provenance, assumptions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

import pandas as pd

from harness.papers.tables import ORIGINS
from harness.report.collect import PROVENANCE, axes_of, axis_columns, naming_axes
from harness.report.escape import NOTHING, clean, shown
from harness.report.labels import axis_label, short_label
from harness.report.tables.paper_values import PAPER_SD, SEPARABLE, order_agreement, tables_beside
from harness.report.tables.statistics import model_of
from harness.spec import Data, Evaluation, FineTune
from harness.stats.comparisons import LEAST_FOR_BEST
from harness.study import Plan

MOST_NOTES = 4
"""Sentences below a table; the rest is in how to read it."""

IN_CODE = ("commit", "harness")
"""Items of PROVENANCE that move no number where the digest of the code that determines numbers is the same."""

_COMMIT = re.compile(r"[0-9a-f]{40}")


def caption(plan: Plan, fixed: Mapping[str, str] | None = None, n: int | None = None) -> str:
    """Caption in one paragraph: study, scale, what all cells share, the measure if there is one only, and the spread.

    Args:
        fixed: axes with one value, by label. n: pre-trainings of every cell; None where cells have different numbers.
    """
    shared = "".join(f", {name} {value}" for name, value in (fixed or {}).items() if value != NOTHING)
    told = measures(plan)
    spread = "One seed" if n == 1 else "Mean ± standard deviation over seeds" + (f" (n = {n})" if n else "")
    first = f"{clean(plan.study.name) or 'Study'} at scale {clean(plan.scale.name)}{shared}."
    return " ".join([first, *(told if len(told) == 1 else ()), f"{spread}."])


def measures(plan: Plan) -> tuple[str, ...]:
    """A sentence for each column: its measure, and where; what all columns share of that stands at the last alone."""
    found = {
        name: list(dict.fromkeys(_measure(row.evaluations[name]) for row in plan.rows if name in row.evaluations))
        for name in plan.columns()
    }
    ends = {place for measured in found.values() for _, place in measured}
    whole = f"All {next(iter(ends))}." if len(ends) == 1 and len(found) > 1 else ""
    told = [
        f"{short_label(plan, name)}: {'; '.join(text if whole else f'{text}, {place}' for text, place in measured)}."
        for name, measured in found.items()
    ]
    return (*told, *filter(None, [whole]))


def notes(plan: Plan, runs: pd.DataFrame, cells: pd.DataFrame, *, bold: bool, wide: bool = False) -> tuple[str, ...]:
    """At most four short sentences below the table, what a reader must not miss first.

    Args:
        bold: some entries are. wide: differences from the reference have a column instead of signs.
    """
    found = (
        *_holes(runs, cells),
        *_mixed_in_short(runs),
        *_signs(plan, cells, wide=wide),
        *_bold(cells, bold),
        *_paper_in_short(cells),
    )
    return found[:MOST_NOTES]


def reading(plan: Plan, runs: pd.DataFrame, cells: pd.DataFrame) -> tuple[str, ...]:
    """Sentences on the origin of the numbers: comparisons, the paper's column, provenance, assumptions."""
    told = measures(plan)
    return (
        *(told if len(told) > 1 else ()),
        "95 % intervals of means are each cell's own (t of its seeds); table.csv has them and every adjusted p-value.",
        *_named(plan, cells),
        *_comparison(plan, cells),
        *_paper(plan, runs, cells),
        *mixed_provenance(runs),
        *_assumed(plan),
    )


def _named(plan: Plan, cells: pd.DataFrame) -> Iterator[str]:
    """What stands for axes that the compact table leaves out."""
    named = naming_axes(cells)
    left = [axis for axis in axes_of(cells) if axis not in named and cells[axis].map(shown).nunique() > 1]
    if left:
        others = ", ".join(axis_label(plan, axis) for axis in left)
        yield f"{axis_label(plan, named[0])} names each cell; the wide table and table.csv have {others} too."


def _signs(plan: Plan, cells: pd.DataFrame, *, wide: bool) -> Iterator[str]:
    if not cells["reference"].any():
        yield f"The reference ({reference_text(plan, cells)}) is not among these cells."
    elif cells["p"].notna().any() and wide:
        text = reference_text(plan, cells)
        yield f"reference: {text}; vs reference: difference, adjusted p; n.s.: p of 0.05 or more."
    elif cells["p"].notna().any():
        yield f"• reference ({reference_text(plan, cells)}); ↑ better, ↓ worse than it (adjusted p < 0.05)."


def reference_text(plan: Plan, cells: pd.DataFrame) -> str:
    """The reference by the axes that name cells: `scope masked area, mask ratio 0.6`."""
    point = plan.study.complete(plan.study.reference)
    columns, named = axis_columns(tuple(point)), naming_axes(cells) if cells["reference"].any() else axes_of(cells)
    return ", ".join(
        f"{axis_label(plan, column)} {shown(point[name])}"
        for name, column in columns.items()
        if column in named and point[name] is not None
    )


def _bold(cells: pd.DataFrame, bold: bool) -> Iterator[str]:
    if bold:
        yield "Bold: the best, and what cannot be told from it."
    elif cells["best"].any():
        yield "Nothing is bold: no cell can be told from the best."


def _mixed_in_short(runs: pd.DataFrame) -> Iterator[str]:
    if doubts := origin_doubts(runs):
        yield f"{doubts[0].upper()}{doubts[1:]} among these runs: see how to read this."


def _paper_in_short(cells: pd.DataFrame) -> Iterator[str]:
    if "paper" not in cells or not cells["paper"].notna().any():
        return
    doubtful = "; ? = not checked against a source" * bool(cells["paper_unverified"].any())
    if cells["paper_differs"].any():
        yield f"paper: another protocol, so compare its differences, not its level{doubtful}."
    elif doubtful:
        yield f"paper: as published{doubtful}."


def origin_doubts(runs: pd.DataFrame) -> str:
    """What finished runs do not share of all that may move a number: `mixed device, torch`, or `uncommitted changes`.

    Empty if all is shared. Commits, uncommitted changes and the harness's version count only where runs differ in the
    digest of the code that determines numbers, or have none: a new study, page or release alone moves no number.
    """
    distinct = _distinct(runs)
    known = _one_code(distinct)
    kinds = [name for name in PROVENANCE if len(_counts(distinct, name)) > 1 and not (known and name in IN_CODE)]
    if kinds:
        return f"mixed {', '.join(kinds)}"
    return "" if known else "uncommitted changes" * any(_dirty(distinct))


def one_commit(runs: pd.DataFrame) -> bool:
    """Whether all finished runs are of one commit, without uncommitted changes."""
    distinct = _distinct(runs)
    return len(_counts(distinct, "commit")) == 1 and not any(_dirty(distinct))


def mixed_provenance(runs: pd.DataFrame) -> tuple[str, ...]:
    """Sentences of `mixtures`, plus one if runs were made with uncommitted changes."""
    return (*mixtures(runs), *_dirty(_distinct(runs)))


def mixtures(runs: pd.DataFrame) -> tuple[str, ...]:
    """One sentence for each item of PROVENANCE (commit, device, versions) that differs among finished runs.

    Pre-trainings are included. A missing item counts as a value of its own, `unknown`.
    """
    return tuple(_mixtures(_distinct(runs)))


def _distinct(runs: pd.DataFrame) -> pd.DataFrame:
    """Key and provenance of each finished run."""
    done = runs[runs["state"] == "done"]
    one = done[["key", *PROVENANCE]]
    two = done[["pretrain_key", *(f"pretrain_{name}" for name in PROVENANCE)]].set_axis(one.columns, axis=1)
    return pd.concat([one, two[two["key"] != ""]]).drop_duplicates("key")


def _mixtures(distinct: pd.DataFrame) -> Iterator[str]:
    for name in PROVENANCE:
        if len(counts := _counts(distinct, name)) > 1:
            kinds = ", ".join(f"{value or 'unknown'} ({number})" for value, number in counts.most_common())
            same = "; the code that determines numbers is the same" * (name in IN_CODE and _one_code(distinct))
            yield f"Mixed {name}: the finished runs come from {kinds}{same}."


def _counts(distinct: pd.DataFrame, name: str) -> Counter[str]:
    return Counter("" if pd.isna(value) else _abbreviated(str(value)) for value in distinct[name])


def _one_code(distinct: pd.DataFrame) -> bool:
    codes = _counts(distinct, "code")
    return len(codes) == 1 and "" not in codes


def _dirty(distinct: pd.DataFrame) -> Iterator[str]:
    number = sum(str(value).endswith("-dirty") for value in distinct["commit"])
    if number:
        yield f"{number} of {len(distinct)} finished runs were made with uncommitted changes."


def _abbreviated(value: str) -> str:
    return _COMMIT.sub(lambda found: found[0][:12], value)


def _holes(runs: pd.DataFrame, cells: pd.DataFrame) -> Iterator[str]:
    wanted = runs[runs["state"] != "excluded"]
    done = int(wanted["value"].notna().sum())
    if done < len(wanted):
        others = Counter(wanted.loc[wanted["value"].isna(), "state"])
        partly = "; (k/n): k of n seeds" * bool(((cells["n"] > 0) & (cells["n"] < cells["n_planned"])).any())
        yield f"Unfinished: {done} of {len(wanted)} values are there ({count_words(others)}){partly}."
    if (cells["n"] == 1).any():
        yield "Where n = 1, one seed shows no spread."


def count_words(counts: Counter[str]) -> str:
    """`2 failed, 1 missing`."""
    return ", ".join(f"{number} {word}" for word, number in sorted(counts.items()))


def _comparison(plan: Plan, cells: pd.DataFrame) -> Iterator[str]:
    if not cells["reference"].any():
        return
    where = reference_text(plan, cells)
    for name, part in cells.groupby("evaluation", sort=False):
        if part["p"].notna().any():
            prefix = f"{short_label(plan, str(name))}: " if cells["evaluation"].nunique() > 1 else ""
            yield prefix + _model(part, where)
    if cells["by_seed"].any():
        yield (
            "by seed: the cell and the reference have values of different seeds. Their difference is taken within "
            "seeds, so it is not that of the two means, and can have the other sign."
        )
    if cells["best"].any():
        yield "Bold: not told from the best cell by simultaneous comparisons at 95 %, unless that is true of all cells."
    if cells["n"].max() >= 2 and 0 < cells.loc[cells["n"] > 0, "n"].min() < LEAST_FOR_BEST:
        yield f"Nothing is bold where a cell has fewer than {LEAST_FOR_BEST} seeds."
    if cells["n"].max() == 2:
        yield (
            "With two seeds, intervals of differences cover less than 95 % where one cell is noisier than the rest: "
            "90 to 94 % in simulated studies in which it is three times as noisy."
        )


def _model(part: pd.DataFrame, where: str) -> str:
    """Sentence on the model behind the differences of one evaluation."""
    first, alone = part.iloc[0], part.loc[part["own_variance"], "reference"]
    whose = f"{len(alone)} of {int((part['n'] > 0).sum())} cells" + ", the reference among them," * bool(alone.any())
    own = (
        f" To be safe, {whose} {'has its' if len(alone) == 1 else 'have their'} own variance, which the pooled one may "
        "understate, on degrees of freedom after Satterthwaite."
    )
    return (
        f"Differences from the reference ({where}) are least-squares estimates of cell + seed with a pooled residual "
        f"sd of {first['residual_sd']:.3g} on {first['df']} degrees of freedom.{own if len(alone) else ''} Their "
        f"p-values are adjusted for all of them (Dunnett's test{', Sidak bounds' if len(alone) else ''})."
    )


def _paper(plan: Plan, runs: pd.DataFrame, cells: pd.DataFrame) -> Iterator[str]:
    if not plan.study.papers or not cells["paper"].notna().any():
        return
    printed = cells[cells["paper"].notna()]
    found = tables_beside(plan, list(dict.fromkeys(cells["evaluation"])))
    tables = "; ".join(
        f"{short_label(plan, name)} of {clean(found[name].name)}" for name in printed["evaluation"].unique()
    )
    protocols = " | ".join(dict.fromkeys(text for text in printed["paper_protocol"] if text))
    measured = f"; measured with {protocols}" if protocols else ""
    yield f"paper: {tables}{measured}."
    marks = Counter(clean(mark) for mark in printed["paper_trust"]).most_common()
    yield f"The paper's values: {', '.join(f'{ORIGINS.get(mark, mark)} ({count})' for mark, count in marks)}."
    if differing := list(dict.fromkeys(text for text in printed["paper_differs"] if text)):
        more = f" (and {len(differing) - 1} more such lists)" if len(differing) > 1 else ""
        yield f"No difference from the paper is shown where the protocol differs: {differing[0]}{more}."
    if unknown := list(dict.fromkeys(text for text in printed["paper_unknown"] if text)):
        yield f"Not known of the paper's protocol: {unknown[0]}."
    if any(isinstance(run, FineTune) and run.recipe.augment.mixes for run in plan.runs().values()):
        yield (
            "Mixup and CutMix draw one ratio, and one choice of the two, for the whole batch here; code that trains on "
            "many GPUs draws both on each."
        )
    if cells["paper_unverified"].any():
        yield "unverified: the paper's value was not checked against a source; it enters no comparison."
    yield from _order(runs, cells)


def _order(runs: pd.DataFrame, cells: pd.DataFrame) -> Iterator[str]:
    part = cells[cells["evaluation"] == cells.loc[cells["paper"].notna(), "evaluation"].iloc[0]]
    found = order_agreement(part, model_of(part, runs))
    if found.pairs:
        yield (
            f"Order: pairs that the paper separates: {found.pairs}, in the same order here: {found.kept}; those whose "
            f"own 95 % interval here excludes zero: {found.resolved}, in the same order: {found.resolved_kept}. "
            f"The paper separates a pair by {SEPARABLE} or more, 1.96 x sqrt(2) x {PAPER_SD}, the sd of MAE's "
            f"published runs; closer pairs that differ: {found.closer}, in the same order: {found.closer_kept}. "
            "Pairs share cells, and each interval is of one pair: a description, not a test."
        )


def _assumed(plan: Plan) -> Iterator[str]:
    found = dict.fromkeys(clean(note) for run in plan.runs().values() for note in run.assumed)
    yield from (f"Assumed, where the paper does not say: {note}" for note in found)


def _measure(evaluation: Evaluation) -> tuple[str, str]:
    """What is measured, and on what."""
    data = evaluation.data
    return clean(evaluation.caption), f"on the {data.split} split of {clean(data.caption)}{_labels(data)}"


def _labels(data: Data) -> str:
    return "" if data.train_images is None else f", with {data.train_images:,} labelled training images"
