"""The papers' published tables, as shipped CSV files with a trust mark a row."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec

from harness.papers.protocol import UNKNOWN, Protocol
from harness.spec import HarnessError, Scalar

UNVERIFIED = frozenset({"memory", "ai"})
"""Trust marks of numbers that were checked against no source."""

ORIGINS = {
    "image": "read in the printed table",
    "code": "from the authors' code",
    "text": "read in the paper's text",
    "abstract": "read in the abstract",
    "secondary": "as another paper quotes it",
    "computed": "computed from printed numbers",
    "memory": "from memory",
    "ai": "from a summary",
}
"""Trust marks in words."""


@dataclass(frozen=True)
class PublishedValue:
    """One published number.

    trust: image, code, text, abstract, secondary, computed; memory and ai are unverified. protocol: of its measurement.
    """

    value: float
    trust: str
    source: str
    protocol: Protocol = UNKNOWN

    @property
    def verified(self) -> bool:
        return self.trust not in UNVERIFIED


@dataclass(frozen=True)
class PaperTable:
    """A published table.

    name: of the CSV file. metric: its column of results. rows: axis values -> value.
    """

    name: str
    metric: str
    rows: tuple[tuple[dict[str, str], PublishedValue], ...]

    def lookup(self, cell: Mapping[str, Scalar]) -> PublishedValue | None:
        """The published value of a cell: of the row that agrees with it on every axis both have.

        None if there is no such row, or if there are several of different values: then the cell does not say which.
        """
        found = []
        for axes, value in self.rows:
            shared = [axis for axis in cell if axis in axes]
            # Axes that only one of the two has do not speak against a row: a study may vary what the table holds fixed.
            if shared and all(_same(axes[axis], cell[axis]) for axis in shared):
                found.append(value)
        # Several rows that agree on the value answer as one.
        return found[0] if len({value.value for value in found}) == 1 else None


@cache
def shipped_tables() -> dict[str, str]:
    """The paper (folder of harness/papers) of each shipped table, by the table's name."""
    return {
        table.name.removesuffix(".csv"): paper.name
        for paper in files("harness.papers").iterdir()
        if (paper / "published").is_dir()
        for table in (paper / "published").iterdir()
        if table.name.endswith(".csv")
    }


def published_records(name: str) -> list[dict[str, str]]:
    """The rows of a shipped table by column, as printed.

    Raises:
        HarnessError: there is no such table.
    """
    shipped = shipped_tables()
    if name not in shipped:
        raise HarnessError(f"no table {name!r}; shipped: {', '.join(sorted(shipped))}")
    file = files("harness.papers") / shipped[name] / "published" / f"{name}.csv"
    return list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))


def paper_table(
    name: str,
    *,
    metric: str = "top1",
    rename: Mapping[str, str] | None = None,
    at: Mapping[str, Scalar] | None = None,
    where: Mapping[str, Scalar] | None = None,
    across: tuple[str, Mapping[str, str]] | None = None,
    protocol: Protocol | None = None,
) -> PaperTable:
    """A shipped table by name, such as `simmim_table4_scope`.

    Args:
        metric: the column that holds the result; rows where it is empty are left out. Of a table in long form, with
            columns `metric` and `value`, a metric: `paper_table("downstream_published", metric="miou")`.
        rename: CSV column -> name of the study's axis.
        where: values of printed columns that rows have to have, such as {"backbone": "ResNet-50"}, in a file of several
            tables; these columns are left out of the axes.
        across: of a table with a column for each value of an axis: the axis, and its values by column, such as
            ("method", {"SimMIM": "simmim", "A2MIM": "a2mim"}). The metric is then a name only.
        at: axis values that the table has throughout but does not print, such as {"mask_ratio": 0.6}.
        protocol: conditions of all of its numbers, instead of those known of the table.

    Raises:
        HarnessError: there is no such table or column, or `at` names one that is printed.
    """
    records = published_records(name)
    names, where = rename or {}, dict(where or {})
    spread = across or ("", {})
    if long := any(record.get("metric") == metric for record in records):
        where["metric"] = metric
    columns = tuple(spread[1].values()) or ("value" if long else metric,)
    for column in (*columns, *names, *where):
        if column not in records[0]:
            raise HarnessError(f"table {name} has no column {column!r}; it has {', '.join(records[0])}")
    if printed := set(at or {}) & {names.get(column, column) for column in records[0]}:
        raise HarnessError(f"table {name} prints {', '.join(sorted(printed))}; `at` is for what it does not print")
    fixed = {axis: str(value) for axis, value in (at or {}).items()}
    rows = []
    for record in records:
        if not all(_same(record[column], wanted) for column, wanted in where.items()):
            continue
        axes = {names.get(column, column): text for column, text in record.items() if column not in where}
        for label, column in spread[1].items() if across else [("", columns[0])]:
            # A cell of the table that is empty was not measured.
            if record[column]:
                measured = protocol or _protocol(name, column, record)
                value = PublishedValue(float(record[column]), _trust(column, record), record["source"], measured)
                rows.append((axes | fixed | ({spread[0]: label} if across else {}), value))
    return PaperTable(name, metric, tuple(rows))


def _trust(metric: str, record: Mapping[str, str]) -> str:
    """A column of results may have a trust of its own."""
    return record.get(f"{metric.removesuffix('_top1')}_trust") or record["trust"]


def _protocol(name: str, column: str, record: Mapping[str, str]) -> Protocol:
    paper = f"harness.papers.{shipped_tables()[name]}"
    if find_spec(f"{paper}.protocol") is None:
        return UNKNOWN  # of a paper whose conditions nobody has written down
    # By its name, so that a further paper brings its protocol along in its own folder.
    found: Protocol = import_module(f"{paper}.protocol").published_protocol(name, column, record)
    return found


def _same(text: str, value: Scalar) -> bool:
    """True if a printed text and a value of an axis are equal."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            # By value: a table prints 0.60 where a study has 0.6.
            return math.isclose(float(text), value)
        except ValueError:
            return False
    return text == ("" if value is None else str(value))  # an axis that a row lacks is printed empty
