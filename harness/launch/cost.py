"""Cost of runs before they are computed: hours of one device, and sizes of models.

Hours are those of finished runs of the same kind. Models are counted by torch once, in a process of its own; the
answers are kept beside the runs and can be deleted. Nothing here loads torch.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from harness.launch.queue import last_line
from harness.launch.site import Stage
from harness.spec import HarnessError, Pretrain, Run
from harness.spec.keys import Training
from harness.spec.model.backbone import Backbone, check_model
from harness.spec.model.described import Described, costed_model
from harness.spec.run import TRAINED_PASSES
from harness.store import Result, State, Store
from harness.store.files import write_atomically
from harness.store.layout import description_file
from harness.store.records import read_record, sealed

SAMPLE = 20
"""Most finished runs of a kind that its estimate is made from."""

LOOKED_AT = 1000
"""Most finished runs of other studies that are read while looking for runs of a wanted kind."""


@dataclass(frozen=True)
class Cost:
    """Hours of one device for a set of runs.

    done_hours: spent on what is done or under way. to_do_hours: still to be spent, None where nothing is known of it.
    device: of the measured runs, empty if none was measured or none says.
    basis: origin of the estimate, in words.
    spread: standard deviation of the measured seconds an image, as a share of their mean; None for fewer than two.
    unknown: number of runs to do that to_do_hours leaves out.
    """

    done_hours: float
    to_do_hours: float | None
    basis: str
    device: str = ""
    spread: float | None = None
    unknown: int = 0

    @property
    def unit(self) -> str:
        """CPU-hours or GPU-hours; plain hours where the device is not known."""
        if not self.device:
            return "hours"
        return "CPU-hours" if self.device == "cpu" else "hours" if "cpu" in self.device.split(", ") else "GPU-hours"


@dataclass(frozen=True)
class _Measured:
    """Finished runs of one kind, on the device that most of them ran on.

    mean: seconds of one device for each unit of work. deviation: their standard deviation as a share of the mean; None
    for one run. devices: devices that a run had, on average.
    """

    device: str
    count: int
    mean: float
    deviation: float | None
    devices: float

    @classmethod
    def of(cls, device: str, found: list[_Finished]) -> _Measured:
        seconds = [one.seconds / one.work for one in found]
        mean = statistics.mean(seconds)
        several = len(seconds) > 1 and mean > 0
        deviation = statistics.stdev(seconds) / mean if several else None
        return cls(device, len(seconds), mean, deviation, statistics.mean(one.devices for one in found))


class _Finished(NamedTuple):
    """Time of one device and work of one finished run: CPU time where it is known, else time on a clock times devices.

    work: images, or 1. devices: GPUs, or CPU threads of all processes.
    """

    seconds: float
    work: float
    devices: float


Kind = tuple[object, ...]
Rates = Mapping[Stage, float | None]


def remaining(runs: Mapping[str, Run], states: Mapping[str, State], store: Store, rates: Rates | None = None) -> Cost:
    """Hours done and to do of some runs. Reads the store, changes nothing.

    A run to do costs what finished runs of the same stage, backbone and image size, of whichever study in the store,
    needed for an image, on the device that most of them ran on, times its images. Where none is finished: its
    multiply-adds, if they have been counted (`harness plan --describe`), at a stated rate. Else it is unknown.

    Args:
        runs, states: by key. rates: multiply-adds a second of the device of each stage (`pretrain`, `evaluation`).
    """
    kinds = {name: _kind(run) for name, run in runs.items()}
    others = _others(kinds, states, store)
    known = dict(runs) | others
    known_states = dict(states) | {name: store.state(name) for name in others}
    images = _Images(known, known_states, store)
    measured = _measured(known, known_states, store, images)
    by_measurement, by_rate, unknown = 0.0, 0.0, 0
    weighted, weights = 0.0, 0.0  # the deviations of the kinds that were measured more than once
    for name, run in runs.items():
        if (share := _left(states[name])) == 0.0:
            continue
        work, figures = images.of(run), measured.get(kinds[name])
        stated = _stated(run, work, store, rates or {}) if figures is None else None
        if figures is not None and work is not None:
            hours = share * work * figures.mean / 3600
            by_measurement += hours
            if figures.deviation is not None:
                weighted, weights = weighted + hours * figures.deviation, weights + hours
        elif stated is not None:
            by_rate += share * stated
        else:
            unknown += 1
    nothing = unknown and not by_measurement and not by_rate
    devices = sorted({figures.device for figures in measured.values() if figures.device})
    return Cost(
        done_hours=sum(_spent(states[name], measured.get(kind), images.of(runs[name])) for name, kind in kinds.items())
        / 3600,
        to_do_hours=None if nothing else by_measurement + by_rate,
        basis=_basis(
            sum(figures.count for figures in measured.values()), devices, stated=bool(by_rate), unknown=unknown
        ),
        device=", ".join(devices),
        spread=weighted / weights if weights else None,
        unknown=unknown,
    )


def _others(kinds: Mapping[str, Kind], states: Mapping[str, State], store: Store) -> dict[str, Run]:
    """Finished runs of other studies in the store, for kinds that are to be done and have fewer than SAMPLE done here.

    At most LOOKED_AT are read. They are an arbitrary sample, as the order of keys is that of digests.

    Args:
        kinds: kind of each run of this study, by key.
    """
    wanted = {kind for name, kind in kinds.items() if states[name].word != "done"}
    counts = Counter(kind for name, kind in kinds.items() if states[name].word == "done")
    found: dict[str, Run] = {}
    lacking = _lacking(wanted, counts)
    left = LOOKED_AT
    for name in store.keys() if lacking else ():
        if not left or not lacking:
            break
        if name in kinds or not name.startswith(lacking) or store.result(name) is None:
            continue
        left -= 1
        with contextlib.suppress(HarnessError):  # a damaged spec, or one of a later version
            run = store.spec(name)
            if (kind := _kind(run)) in wanted and counts[kind] < SAMPLE:
                found[name] = run
                counts[kind] += 1
                lacking = _lacking(wanted, counts)
    return found


def _lacking(wanted: Iterable[Kind], counts: Counter[Kind]) -> tuple[str, ...]:
    """Beginnings of the keys of runs that may be of a wanted kind with fewer than SAMPLE found: names of run kinds."""
    return tuple({f"{kind[0]}-" for kind in wanted if counts[kind] < SAMPLE})


def _basis(count: int, devices: Iterable[str], *, stated: bool, unknown: int) -> str:
    parts = []
    if count:
        place = f" on {' and '.join(devices)}" if devices else ""
        parts.append(f"from {count} finished run{'s' if count > 1 else ''}{place}")
    if stated:
        parts.append("from multiply-adds at the stated rate")
    if unknown:
        what = "run" if unknown == 1 else "runs"
        parts.append(f"{unknown} {what} unknown until one of the kind is done")
    return "; ".join(parts)


def _spent(state: State, figures: _Measured | None, work: float | None) -> float:
    """Seconds of one device on a run so far, on as many devices as finished runs of its kind had, else one."""
    device, devices = ("", 1.0) if figures is None else (figures.device, figures.devices)
    if state.result is not None:
        return _device_seconds(state.result, device, devices)
    if figures is not None and device == "cpu" and work is not None:
        return (1.0 - _left(state)) * work * figures.mean  # its own seconds go on while others have the processor
    return float(state.progress.get("seconds", 0.0)) * devices


def _device_seconds(result: Result, device: str, devices: float) -> float:
    """Seconds of one device: CPU time where it is known, which a busy machine does not stretch."""
    if device == "cpu" and result.cpu_seconds is not None:
        return result.cpu_seconds
    return result.seconds * devices


def _left(state: State) -> float:
    """The share of a run that is still to be computed."""
    if state.word == "done":
        return 0.0
    line = state.progress
    return 1.0 - line["step"] / line["steps"] if line.get("steps") else 1.0


def _kind(run: Run) -> Kind:
    """Kind of a run in estimates: runs of one kind are taken to need the same seconds an image."""
    return (run.kind, *run.cost_key)


class _Images:
    """Counts the work of runs: images times epochs, or 1 for an evaluation that trains nothing."""

    def __init__(self, runs: Mapping[str, Run], states: Mapping[str, State], store: Store) -> None:
        self._runs, self._states, self._store = runs, states, store
        self._read: dict[tuple[object, ...], int | None] = {}

    def of(self, run: Run) -> float | None:
        """Images that a run trains on in all; 1 for an evaluation that trains nothing; None if unknown."""
        if not isinstance(run, Training):
            return 1.0
        size, labelled = run.recipe.batch_size, not isinstance(run, Pretrain)
        images = run.data.known_images(labelled=labelled)
        if run.recipe.steps:
            return float(run.recipe.steps * size)
        steps = self._steps_an_epoch(run.data.digest, size, labelled=labelled) if images is None else images // size
        return None if steps is None else float(run.recipe.epochs * steps * size)

    def _steps_an_epoch(self, data: str, size: int, *, labelled: bool) -> int | None:
        """Steps an epoch that some run on the same images logged; None if no run did."""
        place = (data, size, labelled)
        if place not in self._read:
            self._read[place] = next(
                (
                    round(line["steps"] / run.recipe.epochs)
                    for name, run in self._runs.items()
                    if isinstance(run, Training)
                    and run.recipe.epochs
                    and (run.data.digest, run.recipe.batch_size, not isinstance(run, Pretrain)) == place
                    and self._states[name].word != "missing"
                    and isinstance((line := next(iter(self._store.metrics(name)[-1:]), {})).get("steps"), int)
                ),
                None,
            )
        return self._read[place]


def _measured(
    runs: Mapping[str, Run], states: Mapping[str, State], store: Store, images: _Images
) -> dict[Kind, _Measured]:
    found: dict[Kind, dict[str, list[_Finished]]] = {}
    taken: Counter[Kind] = Counter()
    for name, run in runs.items():
        result = states[name].result
        if result is None or taken[kind := _kind(run)] >= SAMPLE or not (work := images.of(run)):
            continue
        taken[kind] += 1
        environment = store.environment(name)
        device = str(environment.get("device", ""))
        threads = int(environment.get("threads", 1)) if device == "cpu" else 1
        shared = int(environment.get("in_flight", 1))  # its seconds were those of the other runs too
        devices = int(environment.get("processes", 1)) * threads / shared
        one = _Finished(_device_seconds(result, device, devices), work, devices)
        found.setdefault(kind, {}).setdefault(device, []).append(one)
    usual = {kind: max(devices.items(), key=lambda item: len(item[1])) for kind, devices in found.items()}
    return {kind: _Measured.of(device, finished) for kind, (device, finished) in usual.items()}


def _stated(run: Run, work: float | None, store: Store, rates: Rates) -> float | None:
    """Hours by multiply-adds at a stated rate; None where either is missing, or where the work is not in images."""
    stage: Stage = "pretrain" if isinstance(run, Pretrain) else "evaluation"
    rate = rates.get(stage)
    if rate is None or work is None or not isinstance(run, Training):
        return None
    found = read_model_cost(store.root, costed_model(run))
    if found is None:
        return None
    # Gradients of a head are computed on a frozen encoder too.
    encoder, head = found.multiply_adds - found.head_multiply_adds, found.head_multiply_adds
    return work * (encoder * run.forward_passes + head * TRAINED_PASSES) / rate / 3600


REGISTERED = re.compile(r"^@register_model\s*\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)
"""Definition of a model in timm's source, with its name."""

MINUTES = 10
"""Time limit of the counting process."""


@dataclass(frozen=True)
class Answer:
    """A model with its counts, or the reason why there are none, or neither if it was not counted yet.

    refused: True if a run would refuse the model for that reason too.
    """

    model: Described
    found: ModelCost | None
    error: str = ""
    refused: bool = False


@cache
def timm_models() -> dict[str, str]:
    """The module of `timm.models` of every model, read from timm's source without loading it; empty without timm."""
    timm = importlib.util.find_spec("timm")
    if timm is None or timm.origin is None:
        return {}
    return {
        name: path.stem
        for path in (Path(timm.origin).parent / "models").rglob("*.py")
        for name in REGISTERED.findall(path.read_text(encoding="utf-8"))
    }


def check_names(models: Iterable[Described]) -> None:
    """Refuse names that are no timm models, or of families that cannot be encoders. Loads no torch.

    Raises:
        HarnessError: names close or valid ones.
    """
    if modules := timm_models():
        for name in dict.fromkeys(model.backbone.name for model in models if isinstance(model.backbone, Backbone)):
            check_model(name, modules)


def check_models(root: Path, models: Iterable[Described]) -> list[Answer]:
    """Count some models, and refuse those that cannot be built as their specs say.

    Raises:
        HarnessError: a run would refuse a model; says why.
    """
    models = list(models)
    check_names(models)
    answers = count_models(root, models)
    for answer in answers:
        if answer.refused:
            raise HarnessError(f"{answer.model.text}: {answer.error}")
    return answers


def known_models(root: Path, models: Iterable[Described]) -> list[Answer]:
    """Counts of some models as far as the store holds them."""
    return [Answer(model, read_model_cost(root, model)) for model in models]


def count_models(root: Path, models: Iterable[Described]) -> list[Answer]:
    """Counts of some models; those that the store lacks are counted and kept.

    Raises:
        HarnessError: the process that should count fails as a whole, or the disk refuses.
    """
    held = known_models(root, models)
    missing = [answer.model for answer in held if answer.found is None]
    fresh = {answer.model.digest: answer for answer in _ask(missing)} if missing else {}
    for answer in fresh.values():
        if answer.found is not None:
            write_model_cost(root, answer.model, answer.found)
    return [fresh.get(answer.model.digest, answer) for answer in held]


def _ask(models: list[Described]) -> list[Answer]:
    records = _records(models)
    return [
        Answer(model, ModelCost(**record))
        if "parameters" in record
        else Answer(model, None, str(record.get("error", record.get("refused"))), "refused" in record)
        for model, record in zip(models, records, strict=True)
    ]


def _records(models: list[Described]) -> list[dict[str, Any]]:
    if "torch" in sys.modules:  # as in a notebook: another process would load it again
        from harness.runs import described_as_plain

        return [described_as_plain(model) for model in models]
    question = json.dumps([model.to_plain() for model in models])
    command = [sys.executable, "-m", "harness.runs"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # finds a user's own heads
    try:
        done = subprocess.run(
            command,
            input=question,
            capture_output=True,
            text=True,
            timeout=60 * MINUTES,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise HarnessError(f"counting {len(models)} models took more than {MINUTES} minutes") from None
    try:
        records: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = last_line(done.stderr) or "it said nothing"
        raise HarnessError(f"models could not be described: {last}") from None
    return records


@dataclass(frozen=True)
class ModelCost:
    """Cost of a model.

    multiply_adds: of one forward pass for one image. memory_bytes: of weights, and of gradients and optimiser state
    where they are trained. activation_bytes: what one image's forward pass keeps for its backward pass, in float32.
    head_multiply_adds: of multiply_adds, those of what lies on the encoder.
    """

    parameters: int
    multiply_adds: int
    memory_bytes: int
    activation_bytes: int
    head_multiply_adds: int = 0


def read_model_cost(root: Path, model: Described) -> ModelCost | None:
    """The kept counts of a model; None if it was never counted or the file is damaged."""
    record = read_record(description_file(root, model.digest)) or {}
    found = {name: record[name] for name in ModelCost.__dataclass_fields__ if type(record.get(name)) is int}
    return ModelCost(**found) if len(found) == len(ModelCost.__dataclass_fields__) else None


def write_model_cost(root: Path, model: Described, found: ModelCost) -> None:
    """Keep what was counted of a model, with the model itself so that a reader of the file knows which one it is.

    Raises:
        HarnessError: the disk refuses.
    """
    path = description_file(root, model.digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, sealed({**asdict(found), "model": model.to_plain()}))
