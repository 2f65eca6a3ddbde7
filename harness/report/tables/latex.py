"""The table as LaTeX: one booktabs table that fits a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from harness.report import escape
from harness.report.tables.table import BETTER, REFERENCE, WORSE, Entry, Table

LINE = 345.0
"""Points of a line of article, the narrowest class in use."""

SIZES = ((5.4, r"\normalsize"), (5.0, r"\small"), (4.6, r"\footnotesize"), (4.1, r"\scriptsize"))
"""Points that a character takes on average, by size of the letters."""

GAP = 12.0
"""Points between two columns."""

ROWS = 38
"""Rows that a page of article holds beside caption and notes."""

SIGNS = {BETTER: r"$\uparrow$", WORSE: r"$\downarrow$", REFERENCE: r"$\bullet$", "": ""}

SHRUNK = r"\resizebox*{!}{\ifdim\totalheight>0.75\textheight 0.75\textheight\else\totalheight\fi}{%"
"""Begins a box that is made no higher than a page holds. Starred: half of a tabular stands below the line."""

PRELUDE = (
    r"% Needs \usepackage{booktabs} and \usepackage{graphicx}. Where the text has two columns, write table* for table."
)


def latex_text(found: Table, label: str) -> str:
    """The table as one LaTeX float that needs the packages booktabs and graphicx.

    Letters are as large as its width allows; a table that is wider in the smallest, or longer than a page, is scaled.
    The value of the first axis stands at the first of the rows that share it.
    """
    lines = [
        PRELUDE,
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape.latex(' '.join([found.caption, *found.measures]))}}}",
        rf"\label{{{label}}}",
        r"\par\smallskip",
        *_scaled(found, list(_tabular(found))),
        *_below(_notes(found)),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _scaled(found: Table, tabular: Sequence[str]) -> list[str]:
    """The tabular in letters that fit the line, scaled where none do or where a page is too short."""
    fitting = [name for character, name in SIZES if _width(found, character) <= LINE]
    lines = [rf"{{{fitting[0]}", *tabular, "}"] if fitting else [r"\resizebox{\linewidth}{!}{%", *tabular, "}%"]
    return [SHRUNK, *lines, "}"] if len(found.rows) > ROWS else lines


def _width(found: Table, character: float) -> float:
    """Points that the table takes in letters of that width."""
    rows = [found.header, *((entry.plain() for entry in row) for row in found.rows)]
    return sum(GAP + character * max(map(len, column)) for column in zip(*map(tuple, rows), strict=True))


def _tabular(found: Table) -> Iterator[str]:
    kinds = "".join("l" if column < found.axes else "r" for column in range(len(found.header)))
    yield rf"\begin{{tabular}}{{{kinds}}}"
    yield r"\toprule"
    yield _row(map(escape.latex, found.header))
    yield r"\midrule"
    groups = _groups(found)
    for place, row in enumerate(found.rows):
        repeated = groups and place > 0 and row[0] == found.rows[place - 1][0]
        if groups and place > 0 and not repeated:
            yield r"\addlinespace"
        first = "" if repeated else _entry(row[0])
        yield _row([first, *map(_entry, row[1:])])
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _groups(found: Table) -> bool:
    """True if rows that share their first axis follow each other, so that it need not be repeated."""
    first = [row[0].text for row in found.rows]
    changes = sum(a != b for a, b in pairwise(first)) + 1
    return found.axes > 1 and changes == len(set(first)) < len(first)


def _notes(found: Table) -> list[str]:
    marks = {entry.mark for row in found.rows for entry in row}
    told = [rf"\textsuperscript{{{mark}}}\,{escape.latex(text)}" for mark, text in found.footnotes if mark in marks]
    return [*told, *map(escape.latex, found.notes)]


def _below(notes: Sequence[str]) -> list[str]:
    """Paragraphs of one box, so that all are as far apart."""
    return [r"\par\smallskip\parbox{\linewidth}{\footnotesize", "\n\\par ".join(notes) + "}"] if notes else []


def _entry(entry: Entry) -> str:
    text = escape.latex(entry.text)
    mark = rf"\textsuperscript{{{entry.mark}}}" if entry.mark else ""
    # Into the space between columns, so that numbers with and without a sign stand below each other.
    sign = rf"\rlap{{\,{SIGNS[entry.sign]}}}" if entry.sign else ""
    return (rf"\textbf{{{text}}}" if entry.bold else text) + mark + sign


def _row(entries: Iterable[str]) -> str:
    return " & ".join(entries) + r" \\"
