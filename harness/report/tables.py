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
from harness.report.footnotes import caption, count_words, notes
from harness.study import Plan

Record = Mapping[str, Any]
"""One row of the frame of cells."""

_SHOWN_LENGTH = 60


@dataclass(frozen=True)
class Entry:
    """One place of the table: its text, the letter of its footnote, if any, and whether it is set in bold."""

    text: str
    mark: str = ""
    bold: bool = False

    def plain(self) -> str:
        """As it is printed on a terminal: `excluded [a]`; what would be bold has a star, `84.50 ± 0.71 *`."""
        return self.text + " *" * self.bold + (f" [{self.mark}]" if self.mark else "")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table to be shown; texts are clean but not yet escaped.

    axes: number of leading columns that hold axes. footnotes: letter and text. notes: sentences below it.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    axes: int
    footnotes: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    def plain_rows(self) -> tuple[tuple[str, ...], ...]:
        """The rows as strings, for a terminal."""
        return tuple(tuple(entry.plain() for entry in row) for row in self.rows)

    def plain_notes(self) -> tuple[str, ...]:
        """Footnotes and notes as lines."""
        return (*(f"[{mark}] {text}" for mark, text in self.footnotes), *self.notes)


@dataclass(frozen=True)
class _Column:
    header: str
    show: Callable[[Record], Entry]


def table(plan: Plan, runs: pd.DataFrame, cells: pd.DataFrame) -> Table:
    """The table of a summary: a row a cell in the study's order, a group of columns for each evaluation."""
    axes = axes_of(cells)
    marks = {reason: _letters(number) for number, reason in enumerate(_reasons(cells))}
    names = list(dict.fromkeys(cells["evaluation"]))
    groups = {name: _columns(name, cells[cells["evaluation"] == name], marks, len(names)) for name in names}
    rows = []
    for _, cell in cells.groupby("cell", sort=True):
        found = {record["evaluation"]: record for record in records(cell)}
        point = next(iter(found.values()))
        entries = [Entry(_axis_value(point[axis])) for axis in axes]
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
    """The table as GitHub's Markdown, with its caption above and its notes below."""
    rule = ["---" if number < found.axes else "---:" for number in range(len(found.header))]
    lines = [[escape.markdown(text) for text in found.header], rule]
    lines += [[_markdown_entry(entry) for entry in row] for row in found.rows]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    below = [f"<sup>{mark}</sup> {escape.markdown(text)}" for mark, text in found.footnotes]
    below += [escape.markdown(text) for text in found.notes]
    return "\n\n".join([escape.markdown(found.caption), body, *below]) + "\n"


def decimals(values: Sequence[float]) -> int:
    """Digits after the point that show the largest value with four significant digits, at least two."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return 2 if largest == 0 else max(2, 3 - math.floor(math.log10(largest)))


def _columns(name: str, cells: pd.DataFrame, marks: Mapping[str, str], groups: int) -> list[_Column]:
    """The columns of one evaluation: paper, ours, n where it is not the same everywhere, interval, differences."""
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
        columns.append(_Column(f"{prefix}vs paper", lambda record: Entry(_signed(record["paper_delta"], digits))))
    return columns


def _ours(record: Record, digits: int, marks: Mapping[str, str]) -> Entry:
    return Entry(_status(record, digits), marks.get(record["reason"], ""), bool(record["best"]))


def _status(record: Record, digits: int) -> str:
    """The number; in its place, or behind it, where the seeds without a number stand."""
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
    return Entry(str(done) if done == planned else f"{done} of {planned}")


def _interval(record: Record, digits: int) -> Entry:
    if math.isnan(record["low"]):
        return Entry(NOTHING)
    return Entry(f"{_number(record['low'], digits)} to {_number(record['high'], digits)}")


def _difference(record: Record, digits: int) -> Entry:
    if record["reference"]:
        return Entry("reference")
    told = (_signed(record["difference"], digits), _significance(record["p"]), "(by seed)" * bool(record["by_seed"]))
    return Entry(" ".join(filter(None, told)))


def _significance(p: float) -> str:
    """`n.s.` from 0.05 upwards, nothing without a p-value."""
    if math.isnan(p):
        return ""
    if p >= 0.05:
        return "n.s."
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _signed(value: float, digits: int) -> str:
    """With its sign, unless it rounds to zero."""
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
    return Entry(f"{text} (unverified)" if record["paper_unverified"] else text)


def _axis_value(value: Any) -> str:
    return escape.shorten(shown(value), _SHOWN_LENGTH)


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
