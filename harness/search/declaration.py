"""What a search is: a space, a cell function, a metric, a budget. Plain Python, loaded from a study file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from harness.machine import project_root
from harness.spec import Evaluation, HarnessError, Scalar, Scale
from harness.study import CellFunction, Study
from harness.study.file import run_file
from harness.study.grid import Axes, Grid

Direction = Literal["maximize", "minimize"]
SamplerName = Literal["tpe", "gp", "cmaes", "random", "nsga2"]
PrunerName = Literal["none", "halving", "hyperband", "median", "wilcoxon"]
SAMPLERS: tuple[str, ...] = get_args(SamplerName)
PRUNERS: tuple[str, ...] = get_args(PrunerName)
LEAST_SEEDS = 5
"""Below this many seeds the signed-rank test of the Wilcoxon pruner cannot fall under its threshold."""
GPU_HOURS = "gpu_hours"
"""The metric that no evaluation gives: hours of computing times processes, of a trial's runs and their pre-trainings,
mean over seeds, on whichever device they ran."""

Space = Callable[[Any], Mapping[str, Scalar]]
"""From an Optuna trial (`suggest_categorical`, `suggest_int`, `suggest_float`) to a cell."""


@dataclass(frozen=True, kw_only=True)
class Rungs:
    """Evaluations on the way, by which a pruner compares trials.

    epochs: of the pre-training, by scale; rising.
    evaluation: called as `evaluation(scale, start, seed)` with a Snapshot; should be cheap, such as Knn. Its first
        metric counts, in the direction of the search.
    """

    epochs: Mapping[str, tuple[int, ...]]
    evaluation: Callable[[Scale, Any, int], Evaluation]


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search over cells.

    Attributes:
        space: from an Optuna trial to a cell. Conditional spaces are plain `if`s. Equal cells count as one.
        cell: as in a Study: called as `cell(scale, **axes, seed=...)`, returns evaluations by column, or a Skip.
        metric: the column that is optimised, or `column.metric`, or `gpu_hours`; several for a Pareto front. A column
            has to be measured on the validation split.
        direction: of each metric, or one for all.
        test: the column whose number is shown of the winner afterwards, if any; nothing is chosen by it.
        scales: as in a Study: the default first, never paper.
        trials: the budget by scale: distinct cells that are computed. What the store has already costs nothing.
        reference: the default cell that the winner is compared with.
        sampler: tpe, gp, cmaes, random or nsga2.
        seeds: replicates of a trial; its value is their mean.
        promising_seeds: replicates of a trial that is among the best third of those told so far.
        rungs, pruner: what stops a trial early: halving, hyperband or median by the rungs; wilcoxon by the seeds.
        duplicates: the search ends after this many proposals in a row of cells that it knows.
        confirmed: how many of the best cells are evaluated anew in the end, beside the reference.
        fresh_seeds: with how many seeds that no trial used.
        begins: how often a run whose process is killed is begun before its trial fails.
        study: whose finished cells become trials.
    """

    space: Space
    cell: CellFunction
    metric: str | tuple[str, ...]
    scales: tuple[Scale, ...]
    trials: Mapping[str, int]
    reference: Axes
    direction: Direction | tuple[Direction, ...] = "maximize"
    test: str = ""
    sampler: str = "tpe"
    seeds: int = 1
    promising_seeds: int | None = None
    rungs: Rungs | None = None
    pruner: str = "none"
    duplicates: int = 50
    confirmed: int = 3
    fresh_seeds: int = 5
    begins: int = 3
    study: Study | None = None
    name: str = ""
    root: Path = field(default_factory=Path)

    def __post_init__(self) -> None:
        check_name("sampler", self.sampler, SAMPLERS)
        check_name("pruner", self.pruner, PRUNERS)
        if not self.metrics or len(self.directions) != len(self.metrics):
            raise HarnessError(f"{len(self.metrics)} metrics and {len(self.directions)} directions: give each its own")
        for direction in self.directions:
            check_name("direction", direction, get_args(Direction))
        counts = ("seeds", "duplicates", "begins", "fresh_seeds")
        if few := [name for name in counts if getattr(self, name) < 1]:
            raise HarnessError(f"{few[0]} should be 1 or more, not {getattr(self, few[0])}")
        if self.most_seeds < self.seeds:
            raise HarnessError(f"promising_seeds {self.promising_seeds} is less than seeds {self.seeds}")
        if self.most_seeds > self.seeds and len(self.metrics) > 1:
            raise HarnessError(f"promising_seeds needs one metric to tell by, and this search has {len(self.metrics)}")
        # A study checks scales and the reference.
        Study(cell=self.cell, grid=Grid([self.reference]), scales=self.scales, reference=self.reference)
        for name, count in self.trials.items():
            if name not in (known := [scale.name for scale in self.scales]) or count < 1:
                raise HarnessError(f"trials[{name!r}] = {count}: should be 1 or more for one of {', '.join(known)}")
        self._check_pruning()

    def _check_pruning(self) -> None:
        if self.pruner == "none":
            if self.rungs is not None:
                raise HarnessError(f"rungs without a pruner do nothing; valid: {', '.join(PRUNERS[1:])}")
            return
        if len(self.metrics) > 1:
            raise HarnessError(f"pruner {self.pruner!r} compares one metric, and this search has {len(self.metrics)}")
        if self.pruner == "wilcoxon":
            if self.most_seeds < LEAST_SEEDS:
                raise HarnessError(f"the wilcoxon pruner needs {LEAST_SEEDS} seeds or more, not {self.most_seeds}")
            if self.rungs is not None:
                raise HarnessError("the wilcoxon pruner compares seeds, not rungs; valid: halving, hyperband, median")
        elif self.rungs is None:
            raise HarnessError(f"pruner {self.pruner!r} compares rungs: give rungs=Rungs(...)")

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of all metrics."""
        return (self.metric,) if isinstance(self.metric, str) else self.metric

    @property
    def directions(self) -> tuple[Direction, ...]:
        """The direction of each metric."""
        if isinstance(self.direction, str):
            return (self.direction,) * len(self.metrics)
        return self.direction

    @property
    def most_seeds(self) -> int:
        """Replicates of a promising trial."""
        return self.promising_seeds or self.seeds

    def scale(self, name: str | None = None) -> Scale:
        """The scale of that name, the first one by default.

        Raises:
            HarnessError: there is no such scale.
        """
        for scale in self.scales:
            if scale.name == (name or self.scales[0].name):
                return scale
        raise HarnessError(f"no scale {name!r}; this search has {', '.join(scale.name for scale in self.scales)}")

    def budget(self, scale: Scale, asked: int | None = None) -> int:
        """Distinct cells that are computed at a scale.

        Raises:
            HarnessError: neither the search nor the user says.
        """
        if asked is not None:
            return asked
        if scale.name not in self.trials:
            raise HarnessError(f"this search has no default number of trials at scale {scale.name}: give --trials")
        return self.trials[scale.name]

    def rung_epochs(self, scale: Scale) -> tuple[int, ...]:
        """The epochs after which trials are compared at a scale."""
        epochs = tuple(self.rungs.epochs.get(scale.name, ())) if self.rungs is not None else ()
        if list(epochs) != sorted(set(epochs)) or any(epoch < 1 for epoch in epochs):
            raise HarnessError(f"rungs at scale {scale.name} should be rising epochs, not {epochs}")
        return epochs


def check_name(what: str, name: str, known: tuple[str, ...]) -> None:
    """Raise unless a name is known.

    Raises:
        HarnessError: names the valid choices.
    """
    if name not in known:
        raise HarnessError(f"no {what} {name!r}; valid: {', '.join(known)}")


def load_search(path: Path) -> Search:
    """The SEARCH of a study file, with its STUDY if it has one.

    Raises:
        HarnessError: the file is missing, does not parse, fails, or has no SEARCH.
    """
    module = run_file(path)
    search = getattr(module, "SEARCH", None)
    if not isinstance(search, Search):
        raise HarnessError(f"{path.name} has no SEARCH = Search(...)")
    study = getattr(module, "STUDY", None)
    return replace(
        search,
        name=search.name or path.stem,
        root=project_root(path.resolve().parent),
        study=search.study or (study if isinstance(study, Study) else None),
    )
