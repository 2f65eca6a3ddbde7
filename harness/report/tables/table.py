"""The aggregated table: from cells to entries, and from entries to plain rows, Markdown and CSV."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from html import escape as escape_html
from typing import Any, Self

import pandas as pd
from tabulate import tabulate

from harness.report import escape
from harness.report.collect import STATES, axes_of, naming_axes, records, starts_from_scratch
from harness.report.escape import NOTHING, shown
from harness.report.labels import axis_label, short_label
from harness.report.numbers import number, published, signed
from harness.report.tables.footnotes import caption, count_words, measures, notes, reading
from harness.spec import Scalar
from harness.stats.intervals import ERROR
from harness.study import Plan

BETTER, WORSE, REFERENCE = "↑", "↓", "•"

ESTIMATED = 10
"""Digits in CSV files of what is estimated from runs: significant ones, and after the point. Those behind depend on the
processor."""

LETTERS = "abcd"
"""Letters of footnotes."""

_SHOWN_LENGTH = 60
_REASON_LENGTH = 100


@dataclass(frozen=True)
class Entry:
    """One entry of the table.

    number: the value as shown, by which a page sorts; None where the entry shows none. mark: letter of the footnote.
    sign: BETTER or WORSE than the reference, or REFERENCE; empty otherwise.
    """

    text: str
    mark: str = ""
    bold: bool = False
    number: float | None = None
    sign: str = ""

    def plain(self) -> str:
        """Text for a terminal: `excluded [a]`; bold entries end in a star, `84.50 ± 0.71 ↑*`."""
        parts = (self.text, self.sign + "*" * self.bold, f"[{self.mark}]" * bool(self.mark))
        return " ".join(filter(None, parts))


@dataclass(frozen=True, kw_only=True)
class Table:
    """The aggregated table, from which Markdown, LaTeX, page and terminal are made; texts are not escaped yet.

    axes: number of leading columns that hold axes. groups: numbers of columns of each evaluation. measures: sentences
    on what each column measures, where the caption has no room for them. footnotes: pairs of letter and text. notes:
    at most four short sentences below it. reading: how the numbers were made, in full sentences, for who wants to know.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    axes: int
    groups: tuple[int, ...] = ()
    measures: tuple[str, ...] = ()
    footnotes: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    reading: tuple[str, ...] = ()

    def plain_rows(self) -> tuple[tuple[str, ...], ...]:
        """Rows as strings for a terminal."""
        return tuple(tuple(entry.plain() for entry in row) for row in self.rows)

    def html(self) -> str:
        """HTML of the table with caption and notes, for a notebook."""
        head = "".join(f"<th>{escape_html(text)}</th>" for text in self.header)
        body = "".join(f"<tr>{''.join(map(_html_entry, row))}</tr>" for row in self.rows)
        notes = "".join(f"<p>{escape_html(text)}</p>" for text in self.plain_notes())
        caption = f"<caption>{escape_html(self.caption)}</caption>"
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"

    def _repr_html_(self) -> str:
        return self.html()

    def __str__(self) -> str:
        rows = tabulate(self.plain_rows(), self.header, "simple", disable_numparse=True)
        return "\n".join([rows, *self.plain_notes()])

    def plain_notes(self) -> tuple[str, ...]:
        """Footnotes and notes as lines."""
        notes = (note.replace("Bold:", "Bold (*):") for note in self.notes)
        return (*(f"[{mark}] {text}" for mark, text in self.footnotes), *notes)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One evaluation of a cell over its seeds: the columns of `harness.report.tables.statistics.summary` that it shows.

    states: number of runs in each state. paper: the published value, NaN where there is none.
    """

    evaluation: str
    n: int
    n_planned: int
    mean: float
    sd: float
    low: float
    high: float
    values: int
    reference: bool
    difference: float
    p: float
    best: bool
    by_seed: bool
    reason: str
    states: Mapping[str, int]
    paper: float = math.nan
    paper_unverified: bool = False
    paper_delta: float = math.nan

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        """The cell of a row of the frame."""
        named = {field.name: record[field.name] for field in fields(cls) if field.name in record}
        return cls(**named, states={state: int(record[state]) for state in STATES})

    @property
    def sign(self) -> str:
        """Sign for better or worse than the reference beyond noise, or for the reference itself; else empty."""
        if self.reference:
            return REFERENCE
        if not self.p < ERROR:  # NaN is not told either
            return ""
        return BETTER if self.difference > 0 else WORSE


@dataclass(frozen=True)
class _Column:
    header: str
    show: Callable[[Cell], Entry]


def table(plan: Plan, runs: pd.DataFrame, cells: pd.DataFrame, *, wide: bool = False) -> Table:
    """Table with one row a cell in the study's order.

    Compact, each evaluation has one column of `mean ± sd` with a sign against the reference, and the paper's value
    beside the one it belongs to; axes that all cells share stand in the caption, and one that names every cell stands
    for the others. Wide, it has columns of n, interval, difference and adjusted p-value too, and all axes.
    """
    marks = _marks(cells)
    names = list(dict.fromkeys(cells["evaluation"]))
    groups = {name: [Cell.of(record) for record in records(cells[cells["evaluation"] == name])] for name in names}
    columns = {name: _columns(plan, name, found, marks, wide=wide) for name, found in groups.items()}
    axes = axes_of(cells)
    varying = axes if wide else naming_axes(cells)
    fixed = {
        axis_label(plan, axis): shown(cells[axis].iloc[0])
        for axis in axes
        if axis not in varying and cells[axis].map(shown).nunique() == 1
    }
    scratch = from_scratch(plan)
    rows = []
    for _, cell in cells.groupby("cell", sort=True):
        found = {record["evaluation"]: Cell.of(record) for record in records(cell)}
        point = tuple(cell.iloc[0][axis] for axis in axes)
        entries = _point([cell.iloc[0][axis] for axis in varying], named=point in scratch)
        for name, group in columns.items():
            entries += [column.show(found[name]) if name in found else Entry(NOTHING) for column in group]
        rows.append(tuple(entries))
    return Table(
        caption=caption(plan, fixed, _uniform([cell for group in groups.values() for cell in group])),
        header=(
            *(axis_label(plan, axis) for axis in varying),
            *(column.header for group in columns.values() for column in group),
        ),
        rows=tuple(rows),
        axes=len(varying),
        groups=tuple(map(len, columns.values())),
        measures=told if len(told := measures(plan)) > 1 else (),
        footnotes=_footnotes(marks),
        notes=notes(plan, runs, cells, bold=any(entry.bold for row in rows for entry in row), wide=wide),
        reading=reading(plan, runs, cells),
    )


def csv_text(frame: pd.DataFrame, digits: int | None = None) -> str:
    """A frame as CSV: floats with so many digits, or exactly without; texts in one printable line each."""
    safe = frame.copy()
    for name in frame.columns:
        if not pd.api.types.is_numeric_dtype(frame[name].dtype):
            safe[name] = frame[name].map(_clean_value)
        elif digits is not None and pd.api.types.is_float_dtype(frame[name].dtype):
            safe[name] = frame[name].map(lambda value: float(f"{round(value, digits):.{digits}g}"))
    return str(safe.rename(columns=escape.spreadsheet).to_csv(index=False, lineterminator="\n"))


def markdown_text(found: Table) -> str:
    """GitHub Markdown of the table: caption above, notes below, how to read it folded behind them."""
    rule = ["---" if number < found.axes else "---:" for number in range(len(found.header))]
    rows = [[_markdown_entry(entry) for entry in row] for row in found.rows]
    body = escape.markdown_table(map(escape.markdown, found.header), rule, rows)
    below = [f"<sup>{mark}</sup> {escape.markdown(text)}" for mark, text in found.footnotes]
    below += [escape.markdown(text) for text in found.notes]
    more = "\n".join(f"- {escape.markdown(text)}" for text in found.reading)
    folded = ["<details><summary>How to read this</summary>", more, "</details>"] if more else []
    return "\n\n".join([escape.markdown(found.caption), body, *below, *folded]) + "\n"


def decimals(values: Sequence[float]) -> int:
    """Digits after the point, at least two, that give the largest value four significant digits."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return 2 if largest == 0 else max(2, 3 - math.floor(math.log10(largest)))


def _columns(plan: Plan, name: str, cells: Sequence[Cell], marks: Mapping[str, str], *, wide: bool) -> list[_Column]:
    """Columns of one evaluation: ours and the paper's value; wide also n, interval and differences."""
    title, digits = short_label(plan, name), decimals([cell.mean for cell in cells])
    several = len(plan.columns()) > 1
    # Where no cell can be told from the best, bold would say nothing.
    plainly = all(cell.best for cell in cells if cell.n)
    # In the wide table also of one evaluation, as a terminal may show these columns below the first.
    prefix = f"{title.removesuffix(' (%)')} " if several or wide else ""
    columns = [_Column(title, lambda cell: _ours(cell, digits, marks, plainly, signs=not wide))]
    if any(not math.isnan(cell.paper) for cell in cells):
        columns.append(_Column(f"{prefix}paper" if wide else "paper", _paper if wide else _paper_in_short))
    if not wide:
        return columns
    columns.append(_Column(f"{prefix}n", _count))
    if any(not math.isnan(cell.low) for cell in cells):
        columns.append(_Column(f"{prefix}95 % interval", lambda cell: _interval(cell, digits)))
    if any(cell.reference for cell in cells):
        columns.append(_Column(f"{prefix}vs reference", lambda cell: _difference(cell, digits)))
    if any(not math.isnan(cell.paper_delta) for cell in cells):
        columns.append(_Column(f"{prefix}vs paper", lambda cell: _signed_entry(cell.paper_delta, digits)))
    return columns


def _uniform(cells: Iterable[Cell]) -> int | None:
    """Number of units that every cell with values to measure has; None where they differ."""
    counts = {(cell.n, cell.n_planned) for cell in cells if cell.n_planned}
    ((n, planned),) = counts if len(counts) == 1 else [(0, 1)]
    return n if n == planned else None


def from_scratch(plan: Plan) -> set[tuple[Scalar, ...]]:
    """Cells whose evaluations all start from scratch, as points of the grid."""
    return {
        tuple(row.axes.values())
        for row in plan.rows
        if row.evaluations and all(map(starts_from_scratch, row.evaluations.values()))
    }


def _point(values: Sequence[Scalar], *, named: bool) -> list[Entry]:
    """Entries of the axes. named: a cell from scratch, which says so though no axis does."""
    entries = [_axis(value) for value in values]
    texts = [entry.text for entry in entries]
    if named and NOTHING in texts and not any("scratch" in text for text in texts):
        entries[texts.index(NOTHING)] = Entry("from scratch")
    return entries


def _ours(cell: Cell, digits: int, marks: Mapping[str, str], plainly: bool, *, signs: bool) -> Entry:
    value = _rounded(cell.mean, digits) if cell.n else None
    bold, sign = cell.best and not plainly, cell.sign if signs and cell.n else ""
    return Entry(_status(cell, digits, brief=signs), marks.get(cell.reason, ""), bold, value, sign)


def _status(cell: Cell, digits: int, *, brief: bool) -> str:
    """Mean and standard deviation, followed (or without values replaced) by the states of seeds without a value.

    brief: only how many seeds have a value, `(4/5)`.
    """
    holes = {state: held for state, held in cell.states.items() if state != "done" and held}
    seeds = sum(cell.states.values())
    if unmeasured := seeds - cell.values - sum(holes.values()):
        holes["without a value"] = unmeasured
    if not cell.n:
        return next(iter(holes)) if len(holes) == 1 else count_words(Counter(holes))
    text = number(cell.mean, digits)
    if not math.isnan(cell.sd):
        text += f" ± {cell.sd:.{digits}f}"
    if holes and brief:
        return f"{text} ({cell.values}/{seeds})"
    words = [f"{held} of {seeds} {word}" for word, held in sorted(holes.items())]
    return f"{text} ({', '.join(words)})" if words else text


def _count(cell: Cell) -> Entry:
    if not cell.n_planned:
        return Entry(NOTHING)
    return Entry(str(cell.n) if cell.n == cell.n_planned else f"{cell.n} of {cell.n_planned}", number=float(cell.n))


def _interval(cell: Cell, digits: int) -> Entry:
    if math.isnan(cell.low):
        return Entry(NOTHING)
    return Entry(f"{number(cell.low, digits)} to {number(cell.high, digits)}", number=_rounded(cell.low, digits))


def _difference(cell: Cell, digits: int) -> Entry:
    if cell.reference:
        return Entry("reference")
    told = (signed(cell.difference, digits), _significance(cell.p), "(by seed)" * cell.by_seed)
    return Entry(" ".join(filter(None, told)), number=_unsigned_zero(cell.difference, digits))


def _signed_entry(value: float, digits: int) -> Entry:
    return Entry(signed(value, digits), number=_unsigned_zero(value, digits))


def _unsigned_zero(value: float, digits: int) -> float | None:
    """As `_rounded`, for values that `signed` shows: what rounds to zero has no sign there."""
    return _rounded(round(value, digits) + 0.0, digits)


def _rounded(value: float, digits: int) -> float | None:
    """The value as shown: pages sort by what a reader sees, so entries that look equal stay in the study's order."""
    return None if math.isnan(value) else float(f"{value:.{digits}f}")


def _significance(p: float) -> str:
    """`n.s.` from ERROR upwards, nothing without a p-value."""
    if math.isnan(p):
        return ""
    if p >= ERROR:
        return "n.s."
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _paper(cell: Cell, unverified: str = " (unverified)") -> Entry:
    if math.isnan(cell.paper):
        return Entry(NOTHING)
    text = published(cell.paper)
    return Entry(text + unverified * cell.paper_unverified, number=float(text))


def _paper_in_short(cell: Cell) -> Entry:
    return _paper(cell, unverified="?")


def _axis(value: Any) -> Entry:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return Entry(escape.shorten(shown(value), _SHOWN_LENGTH), number=float(value) if numeric else None)


def _clean_value(value: object) -> object:
    return escape.spreadsheet(value) if isinstance(value, str) else value


def _marks(cells: pd.DataFrame) -> dict[str, str]:
    """The letter of each reason; those after the first few share the last letter."""
    reasons = [reason for reason in dict.fromkeys(cells["reason"]) if reason]
    last = len(LETTERS) - 1
    return {reason: LETTERS[min(place, last)] for place, reason in enumerate(reasons)}


def _footnotes(marks: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Letter and reason, shortened."""
    held = Counter(marks.values())
    alone = [(mark, escape.shorten(reason, _REASON_LENGTH)) for reason, mark in marks.items() if held[mark] == 1]
    return (*alone, *((mark, f"{count} other reasons, in runs.csv") for mark, count in held.items() if count > 1))


def _html_entry(entry: Entry) -> str:
    text = escape_html(f"{entry.text} {entry.sign}".rstrip())
    mark = f"<sup>{escape_html(entry.mark)}</sup>" if entry.mark else ""
    return f"<td>{f'<b>{text}</b>' if entry.bold else text}{mark}</td>"


def _markdown_entry(entry: Entry) -> str:
    text = escape.markdown(entry.text)
    text = f"**{text}**" if entry.bold else text
    return text + (f" {entry.sign}" if entry.sign else "") + (f" <sup>{entry.mark}</sup>" if entry.mark else "")
