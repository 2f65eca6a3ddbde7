"""Declaration of a search: space, cell function, metric, budget. Plain Python in a study file."""

from __future__ import annotations

import operator
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
REDUCTION = 3
"""One of this many trials goes on at each rung, in successive halving and Hyperband."""
LEAST_SEEDS = 5
"""Fewest seeds with which the signed-rank test of the Wilcoxon pruner can reach its threshold."""
FIRST_FRESH = 1000
"""Lowest seed of a confirmation; trials have seeds below."""
GPU_HOURS = "gpu_hours"
"""Metric of cost: hours times processes of a trial's runs and their pre-trainings, mean over seeds, on any device."""

Space = Callable[[Any], Mapping[str, Scalar]]
"""Function from an Optuna trial (`suggest_categorical`, `suggest_int`, `suggest_float`) to a cell."""


@dataclass(frozen=True, kw_only=True)
class Rungs:
    """Evaluations during pre-training, by which a pruner compares trials.

    epochs: epochs of the pre-training after which trials are compared, rising, by scale.
    evaluation: called as `evaluation(scale, start, seed)` with a Snapshot; should be cheap, such as Knn. Its first
        metric counts, in the direction of the search.
    """

    epochs: Mapping[str, tuple[int, ...]]
    evaluation: Callable[[Scale, Any, int], Evaluation]


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search over cells.

    Attributes:
        space: function from an Optuna trial to a cell. Conditional spaces are plain `if`s. Equal cells count as one.
        cell: as in a Study: called as `cell(scale, **axes, seed=...)`, returns evaluations by column, or a Skip.
        metric: column to optimise, or `column.metric`, or `gpu_hours`; several for a Pareto front. A column must be
            measured on the validation split.
        direction: one for each metric, or one for all.
        test: column whose value is shown for the winner afterwards; nothing is selected by it.
        scales: as in a Study: the default first, never paper.
        trials: budget by scale: number of distinct cells to compute. Cells that the store has already cost nothing.
        reference: default cell that the winner is compared with.
        sampler: tpe, gp, cmaes, random or nsga2.
        seeds: replicates of a trial; its value is their mean.
        promising_seeds: replicates of a trial that ranks in the best third so far.
        rungs, pruner: early stopping of trials: halving, hyperband or median compare rungs; wilcoxon compares seeds.
        duplicates: number of proposals in a row, of known cells or of such as cannot run, after which the search ends.
        confirmed: number of best cells that are confirmed at the end, beside the reference.
        fresh_seeds: seeds of a confirmation, which no trial used.
        begins: number of times a run whose process is killed is begun before its trial fails.
        study: study whose finished cells become trials. Seeds of trials begin with its first one.
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
        for metric, direction in zip(self.metrics, self.directions, strict=True):
            check_name("direction", direction, get_args(Direction))
            if metric == GPU_HOURS and direction == "maximize":
                raise HarnessError(f'{GPU_HOURS} is a cost: its direction should be "minimize"')
        counts = ("seeds", "duplicates", "begins", "fresh_seeds")
        if few := [name for name in counts if getattr(self, name) < 1]:
            raise HarnessError(f"{few[0]} should be 1 or more, not {getattr(self, few[0])}")
        if self.most_seeds < self.seeds:
            raise HarnessError(f"promising_seeds {self.promising_seeds} is less than seeds {self.seeds}")
        if self.most_seeds > self.seeds and len(self.metrics) > 1:
            raise HarnessError(f"promising_seeds needs one metric to tell by, and this search has {len(self.metrics)}")
        # Scales and reference obey the same rules as in a study, so a study checks them.
        Study(cell=self.cell, grid=Grid([self.reference]), scales=self.scales, reference=self.reference)
        if any(self.seed_range(scale, self.most_seeds).stop > FIRST_FRESH for scale in self.scales):
            raise HarnessError(f"trials need seeds below {FIRST_FRESH:,}: from there on they confirm what was found")
        for name, count in self.trials.items():
            if name not in self._known_scales or count < 1:
                known = ", ".join(self._known_scales)
                raise HarnessError(f"trials[{name!r}] = {count}: should be 1 or more for one of {known}")
        self._check_pruning()

    def _check_pruning(self) -> None:
        """Refuse rungs without a pruner, and pruners without what they compare."""
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
        elif GPU_HOURS in self.metrics:
            raise HarnessError(
                f"pruner {self.pruner!r} compares what rungs evaluate, which says nothing of {GPU_HOURS}: "
                "give another metric, or two without a pruner"
            )
        else:
            self._check_rungs(self.rungs)

    def _check_rungs(self, rungs: Rungs) -> None:
        """Refuse rungs of scales that do not exist, and such as the pruner would not compare."""
        for name in rungs.epochs:
            check_name("scale of rungs", name, self._known_scales)
        for scale in self.scales:
            epochs = self.rung_epochs(scale)
            least = [epochs[0] * REDUCTION**number for number in range(len(epochs))] if epochs else []
            if self.pruner in ("halving", "hyperband") and any(map(operator.lt, epochs, least)):
                raise HarnessError(
                    f"pruner {self.pruner!r} compares after {', '.join(map(str, least))} epochs or later, and rungs at "
                    f"scale {scale.name} are {', '.join(map(str, epochs))}: give each {REDUCTION} times the one before"
                )

    @property
    def _known_scales(self) -> tuple[str, ...]:
        return tuple(scale.name for scale in self.scales)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of all metrics."""
        return (self.metric,) if isinstance(self.metric, str) else self.metric

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Direction of each metric."""
        if isinstance(self.direction, str):
            return (self.direction,) * len(self.metrics)
        return self.direction

    @property
    def most_seeds(self) -> int:
        """Number of seeds of a promising trial."""
        return self.promising_seeds or self.seeds

    def seed_range(self, scale: Scale, count: int) -> range:
        """The seeds of so many replicates of a trial at a scale."""
        return self.study.seed_range(scale, count) if self.study is not None else range(count)

    def scale(self, name: str | None = None) -> Scale:
        """Scale of that name; the first one by default.

        Raises:
            HarnessError: there is no such scale.
        """
        for scale in self.scales:
            if scale.name == (name or self.scales[0].name):
                return scale
        raise HarnessError(f"no scale {name!r}; this search has {', '.join(scale.name for scale in self.scales)}")

    def budget(self, scale: Scale, asked: int | None = None) -> int:
        """Number of distinct cells to compute at a scale. asked: the user's number, which takes precedence.

        Raises:
            HarnessError: neither the search nor the user gives a number.
        """
        if asked is not None:
            return asked
        if scale.name not in self.trials:
            raise HarnessError(f"this search has no default number of trials at scale {scale.name}: give --trials")
        return self.trials[scale.name]

    def rung_epochs(self, scale: Scale) -> tuple[int, ...]:
        """Epochs after which trials are compared at a scale; empty without rungs."""
        epochs = tuple(self.rungs.epochs.get(scale.name, ())) if self.rungs is not None else ()
        if list(epochs) != sorted(set(epochs)) or any(epoch < 1 for epoch in epochs):
            raise HarnessError(f"rungs at scale {scale.name} should be rising epochs, not {epochs}")
        return epochs


def check_name(what: str, name: str, known: tuple[str, ...]) -> None:
    """Check that a name is known.

    Raises:
        HarnessError: the name is unknown; the message gives the valid ones.
    """
    if name not in known:
        raise HarnessError(f"no {what} {name!r}; valid: {', '.join(known)}")


def load_search(path: Path) -> Search:
    """Load the SEARCH of a study file, with its STUDY if it has one.

    Raises:
        HarnessError: the file is missing, does not parse, fails, or has no SEARCH.
    """
    module = run_file(path)
    search, study = getattr(module, "SEARCH", None), getattr(module, "STUDY", None)
    if not isinstance(search, Search):
        other = f"; it has a STUDY: harness run {path}" if isinstance(study, Study) else ""
        raise HarnessError(f"{path.name} has no SEARCH = Search(...){other}")
    # The name leads to the search's folder, so a renamed search begins anew.
    return replace(
        search,
        name=search.name or path.stem,
        root=project_root(path.resolve().parent),
        # A study in the same file is the one whose finished cells are known already.
        study=search.study or (study if isinstance(study, Study) else None),
    )
