"""The table as LaTeX: booktabs, in floats that fit a page, however wide and long the study is."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from harness.report import escape
from harness.report.tables.table import Entry, Table

LINE = 345.0
"""Points of a line of article."""

SIZES = ((5.4, r"\normalsize"), (5.0, r"\small"), (4.6, r"\footnotesize"))
"""Points that a character takes on average, by size of the letters."""

GAP = 12.0
"""Points between two columns."""

LONG = 30
"""Characters of a text column beyond which it is broken into lines, a quarter of the line wide."""

HEADER = 60
"""Characters of a header, at most."""

ENTRY_LINE = 22
"""Characters of an entry beyond which it goes on below."""

HEADER_LINE = 14
"""Characters of a header beyond which it goes on below, at a space."""

PAGE = 42
"""Lines of a float that fits a page of article."""

ROWS = 36
"""Rows of one tabular."""

PRELUDE = r"% Needs \usepackage{booktabs}. Where the text has two columns, write table* for table."


@dataclass(frozen=True)
class _Part:
    """Some columns and rows of a table: as much as one tabular holds."""

    columns: tuple[int, ...]
    rows: tuple[tuple[Entry, ...], ...]

    @property
    def marks(self) -> set[str]:
        """The letters of the footnotes that it needs."""
        return {row[column].mark for row in self.rows for column in self.columns} - {""}


@dataclass
class _Float:
    """Content of one LaTeX float: parts of the table, their footnotes, notes. left: lines that still fit."""

    left: float
    parts: list[_Part] = field(default_factory=list)
    marks: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not self.parts and not self.notes


def latex_text(found: Table, label: str) -> str:
    """The table as LaTeX floats that need `\\usepackage{booktabs}` and nothing else.

    Columns that do not fit beside each other follow below with the axes repeated; what does not fit a page goes on in
    further floats, which refer to the first. Footnotes stand below the rows that they belong to, notes at the end.
    """
    floats = _floats(found)
    lines = [line for number, item in enumerate(floats) for line in _float(found, label, number, item)]
    return "\n".join([PRELUDE, *lines]) + "\n"


def _floats(found: Table) -> list[_Float]:
    """Tabulars, footnotes and notes, in as many floats as they need."""
    told = dict(found.footnotes)
    floats = [_Float(PAGE - _lines(found.caption))]
    for part in _parts(found):
        new = part.marks - floats[-1].marks
        cost = _height(found, part) + sum(_lines(told[mark]) for mark in new)
        item = _with_room(floats, cost)
        item.left -= cost
        item.parts.append(part)
        item.marks |= part.marks
    for note in found.notes:
        item = _with_room(floats, _lines(note))
        item.left -= _lines(note)
        item.notes.append(note)
    return floats


def _with_room(floats: list[_Float], cost: float) -> _Float:
    """The last float, or a new one behind it if that is full."""
    if cost > floats[-1].left and not floats[-1].is_empty:
        floats.append(_Float(PAGE - 1))
    return floats[-1]


def _lines(text: str) -> float:
    """Lines that a caption or a note takes, in lines of the table."""
    return 0.8 * math.ceil(len(text) / 85) + 0.4


def _parts(found: Table) -> list[_Part]:
    groups = list(_column_groups(found))
    return [
        _Part(columns, found.rows[first : first + ROWS])
        for first in range(0, max(1, len(found.rows)), ROWS)
        for columns in groups
    ]


def _column_groups(found: Table) -> Iterator[tuple[int, ...]]:
    """Columns that stand beside each other: the axes, then as many others as the line holds."""
    axes = tuple(range(found.axes))
    smallest = SIZES[-1][0]
    kept: list[int] = []
    for column in range(found.axes, len(found.header)):
        if kept and _width(found, [*axes, *kept, column], smallest) > LINE:
            yield (*axes, *kept)
            kept = []
        kept.append(column)
    yield (*axes, *kept)


def _length(found: Table, column: int) -> int:
    lines = (line for row in found.rows for line in _entry_lines(row[column].text, column < found.axes))
    return max(map(len, (*_header(found, column), *lines)))


def _entry_lines(text: str, is_axis: bool) -> list[str]:
    """The lines of an entry: what stands in brackets behind a number goes below it if it is long."""
    if is_axis or len(text) <= ENTRY_LINE:
        return [text]
    number, bracket, behind = text.partition(" (")
    parts = (number, bracket.strip() + behind)
    return [line for part in parts for line in textwrap.wrap(part, ENTRY_LINE + 8, break_long_words=False)]


def _header(found: Table, column: int) -> list[str]:
    """The lines of a header."""
    text = escape.shorten(found.header[column], HEADER).replace(" = ", "\u00a0=\u00a0")
    return textwrap.wrap(text, HEADER_LINE, break_long_words=False, break_on_hyphens=False) or [""]


def _is_long(found: Table, column: int) -> bool:
    return column < found.axes and _length(found, column) > LONG


def _width(found: Table, columns: Iterable[int], character: float) -> float:
    """Points that some columns take, the space between them included."""
    return sum(
        GAP + (LINE / 4 if _is_long(found, column) else _length(found, column) * character) for column in columns
    )


def _height(found: Table, part: _Part) -> float:
    """Lines that a tabular takes, the rules and the space around it included."""
    long = {column for column in part.columns if _is_long(found, column)}
    rows = (
        max(
            math.ceil(len(row[column].text) / 14)
            if column in long
            else len(_entry_lines(row[column].text, column < found.axes))
            for column in part.columns
        )
        for row in part.rows
    )
    return sum(rows) + 3 + max(len(_header(found, column)) for column in part.columns)


def _float(found: Table, label: str, number: int, item: _Float) -> list[str]:
    continued = rf"Table~\ref{{{label}}}, continued\par\medskip"
    heading = [continued] if number else [rf"\caption{{{escape.latex(found.caption)}}}", rf"\label{{{label}}}"]
    lines = [r"\begin{table}", r"\centering", *heading]
    for place, part in enumerate(item.parts):
        lines += [r"\par\medskip"] * bool(place) + _tabular(found, part)
    chosen = [(mark, text) for mark, text in found.footnotes if mark in item.marks]
    below = [rf"\textsuperscript{{{mark}}}\,{escape.latex(text)}" for mark, text in chosen]
    return [*lines, *map(_below, [*below, *map(escape.latex, item.notes)]), r"\end{table}"]


def _tabular(found: Table, part: _Part) -> list[str]:
    fitting = (name for character, name in SIZES if _width(found, part.columns, character) <= LINE)
    size = next(fitting, SIZES[-1][1])
    kinds = "".join(_kind(found, column) for column in part.columns)
    return [
        rf"{{{size}",
        rf"\begin{{tabular}}{{{kinds}}}",
        r"\toprule",
        _row(_stacked(_header(found, column), "l" if column < found.axes else "r") for column in part.columns),
        r"\midrule",
        *(_row(_entry(row[column], column < found.axes) for column in part.columns) for row in part.rows),
        r"\bottomrule",
        r"\end{tabular}}",
    ]


def _stacked(lines: list[str], side: str) -> str:
    if len(lines) == 1:
        return escape.latex(lines[0])
    joined = r"\\".join(map(escape.latex, lines))
    return rf"\shortstack[{side}]{{{joined}}}"


def _kind(found: Table, column: int) -> str:
    if column >= found.axes:
        return "r"
    return r"p{0.25\linewidth}" if _is_long(found, column) else "l"


def _below(text: str) -> str:
    return rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {text}}}"


def _entry(entry: Entry, is_axis: bool) -> str:
    text = _stacked(_entry_lines(entry.text, is_axis), "r")
    mark = rf"\textsuperscript{{{entry.mark}}}" if entry.mark else ""
    return (rf"\textbf{{{text}}}" if entry.bold else text) + mark


def _row(entries: Iterable[str]) -> str:
    return " & ".join(entries) + r" \\"
