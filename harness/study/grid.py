"""Grids: the cells of a study, from axes in product, in pairs, joined, or one at a time around a reference."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from harness.spec import HarnessError, Scalar

Axes = Mapping[str, Scalar]


class Grid:
    """An ordered set of cells. `|` joins two grids, `*` crosses two that share no axis."""

    def __init__(self, cells: Iterable[Axes]) -> None:
        unique = {tuple(sorted(cell.items(), key=lambda item: item[0])): dict(cell) for cell in cells}
        self.cells: tuple[dict[str, Scalar], ...] = tuple(unique.values())
        self.axes = tuple(dict.fromkeys(axis for cell in self.cells for axis in cell))
        """The names of all axes, in the order of first mention."""

    def __or__(self, other: Grid) -> Grid:
        return Grid((*self.cells, *other.cells))

    def __mul__(self, other: Grid) -> Grid:
        if shared := set(self.axes) & set(other.axes):
            raise HarnessError(f"a product of grids repeats the axis {', '.join(sorted(shared))}")
        return Grid({**a, **b} for a, b in itertools.product(self.cells, other.cells))

    def __len__(self) -> int:
        return len(self.cells)

    def __iter__(self) -> Iterator[dict[str, Scalar]]:
        return iter(self.cells)


def _values(axis: str, values: Scalar | Sequence[Scalar]) -> tuple[Scalar, ...]:
    found = (values,) if isinstance(values, str | int | float | bool | None) else tuple(values)
    if not found:
        raise HarnessError(f"axis {axis} has no value")
    if bad := [value for value in found if not isinstance(value, str | int | float | bool | None)]:
        raise HarnessError(f"axis {axis} should hold plain values, not {bad[0]!r}")
    seen: set[Scalar] = set()
    for value in found:
        if value in seen:
            raise HarnessError(f"axis {axis} repeats the value {value!r}")
        seen.add(value)
    return found


def axes(**values: Scalar | Sequence[Scalar]) -> Grid:
    """The product of some axes: `axes(mask_ratio=(0.4, 0.6), scope="masked")` has two cells."""
    lists = {axis: _values(axis, found) for axis, found in values.items()}
    return Grid(dict(zip(lists, point, strict=True)) for point in itertools.product(*lists.values()))


def zipped(**values: Sequence[Scalar]) -> Grid:
    """Paired axes: the first values together, the second values together, and so on."""
    lengths = {axis: len(found) for axis, found in values.items()}
    if len(set(lengths.values())) > 1:
        raise HarnessError(f"zipped axes differ in length: {lengths}")
    cells = [dict(zip(values, point, strict=True)) for point in zip(*values.values(), strict=True)]
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
