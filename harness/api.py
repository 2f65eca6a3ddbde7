"""Studies from Python: plan them, compute them, look at their results as frames, tables and figures.

results = harness.run("studies/quickstart.py", on="inline")
results.table()
results.figure("figure-top1-mask_ratio")
encoder = harness.load_encoder(results.run(mask_ratio=0.6, seed=0))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.launch.executor import (
    Executor,
    ExecutorName,
    Here,
    Overview,
    Report,
    Submitted,
    drive,
    open_executor,
    overview,
)
from harness.launch.queue import Ending, Event, Queue
from harness.launch.ready import check_runs
from harness.launch.resources import Resources
from harness.launch.site import read_site
from harness.papers.models import Model, published_models
from harness.spec import Evaluation, HarnessError, Pretrain, Run, Scalar, key, pretraining, upstreams
from harness.store import Store, open_store
from harness.study import Plan, Study, expand, load, select

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure
    from pandas import DataFrame

    from harness.report.claims.verdicts import Verdict
    from harness.report.report_cache import Shown
    from harness.report.tables.table import Table

RETRIED = ("failed", "cancelled", "interrupted")
"""States of runs that a retry computes again."""
Where = Mapping[str, Scalar | Sequence[Scalar]]


class Watch(NamedTuple):
    """Who looks on while runs are computed. show: takes each event. stopping: True once runs should save and end."""

    show: Report
    stopping: Callable[[], bool] = lambda: False


Progress = Callable[[Queue], AbstractContextManager[Watch]]
"""What shows how a queue is computed, from its beginning to its end."""


class Work(NamedTuple):
    """What became of runs. endings: by key, of this machine's. submitted: counts of those given to a cluster."""

    endings: Mapping[str, Ending]
    submitted: Submitted | None = None


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
    read_site(found.root)  # a slip in a profile shows at once, not when jobs are submitted
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
        store: folder of the runs; by default `store` of harness.toml or site.toml, or `runs/` in the project root.
        slots: local runs side by side; None for what suits this machine. resources: device, threads and the like.
        retry: failed runs are tried again.

    Raises:
        HarnessError: as `plan`, or the data set or a model of a run cannot be used here.
    """
    found = results(study, scale, where=where, seeds=seeds, store=store)
    work = found.compute(on=on, slots=slots, resources=resources, retry=retry)
    if work.submitted and work.submitted.refused:
        raise HarnessError(f"sbatch refused: {work.submitted.refused}")
    return found


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
    return Results(wanted, store if isinstance(store, Store) else open_store(store, wanted.study.root))


def results_frame(
    study: Study | Path | str,
    scale: str | None = None,
    *,
    store: Store | Path | str | None = None,
    seeds: int | None = None,
) -> DataFrame:
    """`results(...).frame()`: a row for each cell, seed and evaluation, in whatever state it is."""
    return results(study, scale, store=store, seeds=seeds).frame()


def models() -> DataFrame:
    """The published models of SimMIM, A2MIM, MAE and SymMIM, one a row; loads no torch.

    Columns: `name`, `paper`, `aliases` (other names, as mmpretrain's), `stage` (pretrain, finetune or linear-probe),
    `image_size` (px), `parameters`, `multiply_adds` (encoder and pooling, for one image), `top1` (published, in
    percent; NaN if none is), `verified` (False if that was checked against no source), `source`, `recipe`, and
    `weights` (the name of the published file).
    """
    from pandas import DataFrame

    return DataFrame([_facts(model) for model in published_models().values()])


def _facts(model: Model) -> dict[str, object]:
    top1 = model.accuracy
    return {
        "name": model.name,
        "paper": model.paper,
        "aliases": model.aliases,
        "stage": model.run.kind,
        "image_size": model.size.image_size,
        "parameters": model.size.parameters,
        "multiply_adds": model.size.multiply_adds,
        "top1": top1.value if top1 else float("nan"),
        "verified": top1 is not None and top1.verified,
        "source": top1.source if top1 else "",
        "recipe": model.recipe,
        "weights": model.file,
    }


@dataclass(frozen=True)
class Results:
    """Results of a study at one scale, read from the store whenever they are asked for. Notebooks show the table."""

    plan: Plan
    store: Store

    def compute(
        self,
        runs: Mapping[str, Run] | None = None,
        *,
        on: ExecutorName | Executor = "local",
        slots: int | None = None,
        resources: Resources | None = None,
        retry: bool = False,
        progress: Progress | None = None,
    ) -> Work:
        """Compute what is missing, or give it to a cluster; `run` and the command line do so by this.

        Args:
            runs: by key; by default all of the plan. on: or an executor, which then has its slots and resources.
            progress: by default a bar over runs. The rest as `run` takes it.

        Raises:
            HarnessError: as `run`; or every cell of the plan is excluded.
        """
        specs = self.runs() if runs is None else runs
        executor = self.executor(on, slots=slots, resources=resources) if isinstance(on, str) else on
        # Before an executor's own queue puts aside results whose weights are needed again: a refusal changes nothing.
        _check(Queue(specs, self.store, retry=retry, reading=True), self.store)
        if not isinstance(executor, Here):
            return Work({}, executor.submit(specs, retry=retry))
        executor.submit(specs, retry=retry)
        queue = executor.queue
        for name in queue.open()[:1]:
            self.store.register(queue.run(name))  # a store that cannot be written shows before anything is started
        with (progress or self._progress)(queue) as watch:
            drive(executor, watch.show, stopping=watch.stopping)
        return Work(queue.endings)

    def runs(self) -> dict[str, Run]:
        """All runs of the plan by key.

        Raises:
            HarnessError: every cell is excluded.
        """
        if not (specs := self.plan.runs()):
            reasons, plan = "; ".join(self.plan.excluded()), self.plan
            raise HarnessError(f"no cell of {plan.study.name} can run at scale {plan.scale.name}: {reasons}")
        return specs

    def executor(self, on: ExecutorName, *, slots: int | None = None, resources: Resources | None = None) -> Executor:
        """What computes runs of this store in the name of this study; arguments as of `run`."""
        if on == "slurm" and slots is not None:
            raise HarnessError("--slots belongs to --on local; on Slurm the site profile says pack and slots")
        if on == "inline" and slots not in (None, 1):
            raise HarnessError("--slots: runs in this process are computed one by one; use --on local")
        chosen, project = resources or Resources(), self.plan.study.root
        return open_executor(on, self.store, chosen, study=self.plan.name, project=project, slots=slots)

    def _progress(self, queue: Queue) -> AbstractContextManager[Watch]:
        """A progress bar over runs: of the notebook, else of the terminal."""
        return (_notebook_bar if _in_notebook() else _terminal_bar)(self.plan.name, queue)

    def overview(self) -> Overview:
        """Where each run stands: by the files of the store, then by clusters."""
        return overview(self.plan.runs(), self.store)

    def failed(self) -> dict[str, Run]:
        """Failed, cancelled and interrupted runs by key, with what waits for them and all that those start from.

        A finished run among them is not computed again.
        """
        specs = self.runs()
        # Blocked runs are not among them: they come along with the run that they wait for.
        again = {name for name, place in self.overview().places.items() if place.word in RETRIED}
        before = {name: [key(first) for first in upstreams(run)] for name, run in specs.items()}
        wanted = {name for name in specs if {name, *before[name]} & again}
        wanted |= {first for name in wanted for first in before[name]}
        return {name: run for name, run in specs.items() if name in wanted}

    def looked(self) -> Results:
        """The same of a study with looks, including the further seeds of claims that were open."""
        if not self.plan.study.looks:
            return self
        from harness.report.claims.sequential import looked

        return replace(self, plan=looked(self.plan, self.store))

    def frame(self) -> DataFrame:
        """A row for each cell, seed and evaluation.

        Columns: `cell` (its number in the study), the axes (None where an axis does not apply), seed, evaluation,
        state (done, running, failed, blocked, interrupted, missing or excluded), reason (for a missing value), value
        (the metric that tables show, NaN unless done), `metric.<name>` for every metric, then key, seconds and
        provenance of the evaluation, and the same with the prefix `pretrain_` for the pre-training that it starts from.
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

        if _in_notebook():
            _show_figures()
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
        """What the study says, in a few sentences with intervals."""
        from harness.report.claims.listing import judged
        from harness.report.headline import headline
        from harness.report.tables.statistics import summary

        runs = self.frame()
        return headline(self.plan, summary(self.plan, runs), judged(self.plan, runs))

    def run(self, evaluation: str | None = None, *, seed: int | None = None, **cell: Scalar) -> Evaluation | Pretrain:
        """A run by its cell: the evaluation of this name, or the cell's pre-training.

        Args:
            evaluation: column of the study, whose first is given where it is repeated; None for the pre-training that
                the cell's evaluations start from.
            seed: by default the first of the plan. cell: values of axes, enough to name one cell.

        Raises:
            HarnessError: no cell or several have these values, or the cell has no such run.
        """
        cells = select(self.plan.study, {axis: [value] for axis, value in cell.items()})
        seed = self.plan.rows[0].seed if seed is None else seed
        if seed not in (seeds := list(dict.fromkeys(row.seed for row in self.plan.rows))):
            raise HarnessError(f"no seed {seed!r}; this study has {', '.join(map(str, seeds))}")
        rows = [row for row in self.plan.rows if row.seed == seed and row.axes in cells and not row.repeat]
        if len(rows) != 1:
            several = {axis: dict.fromkeys(str(row.axes[axis]) for row in rows) for axis in self.plan.study.grid.axes}
            told = "; ".join(f"{axis} is {' or '.join(found)}" for axis, found in several.items() if len(found) > 1)
            raise HarnessError(f"{len(rows)} cells have {cell} at seed {seed}" + (f"; {told}" if told else ""))
        (row,) = rows
        if evaluation is not None:
            if evaluation not in row.evaluations:
                raise HarnessError(f"no evaluation {evaluation!r} in this cell; it has {', '.join(row.evaluations)}")
            return row.evaluations[evaluation]
        found = {key(first): first for one in row.evaluations.values() if (first := pretraining(one)) is not None}
        if len(found) != 1:
            raise HarnessError(f"this cell has {len(found)} pre-trainings; name one of {', '.join(row.evaluations)}")
        return next(iter(found.values()))

    def report(self, folder: Path | str, *, wide: bool = False, always: bool = True) -> Shown:
        """Write tables, figures and report.html into a folder, as `harness report` does.

        Args:
            wide: the table with n, intervals and adjusted p-values. always: also if nothing changed since the last.

        Raises:
            HarnessError: the folder holds another study's report, or the disk refuses.
        """
        from harness.report.report_cache import current

        standings = {name: (place.word, place.detail) for name, place in self.overview().places.items()}
        return current(self.plan, self.store, Path(folder), standings, always=always, wide=wide)

    def _repr_html_(self) -> str:
        return self.table().html()

    def __str__(self) -> str:
        return str(self.table())


def _several(value: Scalar | Sequence[Scalar]) -> Sequence[Scalar]:
    # A number that was taken from a table is NumPy's, which is no int.
    return value if isinstance(value, Iterable) and not isinstance(value, str) else [value]


def _check(queue: Queue, store: Store) -> None:
    """Check the runs of a queue that are still to be computed: results from data that is gone can be reported."""
    check_runs({name: queue.run(name) for name in queue.open()}, store)


def _in_notebook() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return "IPKernelApp" in getattr(get_ipython(), "config", {})


def _show_figures() -> None:
    """Have the notebook show figures as pictures, which it does by itself only after pyplot has been imported."""
    from IPython import get_ipython
    from IPython.core.pylabtools import select_figure_formats
    from matplotlib.figure import Figure

    shell = get_ipython()
    if Figure not in shell.display_formatter.formatters["image/png"].type_printers:
        select_figure_formats(shell, {"png"})


@contextmanager
def _terminal_bar(title: str, queue: Queue) -> Iterator[Watch]:
    from rich.console import Console
    from rich.progress import Progress

    console = Console()
    # Even a bar that is gone in the end would leave an empty line in a file.
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(title, total=len(queue))

        def show(event: Event) -> None:
            if event.kind in ("done", "failed", "blocked", "interrupted"):
                progress.advance(bar)

        yield Watch(show)


@contextmanager
def _notebook_bar(title: str, queue: Queue) -> Iterator[Watch]:
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

    yield Watch(show)
