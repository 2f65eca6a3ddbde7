"""Grids: the cells of a study, from axes in product, in pairs, joined, or one at a time around a reference."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

from harness.spec import HarnessError, Scalar

Axes = Mapping[str, Scalar]

MOST = 100_000
"""Cells that a grid may have, and cells times seeds that are planned: some tens of seconds and a gigabyte."""


class Grid:
    """An ordered set of cells. `|` joins two grids, `*` crosses two that share no axis.

    Raises:
        HarnessError: as `check_alike`.
    """

    def __init__(self, cells: Iterable[Axes]) -> None:
        given = [dict(cell) for cell in itertools.islice(cells, MOST + 1)]
        _check_size(len(given))
        for axis, value in _values_in(given):
            _check_value(axis, value)
        check_alike(given)
        unique = {frozenset(cell.items()): cell for cell in given}
        self.cells: tuple[dict[str, Scalar], ...] = tuple(unique.values())
        self.axes = tuple(dict.fromkeys(axis for cell in self.cells for axis in cell))
        """The names of all axes, in the order of first mention."""

    @cached_property
    def complete(self) -> tuple[dict[str, Scalar], ...]:
        """The cells with None for each axis they lack; two that differ only in lacking it or having None are one."""
        if all(tuple(cell) == self.axes for cell in self.cells):
            return self.cells
        blank: dict[str, Scalar] = dict.fromkeys(self.axes)
        return Grid(blank | cell for cell in self.cells).cells

    def __or__(self, other: Grid) -> Grid:
        return Grid((*self.cells, *other.cells))

    def __mul__(self, other: Grid) -> Grid:
        if shared := set(self.axes) & set(other.axes):
            raise HarnessError(f"a product of grids repeats the axis {', '.join(sorted(shared))}")
        _check_size(len(self) * len(other))
        return Grid({**a, **b} for a, b in itertools.product(self.cells, other.cells))

    def __len__(self) -> int:
        return len(self.cells)

    def __iter__(self) -> Iterator[dict[str, Scalar]]:
        return iter(self.cells)


def check_alike(cells: Iterable[Axes]) -> None:
    """Refuse cells in which two values of one axis differ and read alike, as 1 and "1" do, or 1, 1.0 and True.

    A table, `--where` and Python's own `==` could not tell them apart, while the runs would be others.

    Raises:
        HarnessError: names the axis and both values.
    """
    seen: dict[tuple[str, Scalar], Scalar] = {}
    for axis, value in _values_in(cells):
        for read in (value, str(value)):
            first = seen.setdefault((axis, read), value)
            if first is not value and (first != value or _kind(first) is not _kind(value)):
                raise HarnessError(f"axis {axis} has two values that read alike: {first!r} and {value!r}")


def _values_in(cells: Iterable[Axes]) -> list[tuple[str, Scalar]]:
    """Every axis with each value it has somewhere, once where the cells share it, as those of a product do."""
    found = {(axis, id(value)): (axis, value) for cell in cells for axis, value in cell.items()}
    return list(found.values())


def _kind(value: Scalar) -> type | None:
    return next((kind for kind in (bool, int, float, str) if isinstance(value, kind)), None)


def _check_size(cells: int) -> None:
    if cells > MOST:
        raise HarnessError(f"a grid of more than {MOST:,} cells is not planned; split the study")


def _check_value(axis: object, value: object) -> None:
    if not isinstance(axis, str) or not axis:
        raise HarnessError(f"an axis should be named by a text, not {axis!r:.80}")
    if not isinstance(value, str | int | float | bool | None):
        raise HarnessError(f"axis {axis} should hold plain values, not {value!r:.80}")
    if isinstance(value, float) and not math.isfinite(value):
        raise HarnessError(f"axis {axis} should hold finite numbers, not {value}")
    if isinstance(value, int) and value.bit_length() > 63:
        raise HarnessError(f"axis {axis} holds a whole number that does not fit into 64 bits")


def _listed(axis: str, values: Scalar | Iterable[Scalar]) -> tuple[Scalar, ...]:
    if isinstance(values, str | int | float | bool | None):
        values = (values,)
    if not isinstance(values, Iterable):
        raise HarnessError(f"axis {axis} should hold plain values, not {values!r:.80}")
    found = tuple(itertools.islice(values, MOST + 1))  # an iterator may have no end
    if not found:
        raise HarnessError(f"axis {axis} has no value")
    _check_size(len(found))
    for value in found:
        _check_value(axis, value)
    return found


def _values(axis: str, values: Scalar | Iterable[Scalar]) -> tuple[Scalar, ...]:
    found = _listed(axis, values)
    seen: set[Scalar] = set()
    for value in found:
        if value in seen:
            raise HarnessError(f"axis {axis} repeats the value {value!r}")
        seen.add(value)
    return found


def axes(**values: Scalar | Sequence[Scalar]) -> Grid:
    """The product of some axes: `axes(mask_ratio=(0.4, 0.6), scope="masked")` has two cells."""
    lists = {axis: _values(axis, found) for axis, found in values.items()}
    _check_size(math.prod(map(len, lists.values())))
    return Grid(dict(zip(lists, point, strict=True)) for point in itertools.product(*lists.values()))


def zipped(**values: Sequence[Scalar]) -> Grid:
    """Paired axes: the first values together, the second values together, and so on."""
    lists = {axis: _listed(axis, found) for axis, found in values.items()}
    lengths = {axis: len(found) for axis, found in lists.items()}
    if len(set(lengths.values())) > 1:
        raise HarnessError(f"zipped axes differ in length: {lengths}")
    cells = [dict(zip(lists, point, strict=True)) for point in zip(*lists.values(), strict=True)]
    grid = Grid(cells)
    if len(grid) < len(cells):
        raise HarnessError(f"zipped axes {', '.join(values)} repeat a pair")
    return grid


def around(reference: Axes, **values: Scalar | Sequence[Scalar]) -> Grid:
    """One factor at a time: the reference, and for each axis its other values with all else as in the reference."""
    if unknown := set(values) - set(reference):
        raise HarnessError(f"around: {', '.join(sorted(unknown))} is no axis of the reference {dict(reference)}")
    arms = [{**reference, axis: value} for axis, found in values.items() for value in _values(axis, found)]
    return Grid([reference, *arms])
