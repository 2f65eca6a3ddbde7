"""A search whose runs cost nothing, and executors that compute them in this process or in workers without torch."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.launch import Inline, Resources
from harness.launch.executor import Place, from_files
from harness.launch.queue import Event, last_line
from harness.search import Search
from harness.search.jobs import Jobs
from harness.spec import (
    Backbone,
    Evaluation,
    FineTune,
    HarnessError,
    Knn,
    Pretrain,
    RandomMask,
    Recipe,
    Run,
    Scale,
    Scratch,
    Shapes,
    Skip,
    Snapshot,
    key,
    upstream,
)
from harness.store import Attempt, Store

VIT = Backbone(name="vit_tiny_patch16_224", patch_size=4)
DATA = Shapes(image_size=16, train=160, test=16)
HELD_OUT = DATA.replace(split="validation")
RECIPE = Recipe(epochs=8, batch_size=16, lr=1e-3, lr_batch=None)
SCALE = Scale(name="toy", data=DATA, image_size=16, backbone=VIT, pretrain=RECIPE, finetune=RECIPE)
BROKEN_K = 13
"""Runs with this k raise."""


def space(trial: Any) -> dict[str, Any]:
    """36 cells, six by six."""
    return {
        "k": trial.suggest_int("k", 1, 6),
        "temperature": trial.suggest_categorical("temperature", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)),
    }


def cell(scale: Scale, k: int, temperature: float, seed: int) -> dict[str, Any]:
    start = Scratch(backbone=scale.backbone, image_size=scale.image_size)
    kind: dict[str, Any] = {"start": start, "k": k, "temperature": temperature, "seed": seed}
    return {"validation": Knn(data=HELD_OUT, **kind), "top1": Knn(data=DATA, **kind)}


def pretrained(scale: Scale, k: int, temperature: float, seed: int) -> dict[str, Any]:
    """As `cell`, from a pre-training that depends on the temperature."""
    start = Pretrain(
        data=DATA,
        image_size=16,
        backbone=scale.backbone,
        mask=RandomMask(size=4, ratio=temperature),
        recipe=scale.pretrain,
        seed=seed,
    )
    kind: dict[str, Any] = {"start": start, "k": k, "temperature": temperature, "seed": seed}
    return {"validation": Knn(data=HELD_OUT, **kind), "top1": Knn(data=DATA, **kind)}


def validation(search: Search, **cell: Any) -> Evaluation:
    """The evaluation of a cell that a search of one scale goes by."""
    found = search.cell(search.scales[0], **cell)
    assert not isinstance(found, Skip)
    return found["validation"]


def toy(**changes: Any) -> Search:
    """A search over the 36 cells, changed as a test likes."""
    given: dict[str, Any] = {
        "space": space,
        "cell": cell,
        "metric": "validation",
        "scales": (SCALE,),
        "trials": {"toy": 12},
        "reference": {"k": 1, "temperature": 0.1},
        "sampler": "tpe",
        "confirmed": 1,
        "fresh_seeds": 2,
        "test": "top1",
        "name": "toy",
    }
    return Search(**{**given, **changes})


def score(run: Run) -> float:
    """What a run finds: best at k = 4 and temperature 0.3, a little lower on test images, noise by seed."""
    if isinstance(run, Knn) and isinstance(run.start, Snapshot):
        return score(run.replace(start=run.start.pretrain)) * run.start.epoch / 8
    assert isinstance(run, Knn | FineTune)
    value = 80.0 - (run.ks[0] - 4) ** 2 - 100 * (run.temperature - 0.3) ** 2 if isinstance(run, Knn) else 50.0
    return value + 0.1 * math.sin(7 * run.seed) - (run.data.split == "test")


def finish(store: Store, run: Run, *, seconds: float = 3600.0) -> None:
    """Have a run done."""
    attempt = store.acquire(run, retry=True)
    assert isinstance(attempt, Attempt), attempt
    if isinstance(run, Pretrain):
        attempt.finish({"loss": 1.0}, seconds, b"weights")
    else:
        attempt.finish({"top1": score(run)}, seconds)
    attempt.release()


def broken(store: Store, run: Run, text: str = "Traceback\nValueError: no\n") -> None:
    """Have a run failed."""
    attempt = store.acquire(run, retry=True)
    assert isinstance(attempt, Attempt), attempt
    attempt.fail(text)
    attempt.release()


class FakeJobs(Jobs):
    """Computes a run when it is told to. lazy: only when `compute` is called; else as soon as it is added."""

    def __init__(self, store: Store, *, lazy: bool = False, begins: int = 3) -> None:
        super().__init__(Inline(store, Resources()), store, begins)
        self.store, self.lazy = store, lazy
        self.open: dict[str, Run] = {}
        self.added: list[str] = []
        self.dropped: list[str] = []
        self.fails: Callable[[Run], bool] = lambda run: False

    def add(self, runs: Mapping[str, Run]) -> None:
        for name, run in runs.items():
            if name not in self.open and self.store.result(name) is None:
                self.open[name] = run
                self.added.append(name)
        while not self.lazy and self.open:
            self.compute()

    def drop(self, runs: Mapping[str, Run]) -> None:
        for name in runs:
            if self.open.pop(name, None) is not None:
                self.dropped.append(name)

    def compute(self, which: Callable[[Run], bool] = lambda run: True) -> None:
        """Finish the runs that are open and can be."""
        for name, run in list(self.open.items()):
            first = upstream(run)
            if which(run) and (first is None or isinstance(run.start, Snapshot) or self.store.result(key(first))):
                del self.open[name]
                broken(self.store, run) if self.fails(run) else finish(self.store, run)

    def vanish(self) -> None:
        """All jobs die."""
        self.open.clear()

    def states(self, runs: Mapping[str, Run]) -> dict[str, Place]:
        places = from_files(self.store.states(runs))
        return {
            name: self._judged(name, replace(place, word="queued") if name in self.open else place)
            for name, place in places.items()
        }


# what a worker process runs in place of harness.launch.job


def prepare(resources: Any) -> None:
    """Nothing to prepare."""


def room(device: Any, most: int) -> bool:
    return True


def work_in_turns(
    store: Store,
    run: Run,
    device: Any,
    resources: Any,
    *,
    retry: bool,
    report: Callable[[Event], None],
    stopping: Callable[[], bool] = lambda: False,
    begin: Callable[[Attempt], None] = lambda attempt: None,
) -> Generator[Callable[[], bool], None, Event]:
    """As harness.launch.job.work_in_turns, with a sleep for a training; runs with k = 13 raise."""
    name = key(run)
    attempt = store.acquire(run, retry=retry)
    if not isinstance(attempt, Attempt):
        return Event("done" if attempt.word == "done" else "elsewhere", name)
    try:
        begin(attempt)
        report(Event("started", name))
        _log(store, f"begin {name}")
        until = time.monotonic() + seconds_of(store, name)
        while time.monotonic() < until:
            if stopping():
                return Event("interrupted", name)
            time.sleep(0.02)
            yield lambda: True
        if isinstance(run, Knn) and run.k == BROKEN_K:
            raise HarnessError("thirteen neighbours")
        attempt.finish({"loss": 1.0} if isinstance(run, Pretrain) else {"top1": score(run)}, 1.0, _weights(run))
        _log(store, f"end {name}")
    except Exception:
        attempt.fail(traceback.format_exc())
        return Event("failed", name, last_line(traceback.format_exc()))
    finally:
        attempt.release()
    return Event("done", name)


def _weights(run: Run) -> bytes | None:
    return b"weights" if isinstance(run, Pretrain) else None


def seconds_of(store: Store, name: str) -> float:
    """How long a run takes: what the file .seconds says, one number, or two between which the key decides."""
    path = store.root / ".seconds"
    bounds = [float(word) for word in path.read_text().split()] if path.exists() else [0.0]
    return bounds[0] + (bounds[-1] - bounds[0]) * int(name[-4:], 16) / 0xFFFF


def _log(store: Store, line: str) -> None:
    with (store.root / ".log").open("a") as file:
        file.write(f"{line} {time.time():.3f}\n")


def lines(store: Store, word: str) -> list[str]:
    """The keys of the runs that began, or ended, in order."""
    path: Path = store.root / ".log"
    return [line.split()[1] for line in path.read_text().splitlines() if line.startswith(word)] if path.exists() else []
