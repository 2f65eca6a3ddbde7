"""Measurement of a cell: the runs it needs, and the values that finished runs give to the sampler."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.search.declaration import GPU_HOURS, Search
from harness.spec import (
    Evaluation,
    HarnessError,
    Pretrain,
    Run,
    Scalar,
    Scale,
    Snapshot,
    Spec,
    key,
    pretraining,
    upstreams,
)
from harness.store import Store
from harness.study import Refused, Row, resolve
from harness.study.file import in_words, line_of


@dataclass(frozen=True)
class Metric:
    """A column of a cell and the name of a metric in its result; GPU-hours have no column."""

    column: str
    name: str


@dataclass(frozen=True)
class Candidate:
    """A cell with some seeds.

    cell: with every axis, None for those that it lacks. rows: one a seed. excluded: reason why the cell cannot run at
        this scale; empty if it can.
    """

    cell: dict[str, Scalar]
    rows: tuple[Row, ...]
    excluded: str = ""

    def evaluations(self, columns: Iterable[str] | None = None) -> list[Evaluation]:
        """Evaluations of all seeds; of some columns only, if given."""
        wanted = None if columns is None else set(columns)
        return [run for row in self.rows for name, run in row.evaluations.items() if wanted is None or name in wanted]


class Measure:
    """Metrics, runs and values of the cells of a search at one scale.

    Args:
        axes: axes of all cells; the cell function is called with None for those that a cell lacks.
    """

    def __init__(self, search: Search, scale: Scale, axes: Sequence[str] = ()) -> None:
        self.search, self.scale = search, scale
        # A cell function has a parameter for every axis, also for those that a conditional space leaves out.
        self._blank: dict[str, Scalar] = dict.fromkeys((*axes, *search.reference))
        # Each pass asks for the same cells again, and the cell function is the user's and may be slow.
        self._known: dict[tuple[tuple[str, Scalar], ...], dict[int, Row]] = {}
        self.metrics = self._metrics()
        self.columns = tuple(dict.fromkeys(metric.column for metric in self.metrics if metric.column))
        self.rungs = search.rung_epochs(scale)
        # Before any trial: a rung is evaluated for the first time in the middle of one.
        reference = self.candidate(search.reference, self.seed_range(1))
        for epoch in self.rungs:
            self.rung(reference, epoch)

    def candidate(self, cell: Mapping[str, Scalar], seeds: Sequence[int]) -> Candidate:
        """A cell at these seeds, with its evaluations.

        Raises:
            HarnessError: the cell function fails, or lacks a column.
        """
        cell = self._blank | dict(cell)
        rows = self._known.setdefault(tuple(sorted(cell.items())), {})
        for seed in seeds:
            if seed not in rows:
                rows[seed] = self._row(dict(cell), seed)
        found = tuple(rows[seed] for seed in seeds)
        excluded = next((row.excluded for row in found if row.excluded), "")
        for row in found:
            if not row.excluded and (lacking := [name for name in self.columns if name not in row.evaluations]):
                raise HarnessError(f"the cell {dict(cell)} has no column {lacking[0]!r}, which the search optimises")
        return Candidate(dict(cell), found, excluded)

    def seed_range(self, count: int) -> range:
        """The seeds of so many replicates of a trial."""
        return self.search.seed_range(self.scale, count)

    def _row(self, cell: dict[str, Scalar], seed: int) -> Row:
        """Evaluations of a cell at one seed; without any if its specification is refused."""
        # A space crosses all values of its parameters, so a combination that cannot be is no mistake of the user.
        try:
            return resolve(self.search.cell, self.scale, cell, seed)
        except Refused as refused:
            return Row(cell, seed, {}, str(refused))

    def wanted(self, candidate: Candidate) -> list[Evaluation]:
        """Evaluations whose results make the values of a candidate."""
        return candidate.evaluations(self.columns or None)

    def values(self, candidate: Candidate, store: Store) -> list[list[float]]:
        """Values by metric and seed of a candidate whose evaluations are done.

        Raises:
            HarnessError: a result lacks the metric.
        """
        return [[self._value(metric, row, store) for row in candidate.rows] for metric in self.metrics]

    def _value(self, metric: Metric, row: Row, store: Store) -> float:
        if not metric.column:  # GPU-hours beside other metrics count the runs of these alone
            evaluations = [run for name, run in row.evaluations.items() if not self.columns or name in self.columns]
            return gpu_hours(evaluations, store)
        return metric_of(row.evaluations[metric.column], metric.name, store)

    def rung(self, candidate: Candidate, epoch: int) -> list[tuple[Pretrain, Evaluation]]:
        """Pre-trainings of a candidate, each with the evaluation of its snapshot after an epoch.

        Raises:
            HarnessError: the length of a pre-training is in steps, or the evaluation of rungs fails or is refused.
        """
        found = []
        for row in candidate.rows:
            for column in self.columns:
                first = pretraining(row.evaluations[column])
                # A cell may pre-train for fewer epochs than the last rung: it is compared on the rungs it reaches.
                if first is not None and first.recipe.steps:
                    raise HarnessError("rungs compare after epochs: state the pre-training's length in epochs")
                if first is not None and epoch <= first.recipe.epochs:
                    start = Snapshot(pretrain=first, epoch=epoch)
                    found.append((first, self._rung_evaluation(start, row.seed)))
        return found

    def _rung_evaluation(self, start: Snapshot, seed: int) -> Evaluation:
        assert self.search.rungs is not None
        try:
            found = self.search.rungs.evaluation(self.scale, start, seed)
        except Exception as error:  # the user's own code
            raise HarnessError(f"{line_of(error)}the evaluation of rungs fails: {in_words(error)}") from error
        if not isinstance(found, Spec) or not hasattr(found, "start"):
            raise HarnessError(f"the evaluation of rungs should be one such as Knn(start=start), not {found!r:.80}")
        _check_split(found, f"the evaluation of rungs, {found.kind},")
        return found

    def _metrics(self) -> list[Metric]:
        """The metrics by column and name, checked against the evaluations of the reference.

        Raises:
            HarnessError: the reference is excluded at this scale, no evaluation gives a metric, or it is measured on
                test images.
        """
        row = resolve(self.search.cell, self.scale, self._blank | dict(self.search.reference), 0)
        found = []
        for text in self.search.metrics:
            column, _, name = text.partition(".")
            if text == GPU_HOURS:
                found.append(Metric("", GPU_HOURS))
                continue
            if row.excluded:
                raise HarnessError(f"the reference is excluded at scale {self.scale.name}: {row.excluded}")
            evaluation = row.evaluations.get(column)
            if evaluation is None or (name and evaluation.metrics and name not in evaluation.metrics):
                raise HarnessError(f"no evaluation gives {text!r}; valid: {', '.join(_given(row.evaluations))}")
            _check_split(evaluation, f"metric {text!r}")
            found.append(Metric(column, name or evaluation.shown_metric))
        if self.search.test and self.search.test not in row.evaluations:
            raise HarnessError(f"test: no column {self.search.test!r}; valid: {', '.join(row.evaluations)}")
        return found


def _given(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """Names that a metric can have: columns, their metrics, and GPU-hours."""
    names = [f"{column}.{name}" for column, run in evaluations.items() for name in run.metrics or (run.shown_metric,)]
    return [*evaluations, *names, GPU_HOURS]


def _check_split(evaluation: Evaluation, what: str) -> None:
    if evaluation.data.split != "validation":
        raise HarnessError(
            f'{what} is measured on the test images, by which nothing may be chosen: give its data split="validation"'
        )


def metric_of(run: Evaluation, name: str, store: Store) -> float:
    """Metric of a finished run.

    Raises:
        HarnessError: the run is not done, or its result lacks the metric.
    """
    result = store.result(key(run))
    if result is None:
        raise HarnessError(f"{key(run)} is not done")
    if name not in result.metrics:
        raise HarnessError(f"the result of {key(run)} has no {name!r}; it has {', '.join(result.metrics)}")
    return result.metrics[name]


def gpu_hours(evaluations: Iterable[Evaluation], store: Store) -> float:
    """Hours that evaluations and their pre-trainings took, times the processes that computed them."""
    evaluations = list(evaluations)
    # By key: seeds and columns that share a pre-training count it once.
    names = {key(run): None for run in evaluations}
    names |= {key(first): None for run in evaluations for first in upstreams(run)}
    total = 0.0
    for name in names:
        if (result := store.result(name)) is not None:
            total += result.seconds * int(store.environment(name).get("processes", 1))
    return total / 3600


def with_starts(evaluations: Iterable[Evaluation]) -> dict[str, Run]:
    """Runs by key: evaluations, each after the runs that it starts from."""
    found: dict[str, Run] = {}
    for run in evaluations:
        found |= {key(before): before for before in (*upstreams(run), run)}
    return found
