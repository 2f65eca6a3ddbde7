"""The text of the golden files: the first run of each column in full, of every other run its key and what differs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

DIFFERS = ", as the first except"
WITHOUT = "without "
RUN = re.compile(rf"(?P<column>\w+): (?P<key>\S+?)(?: from (?P<upstream>\S+?))?(?P<differs>{DIFFERS})?")


@dataclass
class Run:
    """One evaluation of a cell: its key, the key of the run it starts from, and path -> value as Python writes it."""

    key: str
    upstream: str | None
    values: dict[str, str]


@dataclass
class Cell:
    """One cell of a study: why it is excluded, if it is, and column -> run."""

    excluded: str | None = None
    runs: dict[str, Run] = field(default_factory=dict)


def written(title: str, cells: dict[str, Cell]) -> str:
    """Text of one golden file."""
    return "\n".join([title, *_lines(cells)]) + "\n"


def _lines(cells: dict[str, Cell]) -> Iterator[str]:
    firsts: dict[str, Run] = {}
    for axes, cell in cells.items():
        yield from ("", f"== {axes}")
        if cell.excluded is not None:
            yield f"excluded: {cell.excluded}"
        for column, run in cell.runs.items():
            first = firsts.get(column)
            start = f" from {run.upstream}" if run.upstream else ""
            yield f"{column}: {run.key}{start}{DIFFERS if first else ''}"
            yield from _values(run.values, first.values if first else {})
            firsts.setdefault(column, run)


def _values(values: dict[str, str], first: dict[str, str]) -> Iterator[str]:
    yield from (f"  {path} = {value}" for path, value in values.items() if first.get(path) != value)
    yield from (f"  {WITHOUT}{path}" for path in first if path not in values)


def read(text: str) -> dict[str, Cell]:
    """Cells of a golden file, every run in full. Also reads files in which each run is written in full.

    Raises:
        ValueError: a line is none of a golden file.
    """
    cells: dict[str, Cell] = {}
    firsts: dict[str, Run] = {}
    for line in text.splitlines()[1:]:
        if line.startswith("== "):
            cell = cells[line.removeprefix("== ")] = Cell()
        elif line.startswith("excluded: "):
            cell.excluded = line.removeprefix("excluded: ")
        elif found := RUN.fullmatch(line):
            column = found["column"]
            run = Run(found["key"], found["upstream"], dict(firsts[column].values) if found["differs"] else {})
            cell.runs[column] = run
            firsts.setdefault(column, run)
        elif line.startswith(f"  {WITHOUT}"):
            del run.values[line.removeprefix(f"  {WITHOUT}")]
        elif line.startswith("  "):
            path, _, value = line.removeprefix("  ").partition(" = ")
            run.values[path] = value
        elif line:
            raise ValueError(f"not a line of a golden file: {line}")
    return cells
