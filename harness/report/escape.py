"""Escaping of untrusted text (studies, tracebacks, environments) for terminal, Markdown, LaTeX, CSV and file names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from harness.spec import Scalar

NOTHING = "–"
"""Text of an axis that does not apply to a cell and of a missing number."""

_TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_MARKDOWN = re.compile(r"[\\`*\[\]|~$]|(?<!\w)_|_(?!\w)")
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
# Unicode categories: format (direction marks among them), lone surrogate, private, unassigned.
_DROPPED = frozenset({"Cf", "Cs", "Co", "Cn"})
_BREAKS = frozenset({"Cc", "Zl", "Zp"})
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")

# Brackets and stars stand in braces because `\\ [` and `\\ *` would be read as arguments of the line break.
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "[": "{[}", "]": "{]}", "*": "{*}", "±": r"$\pm$", "−": "$-$",
    "×": r"$\times$",
    "–": "--", "—": "---", "…": r"\ldots{}", "‘": "`", "’": "'", "“": "``", "”": "''",
    "°": r"$^\circ$",
    "≤": r"$\leq$", "≥": r"$\geq$", "→": r"$\to$", "µ": r"$\mu$", "μ": r"$\mu$",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "•": r"$\bullet$",
    "α": r"$\alpha$", "β": r"$\beta$",
    "γ": r"$\gamma$", "δ": r"$\delta$", "λ": r"$\lambda$", "σ": r"$\sigma$", "τ": r"$\tau$",
    "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}",
}  # fmt: skip
_ACCENTS = {
    "\u0300": r"\`", "\u0301": r"\'", "\u0302": r"\^", "\u0303": r"\~", "\u0304": r"\=", "\u0306": r"\u",
    "\u0307": r"\.", "\u0308": r'\"', "\u030a": r"\r", "\u030b": r"\H", "\u030c": r"\v", "\u0327": r"\c",
}  # fmt: skip


def clean(text: str) -> str:
    """One line of printable text: no terminal sequences, control or direction characters, lone surrogates."""
    plain = _TERMINAL.sub("", text)
    kinds = ((char, unicodedata.category(char)) for char in plain)
    kept = (" " if kind in _BREAKS else char for char, kind in kinds if kind not in _DROPPED)
    return " ".join("".join(kept).split())


def shown(value: Scalar) -> str:
    """Text of an axis value in tables and legends."""
    return NOTHING if value is None else clean(str(value))


def shorten(text: str, length: int) -> str:
    """Text of at most `length` characters, with an ellipsis where it was cut."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def spreadsheet(text: str) -> str:
    """Clean text that spreadsheets do not run as a formula: an apostrophe precedes = + - @, except in numbers."""
    found = clean(text)
    if not found.startswith(("=", "+", "-", "@")):
        return found
    try:
        float(found)
    except ValueError:
        return f"'{found}"
    return found


def markdown(text: str) -> str:
    """Text for a Markdown paragraph or table cell, with all markup escaped."""
    return _MARKDOWN.sub(r"\\\g<0>", clean(text)).translate(_HTML)


def markdown_table(header: Iterable[str], rule: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """GitHub Markdown of a table whose texts are escaped; rule: `---` or `---:` of each column."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *rows))


def latex(text: str) -> str:
    """ASCII text for LaTeX that pdflatex compiles without further packages.

    Letters missing in the default font are written as code points, `{[}U+4E2D{]}`.
    """
    return "".join(map(_latex_char, unicodedata.normalize("NFC", clean(text))))


def _latex_char(char: str) -> str:
    if char in _LATEX:
        return _LATEX[char]
    if char.isascii():
        return char
    base, *accents = list(unicodedata.normalize("NFD", char))
    if len(accents) == 1 and base.isascii() and accents[0] in _ACCENTS:
        return f"{_ACCENTS[accents[0]]}{{{base}}}"
    return f"{{[}}U+{ord(char):04X}{{]}}"


def file_stem(*parts: str) -> str:
    """File name without suffix from any text: letters, digits, `_` and `-`, at most 80 characters."""
    return "-".join(_UNSAFE.sub("_", part).strip("_")[:60] or "x" for part in parts)[:80]
