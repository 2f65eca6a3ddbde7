"""Metrics of runs for other people's viewers: TensorBoard's event files, and runs of Weights & Biases made offline."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.report.escape import clean, file_stem, shown
from harness.spec import HarnessError, Run, Scalar, key, upstreams
from harness.store import Store
from harness.store.files import disk_errors
from harness.study import Plan

_EVENTS = "events.out.tfevents.*"


@dataclass(frozen=True, kw_only=True)
class Logged:
    """A run that has logged something.

    name: of its folder. title: the cell and seed that first need it, and its kind. lines: of its metrics: step and
    numbers. result: the metrics of a finished run. started: seconds since 1970, 0 where it is not known.
    """

    key: str
    name: str
    title: str
    axes: Mapping[str, Scalar]
    seed: int
    run: Run
    lines: tuple[tuple[int, dict[str, float]], ...]
    result: Mapping[str, float]
    started: float


def logged(plan: Plan, store: Store) -> Iterator[Logged]:
    """Every run of a plan that has logged something, pre-trainings before what starts from them."""
    places = _places(plan)
    for name, run in plan.runs().items():
        lines = tuple(_numbers(line) for line in store.metrics(name) if isinstance(line.get("step"), int))
        result = store.result(name)
        if not lines and result is None:
            continue
        axes, seed = places[name]
        words = " ".join(shown(value) for value in axes.values() if value is not None)
        yield Logged(
            key=name,
            name=f"{file_stem(words or 'cell', f'seed_{seed}')}-{name}",
            title=f"{words} seed {seed} {run.kind}".strip(),
            axes=axes,
            seed=seed,
            run=run,
            lines=lines,
            result=_finite(result.metrics) if result else {},
            started=_started(store.environment(name)),
        )


def write_tensorboard(plan: Plan, store: Store, folder: Path) -> int:
    """One folder a run below `folder`, each with one event file; what an earlier export left there is replaced.

    A number of metrics.jsonl is a scalar of its name at its step, a metric of the result `result/<name>` at the last
    step. Returns the number of runs.

    Raises:
        HarnessError: the package tensorboard is not installed, or the disk refuses.
    """
    writers = _optional("tensorboard.summary.writer.event_file_writer", "tensorboard", "--tensorboard")
    count = 0
    for item in logged(plan, store):
        count += 1
        with disk_errors(folder):
            place = folder / item.name
            place.mkdir(parents=True, exist_ok=True)
            for path in place.glob(_EVENTS):
                path.unlink()
            writer = writers.EventFileWriter(str(place))
            for event in _events(item):
                writer.add_event(event)
            writer.close()
    return count


def write_wandb(plan: Plan, store: Store, folder: Path) -> int:
    """An offline run of Weights & Biases for each ended run, in `folder`/wandb; `wandb sync` uploads them.

    The project is the study, the group its scale, the id the run's key; the configuration holds the spec, the axes and
    the seed. Runs that are there already are left alone. Returns the number of runs written.

    Raises:
        HarnessError: the package wandb is not installed, or the disk refuses.
    """
    wandb = _optional("wandb", "wandb", "--wandb")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    present = {path.name.rpartition("-run-")[2].partition("-")[2] for path in folder.glob("wandb/offline-run-*")}
    count = 0
    for item in logged(plan, store):
        if item.key in present or store.state(item.key).word == "running":
            continue
        _write_offline(wandb, plan, item, folder)
        count += 1
    return count


def _write_offline(wandb: Any, plan: Plan, item: Logged, folder: Path) -> None:
    run = wandb.init(
        project=file_stem(plan.study.name or "study"), group=plan.scale.name, name=item.title, id=item.key,
        job_type=item.run.kind, dir=str(folder), mode="offline",
        config={"axes": dict(item.axes), "seed": item.seed, "spec": item.run.to_plain()},
        settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True),
    )  # fmt: skip
    for step, numbers in item.lines:
        run.log(numbers, step=step)
    run.summary.update({f"result/{name}": value for name, value in item.result.items()})
    run.finish()


def _events(item: Logged) -> Iterator[Any]:
    events = importlib.import_module("tensorboard.compat.proto.event_pb2")
    summaries = importlib.import_module("tensorboard.compat.proto.summary_pb2")

    def event(step: int, numbers: Mapping[str, float], seconds: float) -> Any:
        values = [summaries.Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        return events.Event(wall_time=item.started + seconds, step=step, summary=summaries.Summary(value=values))

    seconds = 0.0
    for step, numbers in item.lines:
        seconds = numbers.get("seconds", seconds)
        yield event(step, numbers, seconds)
    if item.result:
        last = item.lines[-1][0] if item.lines else 0
        yield event(last, {f"result/{name}": value for name, value in item.result.items()}, seconds)


def _optional(module: str, package: str, option: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise HarnessError(
            f"{option} needs the package {package}, which is not installed: pip install 'mim-harness[{package}]'"
        ) from None


def _places(plan: Plan) -> dict[str, tuple[dict[str, Scalar], int]]:
    """For each run the cell and seed that first need it."""
    found: dict[str, tuple[dict[str, Scalar], int]] = {}
    for row in plan.rows:
        for evaluation in row.evaluations.values():
            for run in (*upstreams(evaluation), evaluation):
                found.setdefault(key(run), (row.axes, row.seed))
    return found


def _numbers(line: Mapping[str, Any]) -> tuple[int, dict[str, float]]:
    return int(line["step"]), _finite({name: value for name, value in line.items() if name != "step"})


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    """The values that are finite numbers, by clean names; others are left out."""
    return {
        clean(name): float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def _started(environment: object) -> float:
    try:
        return datetime.fromisoformat(environment["started"]).timestamp()  # type: ignore[index]
    except (TypeError, KeyError, ValueError):
        return 0.0
