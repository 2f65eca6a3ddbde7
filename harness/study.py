"""A study: axes -> cells -> runs. Plain Python, loaded from a file."""

from __future__ import annotations

import importlib.util
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from harness.claims import Claim, selections, selector
from harness.papers.tables import PaperTable
from harness.spec import Evaluation, HarnessError, Run, Scalar, Scale, Skip, Spec, key, one_line, upstream
from harness.spec.content import PROJECT_VARIABLE, project_root

Axes = Mapping[str, Scalar]
CellFunction = Callable[..., Mapping[str, Evaluation] | Skip]


class Grid:
    """An ordered set of cells. `|` joins two grids, `*` crosses two that share no axis."""

    def __init__(self, cells: Iterable[Axes]) -> None:
        unique = {tuple(sorted(cell.items(), key=lambda item: item[0])): dict(cell) for cell in cells}
        self.cells: tuple[dict[str, Scalar], ...] = tuple(unique.values())

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of all axes, in the order of first mention."""
        return tuple(dict.fromkeys(axis for cell in self.cells for axis in cell))

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


@dataclass(frozen=True)
class Study:
    """Axes, a function from a cell to its evaluations, the paper's table and its claims.

    Attributes:
        cell: called as `cell(scale, **axes, seed=...)`, an axis that a cell lacks being None; returns the evaluations
            by column name, or a Skip (returned or raised) with its reason. No torch is needed in it.
        grid: the cells; keys and values are named as in the paper.
        scales: the sizes it can be run at, the default first.
        seeds: replicates of every cell. Seeds are aggregated, never an axis.
        reference: the cell that the others are compared with.
        paper: the published table, joined on the axes it shares with the grid.
        claims: what the paper says of it.
    """

    cell: CellFunction
    grid: Grid
    scales: tuple[Scale, ...]
    reference: Axes
    seeds: int = 3
    paper: PaperTable | None = None
    claims: tuple[Claim, ...] = ()
    name: str = ""
    root: Path = field(default_factory=Path)

    def __post_init__(self) -> None:
        if not self.scales:
            raise HarnessError("a study needs at least one scale")
        if "seed" in self.grid.axes:
            raise HarnessError("seed is no axis: seeds are replicates, set Study(seeds=...)")
        if self.seeds < 1:
            raise HarnessError(f"seeds should be 1 or more, not {self.seeds}")
        if self.complete(self.reference) not in self.cells:
            raise HarnessError(f"the reference {dict(self.reference)} is no cell of the grid")
        for claim in self.claims:
            for where in selections(claim):
                if not any(map(selector(where), self.cells)):
                    raise HarnessError(f"claim {claim.sentence!r}: no cell has {dict(where)}")

    def complete(self, cell: Axes) -> dict[str, Scalar]:
        """A cell with None for each axis it lacks, in the grid's order of axes."""
        return {axis: cell.get(axis) for axis in self.grid.axes}

    @property
    def cells(self) -> list[dict[str, Scalar]]:
        """All cells, complete."""
        return [self.complete(cell) for cell in self.grid]

    def scale(self, name: str | None = None) -> Scale:
        """The scale of that name, the first one by default.

        Raises:
            HarnessError: there is no such scale.
        """
        if name is None:
            return self.scales[0]
        for scale in self.scales:
            if scale.name == name:
                return scale
        raise HarnessError(f"no scale {name!r}; this study has {', '.join(scale.name for scale in self.scales)}")


@dataclass(frozen=True)
class Row:
    """One cell with one seed: the evaluations that make its columns, or the reason why it is excluded."""

    axes: dict[str, Scalar]
    seed: int
    evaluations: dict[str, Evaluation]
    excluded: str = ""


@dataclass(frozen=True)
class Plan:
    """A study at one scale, resolved."""

    study: Study
    scale: Scale
    rows: tuple[Row, ...]

    def runs(self) -> dict[str, Run]:
        """Every distinct run by key, each pre-training before what starts from it."""
        found: dict[str, Run] = {}
        for row in self.rows:
            for evaluation in row.evaluations.values():
                if (first := upstream(evaluation)) is not None:
                    found.setdefault(key(first), first)
        for row in self.rows:
            found |= {key(evaluation): evaluation for evaluation in row.evaluations.values()}
        return found

    def columns(self) -> tuple[str, ...]:
        """The names of all evaluations."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row.evaluations))


def expand(
    study: Study,
    *,
    scale: str | None = None,
    where: Mapping[str, Sequence[Scalar]] | None = None,
    seeds: int | None = None,
) -> Plan:
    """Resolve a study at one scale.

    Args:
        where: for some axes the values to keep, as text or as values.
        seeds: number of replicates instead of the study's.

    Raises:
        HarnessError: unknown scale, axis or value; a cell function that fails; a spec that is refused.
    """
    chosen = study.scale(scale)
    cells = _select(study, where or {})
    count = study.seeds if seeds is None else seeds
    rows = tuple(_row(study, chosen, cell, seed) for cell in cells for seed in range(count))
    return Plan(study, chosen, rows)


def _select(study: Study, where: Mapping[str, Sequence[Scalar]]) -> list[dict[str, Scalar]]:
    cells = study.cells
    for axis, wanted in where.items():
        if axis not in study.grid.axes:
            raise HarnessError(f"no axis {axis!r}; this study has {', '.join(study.grid.axes)}")
        present = {str(cell[axis]): None for cell in study.cells}
        for value in wanted:
            if str(value) not in present:
                raise HarnessError(f"axis {axis} has no value {value!r}; it has {', '.join(present)}")
        kept = {str(value) for value in wanted}
        cells = [cell for cell in cells if str(cell[axis]) in kept]
    return cells


def _row(study: Study, scale: Scale, cell: dict[str, Scalar], seed: int) -> Row:
    where = ", ".join(f"{axis}={value}" for axis, value in cell.items())
    try:
        found = study.cell(scale, **cell, seed=seed)
    except Skip as skip:
        return Row(cell, seed, {}, skip.reason)
    except ValidationError as error:
        raise HarnessError(f"cell ({where}): {one_line(error)}") from None
    except (HarnessError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise HarnessError(f"cell ({where}): {type(error).__name__}: {error}".replace("\n", " ")) from error
    if isinstance(found, Skip):
        return Row(cell, seed, {}, found.reason)
    if not isinstance(found, Mapping) or not found:
        raise HarnessError(f"cell ({where}): should return evaluations by name, not {found!r}")
    for name, evaluation in found.items():
        if not isinstance(evaluation, Spec) or not hasattr(evaluation, "start"):
            raise HarnessError(f"cell ({where}): {name!r} should be an evaluation such as FineTune(...)")
    return Row(cell, seed, dict(found))


def load(path: Path) -> Study:
    """The STUDY of a study file.

    The file's project root (the nearest folder at or above it with harness.toml or pyproject.toml) is put first on the
    import path, so that a study can import its neighbours.

    Raises:
        HarnessError: the file is missing, does not parse, fails, or has no STUDY.
    """
    path = path.resolve()
    if not path.is_file():
        raise HarnessError(f"there is no study file {path}")
    root = project_root(path.parent)
    os.environ[PROJECT_VARIABLE] = str(root)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    loaded = importlib.util.spec_from_file_location(f"harness_study_{path.stem}", path)
    if loaded is None or loaded.loader is None:
        raise HarnessError(f"{path.name} is no Python file")
    module = importlib.util.module_from_spec(loaded)
    try:
        loaded.loader.exec_module(module)
    except SyntaxError as error:
        raise HarnessError(f"{path.name}, line {error.lineno}: {error.msg}") from None
    except ValidationError as error:
        raise HarnessError(f"{path.name}: {one_line(error)}") from None
    except HarnessError as error:
        raise HarnessError(f"{path.name}: {error}") from None
    except Exception as error:
        raise HarnessError(f"{path.name}: {type(error).__name__}: {error}".replace("\n", " ")) from error
    study = getattr(module, "STUDY", None)
    if not isinstance(study, Study):
        raise HarnessError(f"{path.name} has no STUDY = Study(...)")
    return Study(**{**vars(study), "name": study.name or path.stem, "root": root})
