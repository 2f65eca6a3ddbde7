"""The aggregated table: from cells to entries, and from entries to plain rows, Markdown and CSV."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.report import escape
from harness.report.collect import STATES, axes_of, records
from harness.report.escape import NOTHING, clean, shown
from harness.report.tables.footnotes import caption, count_words, notes
from harness.study import Plan

Record = Mapping[str, Any]
"""One row of the frame of cells."""

_SHOWN_LENGTH = 60


@dataclass(frozen=True)
class Entry:
    """One entry of the table.

    number: the value as shown, by which a page sorts; None where the entry shows none. mark: letter of the footnote.
    """

    text: str
    mark: str = ""
    bold: bool = False
    number: float | None = None

    def plain(self) -> str:
        """Text for a terminal: `excluded [a]`; bold entries end in a star, `84.50 ± 0.71 *`."""
        return self.text + " *" * self.bold + (f" [{self.mark}]" if self.mark else "")


@dataclass(frozen=True, kw_only=True)
class Table:
    """The aggregated table, from which Markdown, LaTeX, page and terminal are made; texts are not escaped yet.

    axes: number of leading columns that hold axes. footnotes: pairs of letter and text. notes: sentences below it.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    axes: int
    footnotes: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    def plain_rows(self) -> tuple[tuple[str, ...], ...]:
        """Rows as strings for a terminal."""
        return tuple(tuple(entry.plain() for entry in row) for row in self.rows)

    def plain_notes(self) -> tuple[str, ...]:
        """Footnotes and notes as lines."""
        return (*(f"[{mark}] {text}" for mark, text in self.footnotes), *self.notes)


@dataclass(frozen=True)
class _Column:
    header: str
    show: Callable[[Record], Entry]


def table(plan: Plan, runs: pd.DataFrame, cells: pd.DataFrame) -> Table:
    """Table with one row per cell in the study's order and one group of columns per evaluation."""
    axes = axes_of(cells)
    marks = {reason: _letters(number) for number, reason in enumerate(_reasons(cells))}
    names = list(dict.fromkeys(cells["evaluation"]))
    groups = {name: _columns(name, cells[cells["evaluation"] == name], marks, len(names)) for name in names}
    rows = []
    for _, cell in cells.groupby("cell", sort=True):
        found = {record["evaluation"]: record for record in records(cell)}
        point = next(iter(found.values()))
        entries = [_axis(point[axis]) for axis in axes]
        for name, columns in groups.items():
            entries += [column.show(found[name]) if name in found else Entry(NOTHING) for column in columns]
        rows.append(tuple(entries))
    return Table(
        caption=caption(plan),
        header=(*map(clean, axes), *(column.header for columns in groups.values() for column in columns)),
        rows=tuple(rows),
        axes=len(axes),
        footnotes=tuple((mark, reason) for reason, mark in marks.items()),
        notes=notes(plan, runs, cells),
    )


def csv_text(frame: pd.DataFrame) -> str:
    """A frame of runs or cells as CSV: numbers in full precision, texts in one printable line each."""
    safe = frame.copy()
    for name in frame.columns:
        if not pd.api.types.is_numeric_dtype(frame[name].dtype):
            safe[name] = frame[name].map(_clean_value)
    return str(safe.rename(columns=escape.spreadsheet).to_csv(index=False, lineterminator="\n"))


def markdown_text(found: Table) -> str:
    """GitHub Markdown of the table: caption above, footnotes and notes below."""
    rule = ["---" if number < found.axes else "---:" for number in range(len(found.header))]
    rows = [[_markdown_entry(entry) for entry in row] for row in found.rows]
    body = escape.markdown_table(map(escape.markdown, found.header), rule, rows)
    below = [f"<sup>{mark}</sup> {escape.markdown(text)}" for mark, text in found.footnotes]
    below += [escape.markdown(text) for text in found.notes]
    return "\n\n".join([escape.markdown(found.caption), body, *below]) + "\n"


def decimals(values: Sequence[float]) -> int:
    """Digits after the point, at least two, that give the largest value four significant digits."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return 2 if largest == 0 else max(2, 3 - math.floor(math.log10(largest)))


def _columns(name: str, cells: pd.DataFrame, marks: Mapping[str, str], groups: int) -> list[_Column]:
    """Columns of one evaluation: paper, ours, n unless all cells have the same, interval, differences."""
    title, digits = clean(name) or "result", decimals(list(cells["mean"]))
    prefix = f"{title} " if groups > 1 else ""
    counts = cells[["n", "n_planned"]][cells["n_planned"] > 0].drop_duplicates().to_numpy().tolist()
    uniform = len(counts) == 1 and counts[0][0] == counts[0][1]
    columns = []
    if "paper" in cells and cells["paper"].notna().any():
        columns.append(_Column(f"{prefix}paper", _paper))
    ours = f"{title} (n = {counts[0][0]})" if uniform else title
    columns.append(_Column(ours, lambda record: _ours(record, digits, marks)))
    if not uniform:
        columns.append(_Column(f"{prefix}n", _count))
    if cells["low"].notna().any():
        columns.append(_Column(f"{prefix}95 % interval", lambda record: _interval(record, digits)))
    if cells["reference"].any():
        columns.append(_Column(f"{prefix}vs reference", lambda record: _difference(record, digits)))
    if "paper_delta" in cells and cells["paper_delta"].notna().any():
        columns.append(_Column(f"{prefix}vs paper", lambda record: _signed_entry(record["paper_delta"], digits)))
    return columns


def _ours(record: Record, digits: int, marks: Mapping[str, str]) -> Entry:
    number = _rounded(record["mean"], digits) if record["n"] else None
    return Entry(_status(record, digits), marks.get(record["reason"], ""), bool(record["best"]), number)


def _status(record: Record, digits: int) -> str:
    """Mean and standard deviation, followed (or without values replaced) by the states of seeds without a value."""
    holes = {state: int(record[state]) for state in STATES if state != "done" and record[state]}
    seeds = sum(int(record[state]) for state in STATES)
    if unmeasured := seeds - record["values"] - sum(holes.values()):
        holes["without a value"] = unmeasured
    if not record["n"]:
        return next(iter(holes)) if len(holes) == 1 else count_words(Counter(holes))
    number = f"{record['mean']:.{digits}f}"
    if not math.isnan(record["sd"]):
        number += f" ± {record['sd']:.{digits}f}"
    words = [f"{held} of {seeds} {word}" for word, held in sorted(holes.items())]
    return f"{number} ({', '.join(words)})" if words else number


def _count(record: Record) -> Entry:
    done, planned = record["n"], record["n_planned"]
    if not planned:
        return Entry(NOTHING)
    return Entry(str(done) if done == planned else f"{done} of {planned}", number=float(done))


def _interval(record: Record, digits: int) -> Entry:
    if math.isnan(record["low"]):
        return Entry(NOTHING)
    low, high = record["low"], record["high"]
    return Entry(f"{_number(low, digits)} to {_number(high, digits)}", number=_rounded(low, digits))


def _difference(record: Record, digits: int) -> Entry:
    if record["reference"]:
        return Entry("reference")
    told = (_signed(record["difference"], digits), _significance(record["p"]), "(by seed)" * bool(record["by_seed"]))
    return Entry(" ".join(filter(None, told)), number=_unsigned_zero(record["difference"], digits))


def _signed_entry(value: float, digits: int) -> Entry:
    return Entry(_signed(value, digits), number=_unsigned_zero(value, digits))


def _unsigned_zero(value: float, digits: int) -> float | None:
    """As `_rounded`, for values that `_signed` shows: what rounds to zero has no sign there."""
    return _rounded(round(value, digits) + 0.0, digits)


def _rounded(value: float, digits: int) -> float | None:
    """The value as shown: pages sort by what a reader sees, so entries that look equal stay in the study's order."""
    return None if math.isnan(value) else float(f"{value:.{digits}f}")


def _significance(p: float) -> str:
    """`n.s.` from 0.05 upwards, nothing without a p-value."""
    if math.isnan(p):
        return ""
    if p >= 0.05:
        return "n.s."
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _signed(value: float, digits: int) -> str:
    """Text with a sign, which a value that rounds to zero lacks."""
    if math.isnan(value):
        return NOTHING
    size = f"{abs(value):.{digits}f}"
    if not float(size):
        return size
    return ("+" if value > 0 else "−") + size


def _number(value: float, digits: int) -> str:
    return ("−" if value < 0 else "") + f"{abs(value):.{digits}f}"


def _paper(record: Record) -> Entry:
    value = record["paper"]
    if math.isnan(value):
        return Entry(NOTHING)
    text = f"{value:.1f}" if math.isclose(value, round(value, 1)) else f"{value:g}"
    return Entry(f"{text} (unverified)" if record["paper_unverified"] else text, number=float(text))


def _axis(value: Any) -> Entry:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return Entry(escape.shorten(shown(value), _SHOWN_LENGTH), number=float(value) if numeric else None)


def _clean_value(value: object) -> object:
    return escape.spreadsheet(value) if isinstance(value, str) else value


def _reasons(cells: pd.DataFrame) -> list[str]:
    return [reason for reason in dict.fromkeys(cells["reason"]) if reason]


def _letters(number: int) -> str:
    """a, b, ... z, aa, ab, ..."""
    head, tail = divmod(number, 26)
    return (_letters(head - 1) if head else "") + chr(ord("a") + tail)


def _markdown_entry(entry: Entry) -> str:
    text = escape.markdown(entry.text)
    return (f"**{text}**" if entry.bold else text) + (f" <sup>{entry.mark}</sup>" if entry.mark else "")
