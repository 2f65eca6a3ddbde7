"""Studies, and their expansion: axes -> cells -> runs."""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from types import UnionType

from pydantic import ValidationError

from harness.machine import project_root
from harness.papers.tables import PaperTable
from harness.spec import (
    Evaluation,
    FineTune,
    HarnessError,
    LinearProbe,
    Run,
    Scalar,
    Scale,
    Skip,
    Spec,
    key,
    pretraining,
    upstreams,
)
from harness.spec.base import shared_pieces
from harness.study.claims import Claim, InnerMaximum, Margin, selections, selector
from harness.study.file import in_words, line_of, run_file
from harness.study.grid import MOST, Axes, Grid, check_alike

NAME_BYTES = 200
"""Length of a study's name: file systems take 255 bytes, and a name of a job or a lock has the scale behind it."""

REPEAT_SEEDS = 1000
"""Seeds set apart for the evaluations that are nested in one pre-training."""

CellFunction = Callable[..., Mapping[str, Evaluation] | Skip]


@dataclass(frozen=True)
class Study:
    """Axes, a function from a cell to its evaluations, the paper's table and its claims.

    Attributes:
        cell: called as `cell(scale, **axes, seed=...)`, an axis that a cell lacks being None; returns the evaluations
            by column name, or a Skip (returned or raised) with its reason. No torch is needed in it.
        grid: the cells; keys and values are named as in the paper.
        scales: the sizes it can be run at, the default first.
        seeds: replicates of every cell. Seeds are aggregated, never an axis.
        first_seed: the lowest seed, from which the others count upwards; by default that of the scale, which is 0 if it
            says none. A seed is a label: a run of seed 10 is the same run in every study.
        repeats: fine-tunings and linear probes that are nested in each pre-training of a cell, with seeds of their own.
            They are averaged before anything else: n stays the number of pre-trainings. What draws nothing, such as
            Knn, and what has no pre-training is computed once.
        reference: the cell that the others are compared with.
        paper: the published table, joined on the axes it shares with the grid; or several, each of the evaluation that
            is named as its metric. Claims refer to the evaluation of the first.
        claims: sentences of the paper, as comparisons between cells.
        factors: for an axis the fields of the evaluations that it may change, with what lies in them, such as
            {"epochs": ("start.recipe.epochs",)}; the audit names all others. An axis that is not named may change the
            pieces of the pre-training: mask, corruption, head, target, loss and the like, or leave it out.
        margin_share: a difference up to this share of what the reference gains over training from scratch does not
            matter to a claim without a margin of its own.
        looks: numbers of seeds after which `harness run --until-decided` looks at the claims, the first being `seeds`
            and the last the most it spends on a cell. They are part of the test: fix them before the first run.
        labels: axes and evaluations in words for tables and figures, such as {"mask_ratio": "mask ratio"}, with units,
            such as {"top1": "top-1 accuracy (%)"}. Without one, a name is shown without underscores.
    """

    cell: CellFunction
    grid: Grid
    scales: tuple[Scale, ...]
    reference: Axes
    seeds: int = 3
    paper: PaperTable | tuple[PaperTable, ...] | None = None
    claims: tuple[Claim, ...] = ()
    factors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    margin_share: float = 0.2
    looks: tuple[int, ...] = ()
    first_seed: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    repeats: int = 1
    name: str = ""
    root: Path = field(default_factory=Path)
    file: str = ""

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_types(self)
        _check_scales(self.scales)
        if "seed" in self.grid.axes:
            raise HarnessError("seed is no axis: seeds are replicates, set Study(seeds=...)")
        if "scale" in self.grid.axes:
            raise HarnessError("scale is no axis: it is what a cell function is called with first")
        _check_seeds(self.seeds)
        if not isinstance(self.repeats, int) or isinstance(self.repeats, bool) or not 1 <= self.repeats <= REPEAT_SEEDS:
            raise HarnessError(f"repeats should be a whole number from 1 to {REPEAT_SEEDS:,}, not {self.repeats!r:.80}")
        _check_first_seed(self.first_seed)
        if not isinstance(self.margin_share, float) or not 0 < self.margin_share < 1:
            raise HarnessError(f"margin_share should be between 0 and 1, not {self.margin_share}")
        _check_looks(self.looks, self.seeds)
        cells = self.cells
        self._check_axes("the reference", self.reference)
        check_alike([*cells, self.reference])
        if self.complete(self.reference) not in cells:
            hint = _closest(self.reference, cells)
            raise HarnessError(f"the reference {dict(self.reference)} is no cell of the grid; {hint}")
        self._check_axes("factors", self.factors)
        for claim in self.claims:
            about = f"claim {claim.sentence!r}"
            _check_margin(about, claim.margin, [scale.name for scale in self.scales])
            if isinstance(claim, InnerMaximum):
                self._check_axes(about, (claim.axis,))
            for where in selections(claim):
                self._check_axes(about, where)
                if not any(map(selector(where), cells)):
                    raise HarnessError(f"{about}: no cell has {dict(where)}")

    def _check_axes(self, what: str, named: Iterable[str]) -> None:
        if unknown := [axis for axis in named if axis not in self.grid.axes]:
            raise HarnessError(f"{what} names no axis with {unknown[0]!r}; this study has {', '.join(self.grid.axes)}")

    @property
    def papers(self) -> tuple[PaperTable, ...]:
        """Its published tables."""
        return self.paper if isinstance(self.paper, tuple) else () if self.paper is None else (self.paper,)

    def complete(self, cell: Axes) -> dict[str, Scalar]:
        """A cell with None for each axis it lacks, in the grid's order of axes."""
        return dict.fromkeys(self.grid.axes) | dict(cell)

    @property
    def cells(self) -> list[dict[str, Scalar]]:
        """All cells, complete: see `Grid.complete`."""
        return list(self.grid.complete)

    def seed_range(self, scale: Scale, count: int) -> range:
        """The seeds of so many replicates at a scale."""
        first = scale.first_seed if self.first_seed is None else self.first_seed
        return range(first, first + count)

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


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not name.isprintable() or {"/", "\\"} & set(name) or name in (".", ".."):
        raise HarnessError(f"{name!r} is no name for a study: its results go into a folder of that name")
    if len(name.encode()) > NAME_BYTES:
        raise HarnessError(f"the study's name is too long: {len(name.encode())} bytes of {NAME_BYTES} that are allowed")


def _check_types(study: Study) -> None:
    if not callable(study.cell):
        raise HarnessError(f"cell should be a function, not {study.cell!r:.80}")
    fields: tuple[tuple[str, type | UnionType, str], ...] = (
        ("grid", Grid, "a grid, such as axes(mask_ratio=(0.4, 0.6))"),
        ("reference", Mapping, 'a cell, such as {"mask_ratio": 0.6}'),
        (
            "paper",
            PaperTable | tuple | None,
            'a table, such as paper_table("simmim_table1_masking"), or a tuple of such',
        ),
        ("claims", tuple, "a tuple of claims"),
        ("factors", Mapping, 'fields by axis, such as {"epochs": ("start.recipe.epochs",)}'),
        ("looks", tuple, "a tuple of numbers of seeds"),
        ("labels", Mapping, 'words by axis or evaluation, such as {"mask_ratio": "mask ratio"}'),
    )
    for name, kind, words in fields:
        if not isinstance(found := getattr(study, name), kind):
            raise HarnessError(f"{name} should be {words}, not {found!r:.80}")
    for table in study.papers:
        if not isinstance(table, PaperTable):
            raise HarnessError(f"paper should be a tuple of tables, not of {table!r:.80}")
    for claim in study.claims:
        if not isinstance(claim, Claim):
            raise HarnessError(f"claims should be a tuple of claims, such as claims.better(...), not {claim!r:.80}")
    for axis, paths in study.factors.items():
        if not isinstance(paths, tuple) or not all(isinstance(path, str) for path in paths):
            raise HarnessError(f"factors of {axis} should be a tuple of fields, such as ({paths!r:.80},)")
    for name, text in study.labels.items():
        if not isinstance(text, str) or not text:
            raise HarnessError(f"the label of {name} should be words, not {text!r:.80}")


def _check_seeds(seeds: int) -> None:
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise HarnessError(f"seeds should be 1 or more, not {seeds!r:.80}, and a whole number")
    if seeds > MOST:
        raise HarnessError(f"seeds should be {MOST:,} at most")


def _check_first_seed(first: int | None) -> None:
    if first is not None and (not isinstance(first, int) or isinstance(first, bool) or not 0 <= first <= MOST):
        raise HarnessError(f"first_seed should be a whole number from 0 to {MOST:,}, not {first!r:.80}")


def _check_looks(looks: tuple[int, ...], seeds: int) -> None:
    if not looks:
        return
    for count in looks:
        _check_seeds(count)
    if looks[0] != seeds or any(later <= earlier for earlier, later in pairwise(looks)):
        raise HarnessError(f"looks should rise from the study's {seeds} seeds, such as looks=({seeds}, {seeds + 3})")
    if seeds < 2:
        raise HarnessError("looks need 2 seeds or more to begin with: one shows no spread")


def _check_margin(about: str, margin: Margin, scales: Sequence[str]) -> None:
    points = margin if isinstance(margin, Mapping) else {} if margin is None else {scales[0]: margin}
    if unknown := sorted(set(points) - {*scales, "paper", "*"}):
        raise HarnessError(f"{about}: a margin for scale {unknown[0]!r}; this study has {', '.join(scales)}")
    if wrong := [value for value in points.values() if not 0 < value < float("inf")]:
        raise HarnessError(f"{about}: a margin should be a positive number of points, not {wrong[0]}")


def _check_scales(scales: tuple[Scale, ...]) -> None:
    if not isinstance(scales, tuple) or not all(isinstance(scale, Scale) for scale in scales):
        raise HarnessError("scales should be a tuple of scales, such as scales=(SMALL, PAPER)")
    if not scales:
        raise HarnessError("a study needs at least one scale")
    names = [scale.name for scale in scales]
    if len(set(names)) < len(names):
        raise HarnessError(f"two scales have the same name: {', '.join(names)}")
    if names[0] == "paper":
        raise HarnessError("the first scale is the default, and paper is too large to start by accident: name it later")


class Refused(HarnessError):
    """A cell function asked for a spec that cannot be."""


@dataclass(frozen=True, slots=True)
class Row:
    """One cell with one seed: the evaluations that make its columns, or the reason why it is excluded.

    repeat: 0, or counts the rows of the same cell and seed that hold further evaluations of its pre-trainings.
    """

    axes: dict[str, Scalar]
    seed: int
    evaluations: dict[str, Evaluation]
    excluded: str = ""
    repeat: int = 0

    @property
    def text(self) -> str:
        """The cell in a few words."""
        return cell_text(self.axes)


@dataclass(frozen=True, repr=False)
class Plan:
    """A study at one scale, resolved."""

    study: Study
    scale: Scale
    rows: tuple[Row, ...]

    def __repr__(self) -> str:
        kinds = Counter(run.kind for run in self.runs().values())
        runs = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "no runs"
        excluded = "".join(f"; {len(rows)} excluded: {reason}" for reason, rows in self.excluded().items())
        cells, seeds = len(self.firsts()), len({row.seed for row in self.rows})
        size = f"{cells} cell{'s' * (cells != 1)} x {seeds} seed{'s' * (seeds != 1)}"
        return f"{self.name}: {size}; {runs}{excluded}"

    def runs(self) -> dict[str, Run]:
        """Every distinct run by key, each after the run that it starts from."""
        wanted = [evaluation for row in self.rows for evaluation in row.evaluations.values()]
        chains = [chain for evaluation in wanted if (chain := upstreams(evaluation))]
        found: dict[str, Run] = {}
        for number in range(max(map(len, chains), default=0)):
            firsts = {id(chain[number]): chain[number] for chain in chains if number < len(chain)}  # cells share them
            for first in firsts.values():
                found.setdefault(key(first), first)
        return found | {key(evaluation): evaluation for evaluation in wanted}

    def seed_range(self, count: int) -> range:
        """The seeds of so many replicates."""
        return self.study.seed_range(self.scale, count)

    def firsts(self) -> list[Row]:
        """The rows of the first seed, one a cell."""
        return [row for row in self.rows if row.seed in self.seed_range(1) and not row.repeat]

    @property
    def name(self) -> str:
        """Name of the study and its scale, `study/scale`, in which its runs are queued on a cluster."""
        return f"{self.study.name}/{self.scale.name}"

    def excluded(self) -> dict[str, list[Row]]:
        """The excluded cells by reason, one row a cell."""
        found: dict[str, list[Row]] = {}
        for row in self.firsts():
            if row.excluded:
                found.setdefault(row.excluded, []).append(row)
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
        where: for some axes the values to keep: as values, or as text, in which several may stand with commas between
            them. A text that is a value as a whole is that value, whatever commas it holds.
        seeds: number of replicates instead of the study's, from its first seed upwards.

    Raises:
        HarnessError: unknown scale, axis or value; no seed; a cell function that fails; a spec that is refused.
    """
    chosen = study.scale(scale)
    cells = select(study, where or {})
    if not cells:
        chosen_by = " and ".join(f"{axis}={','.join(map(str, values))}" for axis, values in (where or {}).items())
        raise HarnessError(f"no cell has {chosen_by}")
    count = study.seeds if seeds is None else seeds
    _check_seeds(count)
    if len(cells) * count > MOST:
        raise HarnessError(
            f"{len(cells):,} cells x {count:,} seeds are more than the {MOST:,} that are planned at once; "
            "split the study, or choose with --where and --seeds"
        )
    labels = study.seed_range(chosen, count)
    with shared_pieces(), _nothing_collected():
        rows = tuple(
            row
            for cell in cells
            for seed in labels
            for row in _repeated(resolve(study.cell, chosen, cell, seed), study.repeats)
        )
    return Plan(study, chosen, rows)


def _repeated(row: Row, repeats: int) -> Iterator[Row]:
    """A row, and a row for each further evaluation that is nested in its pre-trainings."""
    yield row
    for repeat in range(1, repeats):
        seed = REPEAT_SEEDS * (row.seed + 1) + repeat  # no seed of another cell's first evaluation
        nested: dict[str, Evaluation] = {
            name: evaluation.replace(seed=seed)
            for name, evaluation in row.evaluations.items()
            if isinstance(evaluation, FineTune | LinearProbe) and pretraining(evaluation) is not None
        }
        if nested:
            yield replace(row, evaluations=nested, repeat=repeat)


@contextlib.contextmanager
def _nothing_collected() -> Iterator[None]:
    """Pause Python's search for cycles, which goes through all rows made so far again and again: half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _closest(cell: Axes, cells: Sequence[Axes]) -> str:
    """What to write instead of a cell that is not there: the values of an axis that lacks its own, else a like cell."""
    for axis, value in cell.items():
        if value not in (there := list(dict.fromkeys(other[axis] for other in cells))):
            return f"{axis} has {', '.join(map(str, there))}"
    return f"one like it is {max(cells, key=lambda other: sum(other[axis] == cell[axis] for axis in cell))}"


def select(study: Study, where: Mapping[str, Sequence[Scalar]]) -> list[dict[str, Scalar]]:
    """The cells with these values of axes, given as `expand` takes them.

    Raises:
        HarnessError: there is no such axis, or no cell has a value.
    """
    cells = every = study.cells
    for axis, wanted in where.items():
        if axis not in study.grid.axes:
            raise HarnessError(f"no axis {axis!r}; this study has {', '.join(study.grid.axes)}")
        present = {str(cell[axis]): None for cell in every}
        kept: set[str] = set()
        for text in map(str, wanted):
            parts = [text] if text in present else [part.strip() for part in text.split(",")]
            if unknown := [part for part in parts if part not in present]:
                raise HarnessError(f"axis {axis} has no value {unknown[0]!r}; it has {', '.join(present)}")
            kept.update(parts)
        cells = [cell for cell in cells if str(cell[axis]) in kept]
    return cells


def resolve(function: CellFunction, scale: Scale, cell: dict[str, Scalar], seed: int) -> Row:
    """Resolve a cell with one seed: call the cell function and check its evaluations.

    Raises:
        Refused: a spec is refused.
        HarnessError: it fails, or gives no evaluations.
    """
    try:
        found = function(scale, **cell, seed=seed)
    except Skip as skip:
        return Row(cell, seed, {}, skip.reason)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the user's own code
        kind = Refused if isinstance(error, ValidationError) else HarnessError
        raise kind(f"{line_of(error)}{_place(cell)}: {in_words(error)}") from error
    if isinstance(found, Skip):
        return Row(cell, seed, {}, found.reason)
    if not isinstance(found, Mapping) or not found:
        raise HarnessError(f"{_place(cell)}: should return evaluations by name, not {found!r:.80}")
    for name, evaluation in found.items():
        if not isinstance(name, str) or not name.strip():
            raise HarnessError(f"{_place(cell)}: an evaluation should be named by a text, not {name!r:.80}")
        if not isinstance(evaluation, Spec) or not hasattr(evaluation, "start"):
            raise HarnessError(f"{_place(cell)}: {name!r} should be an evaluation such as FineTune(...)")
    return Row(cell, seed, dict(found))


def cell_text(cell: Axes) -> str:
    """A cell in a few words: its values, without the axes it lacks."""
    return " ".join(str(value) for value in cell.values() if value is not None) or "the only cell"


def _place(cell: Axes) -> str:
    return f"cell ({', '.join(f'{axis}={value}' for axis, value in cell.items())})"


def load(path: Path) -> Study:
    """The STUDY of a study file.

    The file's project root (the nearest folder at or above it with harness.toml or pyproject.toml) is put first on the
    import path, so that a study can import its neighbours.

    Raises:
        HarnessError: the file is missing, does not parse, fails, or has no STUDY.
    """
    module = run_file(path)
    study = getattr(module, "STUDY", None)
    if not isinstance(study, Study):
        other = f"; it has a SEARCH: harness search {path}" if hasattr(module, "SEARCH") else ""
        raise HarnessError(f"{path.name} has no STUDY = Study(...){other}")
    path = path.resolve()
    root = project_root(path.parent)
    return replace(study, name=study.name or path.stem, root=root, file=path.relative_to(root).as_posix())
