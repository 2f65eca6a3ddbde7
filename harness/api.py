"""Studies from Python: plan them, compute them, look at their results as frames, tables and figures.

results = harness.run("studies/quickstart.py", on="inline")
results.table()
results.figure("figure-top1-mask_ratio")
encoder = harness.load_encoder(results.run(mask_ratio=0.6, seed=0))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.launch.executor import ExecutorName, Here, drive, open_executor, overview
from harness.launch.queue import Event, Queue
from harness.launch.ready import check_runs
from harness.launch.resources import Resources
from harness.spec import Evaluation, HarnessError, Pretrain, Scalar, key, pretraining
from harness.store import Store, open_store
from harness.study import Plan, Study, expand, load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure
    from pandas import DataFrame

    from harness.report import Report
    from harness.report.claims.verdicts import Verdict
    from harness.report.tables.table import Table

Where = Mapping[str, Scalar | Sequence[Scalar]]


def plan(
    study: Study | Path | str, scale: str | None = None, *, where: Where | None = None, seeds: int | None = None
) -> Plan:
    """Every run of a study at one scale, without computing any.

    Args:
        study: a study, or the path of its file. scale: by default the study's first.
        where: for some axes the value to keep, or several. seeds: replicates instead of the study's.

    Raises:
        HarnessError: the study, the scale, an axis or a value does not exist, or a spec is refused.
    """
    found = study if isinstance(study, Study) else load(Path(study))
    chosen = {axis: _several(value) for axis, value in (where or {}).items()}
    return expand(found, scale=scale, where=chosen, seeds=seeds)


def run(
    study: Study | Path | str,
    scale: str | None = None,
    *,
    on: ExecutorName = "local",
    where: Where | None = None,
    seeds: int | None = None,
    store: Store | Path | str | None = None,
    slots: int | None = None,
    resources: Resources | None = None,
    retry: bool = False,
) -> Results:
    """Compute what is missing of a study. Done runs are never computed again; runs go on after one fails.

    Args:
        study, scale, where, seeds: as `plan` takes them.
        on: inline, in this process; local, processes of this machine; slurm, which queues jobs and returns at once.
        store: folder of the runs; by default that of the site profile, or `runs/` in the study's project root.
        slots: local runs side by side; None for what suits this machine. resources: device, threads and the like.
        retry: failed runs are tried again.

    Raises:
        HarnessError: as `plan`, or the data set or a model of a run cannot be used here.
    """
    wanted = plan(study, scale, where=where, seeds=seeds)
    opened, specs = _opened(store, wanted), wanted.runs()
    queue = Queue(specs, opened, retry=retry)
    check_runs({name: queue.run(name) for name in queue.open()}, opened)
    project, name = wanted.study.root, f"{wanted.study.name}/{wanted.scale.name}"
    executor = open_executor(on, opened, resources or Resources(), study=name, project=project, slots=slots)
    done = executor.submit(specs, retry=retry)
    if done.refused:
        raise HarnessError(f"sbatch refused: {done.refused}")
    if isinstance(executor, Here):
        with _progress(name, executor.queue) as show:
            drive(executor, show)
    return Results(wanted, opened)


def results(
    study: Study | Path | str,
    scale: str | None = None,
    *,
    where: Where | None = None,
    seeds: int | None = None,
    store: Store | Path | str | None = None,
) -> Results:
    """What a store holds of a study, computed or not; arguments as of `run`."""
    wanted = plan(study, scale, where=where, seeds=seeds)
    return Results(wanted, _opened(store, wanted))


def results_frame(
    study: Study | Path | str,
    scale: str | None = None,
    *,
    store: Store | Path | str | None = None,
    seeds: int | None = None,
) -> DataFrame:
    """`results(...).frame()`: a row for each cell, seed and evaluation, in whatever state it is."""
    return results(study, scale, store=store, seeds=seeds).frame()


@dataclass(frozen=True)
class Results:
    """Results of a study at one scale, read from the store whenever they are asked for. Notebooks show the table."""

    plan: Plan
    store: Store

    def frame(self) -> DataFrame:
        """A row for each cell, seed and evaluation.

        Columns: `cell` (its number in the study), the axes (None where an axis does not apply), seed, evaluation,
        state (done, running, failed, blocked, lost, missing or excluded), reason (for a missing value), value (the
        metric that tables show, NaN unless done), `metric.<name>` for every metric, then key, seconds and provenance
        of the evaluation, and the same with the prefix `pretrain_` for the pre-training that it starts from.
        """
        from harness.report.collect import runs_frame

        return runs_frame(self.plan, self.store)

    def table(self, *, wide: bool = False) -> Table:
        """One row a cell, seeds aggregated. wide: with n, intervals, differences and adjusted p-values."""
        from harness.report.tables.statistics import summary
        from harness.report.tables.table import table

        runs = self.frame()
        return table(self.plan, runs, summary(self.plan, runs), wide=wide)

    def figures(self) -> Mapping[str, Figure]:
        """The figures of the report, drawn, by name."""
        from harness.report.figures.pictures import figures

        return figures(self.plan, self.store)

    def figure(self, name: str) -> Figure:
        """A figure of the report, such as `figure-top1-mask_ratio`; the beginning of a name is enough.

        Raises:
            HarnessError: no figure, or several, have a name that begins so.
        """
        drawn = self.figures()
        found = [name] if name in drawn else [other for other in drawn if other.startswith(name)]
        if len(found) != 1:
            raise HarnessError(f"{len(found)} figures begin with {name!r}; there are {', '.join(drawn) or 'none'}")
        return drawn[found[0]]

    def claims(self) -> tuple[Verdict, ...]:
        """The verdicts on the study's claims."""
        from harness.report.claims.listing import judged

        return judged(self.plan, self.frame())

    def headline(self) -> str:
        """What the study says, in two or three sentences with intervals."""
        from harness.report.headline import headline
        from harness.report.tables.statistics import summary

        return headline(self.plan, summary(self.plan, self.frame()))

    def run(self, evaluation: str | None = None, *, seed: int | None = None, **cell: Scalar) -> Evaluation | Pretrain:
        """A run by its cell: the evaluation of this name, or the cell's pre-training.

        Args:
            evaluation: column of the study; None for the pre-training that the cell's evaluations start from.
            seed: by default the first of the plan. cell: values of axes, enough to name one cell.

        Raises:
            HarnessError: no cell or several have these values, or the cell has no such run.
        """
        if unknown := [axis for axis in cell if axis not in self.plan.study.grid.axes]:
            raise HarnessError(f"no axis {unknown[0]!r}; valid: {', '.join(self.plan.study.grid.axes)}")
        seed = self.plan.rows[0].seed if seed is None else seed
        rows = [row for row in self.plan.rows if row.seed == seed and cell.items() <= row.axes.items()]
        if len(rows) != 1:
            raise HarnessError(f"{len(rows)} cells have {cell} at seed {seed}; give the values of one")
        (row,) = rows
        if evaluation is not None:
            if evaluation not in row.evaluations:
                raise HarnessError(f"no evaluation {evaluation!r} in this cell; it has {', '.join(row.evaluations)}")
            return row.evaluations[evaluation]
        found = {key(first): first for one in row.evaluations.values() if (first := pretraining(one)) is not None}
        if len(found) != 1:
            raise HarnessError(f"this cell has {len(found)} pre-trainings; name one of {', '.join(row.evaluations)}")
        return next(iter(found.values()))

    def report(self, folder: Path | str) -> Report:
        """Write tables, figures and report.html into a folder, as `harness report` does."""
        from harness.report import write

        places = overview(self.plan.runs(), self.store).places
        return write(
            self.plan, self.store, Path(folder), {name: (place.word, place.detail) for name, place in places.items()}
        )

    def _repr_html_(self) -> str:
        return self.table().html()


def _several(value: Scalar | Sequence[Scalar]) -> Sequence[Scalar]:
    return [value] if value is None or isinstance(value, str | int | float) else value


def _opened(store: Store | Path | str | None, wanted: Plan) -> Store:
    return store if isinstance(store, Store) else open_store(store, wanted.study.root)


def _progress(title: str, queue: Queue) -> AbstractContextManager[Callable[[Event], None]]:
    """A progress bar over runs, where there is anything to compute: of the notebook, else of the terminal."""
    return _notebook_bar(title, queue) if _in_notebook() else _terminal_bar(title, queue)


def _in_notebook() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return "IPKernelApp" in getattr(get_ipython(), "config", {})


@contextmanager
def _terminal_bar(title: str, queue: Queue) -> Iterator[Callable[[Event], None]]:
    from rich.progress import Progress

    with Progress(transient=True) as progress:
        bar = progress.add_task(title, total=len(queue))

        def show(event: Event) -> None:
            if event.kind in ("done", "failed", "blocked", "interrupted"):
                progress.advance(bar)

        yield show


@contextmanager
def _notebook_bar(title: str, queue: Queue) -> Iterator[Callable[[Event], None]]:
    from html import escape

    from IPython.display import HTML, display

    total, ended = len(queue), 0

    def text() -> object:
        return HTML(f"<progress max={max(total, 1)} value={ended}></progress> {escape(title)}: {ended} of {total} runs")

    shown = display(text(), display_id=True)

    def show(event: Event) -> None:
        nonlocal ended
        if event.kind in ("done", "failed", "blocked", "interrupted"):
            ended += 1
            shown.update(text())

    yield show
