"""report.html: one file that needs no network, for a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from harness.report.escape import NOTHING
from harness.report.tables.table import Table

FILE = "report.html"

STACKED = 4
"""Columns up to which those of a small table need no labels where they stand below each other on a narrow screen."""

SHORT = 24
"""Length of a text of a small table below which it is not broken."""

NARROW = 46
"""Characters that stand beside each other on a telephone."""

ONE_COLUMN = 1000
"""Dots that a figure of one column does not reach in width, and one of two does."""

BUTTON = 6
"""Characters that the button of a row takes."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A small table of the page, such as claims or the findings of an audit; texts are plain.

    tones: of each row: good, bad, open, or empty where there is nothing to judge. Its colour only repeats what the
    row says in words. folded: the table is shown when it is asked for.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    tones: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    folded: bool = False


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure: a PNG file's bytes, and what it shows. photo: its colours are those of pictures, in dark mode too."""

    text: str
    data: bytes
    photo: bool = False

    @property
    def wide(self) -> bool:
        """True if it is of two columns and much wider than high, so that it is too small beside a text."""
        width, height = struct.unpack(">II", self.data[16:24])  # of a PNG file's first chunk
        return bool(width > ONE_COLUMN and width > 1.4 * height)

    @property
    def address(self) -> str:
        """The picture itself, as an address that needs no network."""
        return data_address(self.data, "png")


@dataclass(frozen=True, kw_only=True)
class Body:
    """The table of results as the page shows it.

    cells: cell number of each row. choices: selectable values of an axis by its column, without axes that have too
    many values. standings: state of each cell: whole, with holes, excluded.
    """

    table: Table
    cells: tuple[int, ...]
    choices: Mapping[int, tuple[str, ...]]
    standings: tuple[str, ...]

    @property
    def wide(self) -> bool:
        """True if a telephone has no room for the columns beside each other; words of axes can be broken."""
        rows = [self.table.header, *self.table.plain_rows()]
        words = [
            [text.split() if place < self.table.axes else [text] for place, text in enumerate(row)] for row in rows
        ]
        widths = [max(len(word) for cell in column for word in cell) for column in zip(*words, strict=True)]
        return sum(widths) + 2 * len(widths) + BUTTON > NARROW


@dataclass(frozen=True, kw_only=True)
class Page:
    """All that the page shows.

    headline: what the study says, sentence by sentence, its question's answer first. checks: what speaks for its
    numbers or against them, each with a tone as of a `Section`. before, after: sections above and below the figures.
    runs: of `page.runs.details`. reconstructions: of `page.images.reconstructions`. counts: how many values stand
    where, as words and numbers.
    """

    title: str
    scale: str
    headline: tuple[str, ...]
    body: Body
    counts: tuple[tuple[str, int], ...]
    checks: Sequence[tuple[str, str]] = ()
    before: Sequence[Section] = ()
    after: Sequence[Section] = ()
    pictures: Sequence[Picture] = ()
    remarks: Sequence[str] = ()
    runs: Mapping[str, Any]
    reconstructions: Mapping[str, Any]


def html_text(page: Page) -> str:
    """The page as HTML. Every text is escaped; a policy in it forbids whatever it does not bring along itself."""
    style, script = _packaged("page.css"), _packaged("page.js")
    # autoescape: every text may come from a study and hold markup.
    # StrictUndefined: a field that the template names and the page lacks is an error, not a blank.
    environment = Environment(
        loader=PackageLoader("harness.report", "page"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    # Apart from the page itself: the script reads these as JSON, which the template only embeds.
    data = {"runs": page.runs, "reconstructions": page.reconstructions}
    return environment.get_template("page.html").render(
        page=page,
        NOTHING=NOTHING,
        STACKED=STACKED,
        SHORT=SHORT,
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        data=script_safe(data),
    )


def data_address(data: bytes, kind: str) -> str:
    """An image's bytes as a `data:` address."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def script_safe(value: object) -> str:
    """JSON that can stand inside a script element: nothing in it can close the element or open a comment."""
    # NaN is no JSON: better an error here than a page whose script stops.
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _packaged(name: str) -> str:
    return files("harness.report.page").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Source expression by which the page's policy allows a style or script: its SHA-256."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
