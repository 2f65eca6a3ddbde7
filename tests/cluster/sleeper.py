"""A program for jobs that computes nothing and needs no torch: it sleeps, and fails the runs that a file names."""

from __future__ import annotations

import time
import traceback
from collections.abc import Generator
from pathlib import Path
from typing import Any

from harness.launch.queue import Event, last_line
from harness.spec import Backbone, Knn, Pretrain, RandomMask, Recipe, Run, Scratch, Shapes, key, upstream
from harness.store import Attempt, Store

VIT = Backbone(name="vit_tiny_patch16_224", patch_size=4)
DATA = Shapes(image_size=16, train=16, test=16)


def evaluation(seed: int) -> Knn:
    """A run that waits for nothing."""
    return Knn(start=Scratch(backbone=VIT, image_size=16), data=DATA, seed=seed)


def pretraining(seed: int) -> Pretrain:
    """A run that others start from."""
    recipe = Recipe(epochs=1, batch_size=16, lr=1e-3)
    return Pretrain(
        data=DATA, image_size=16, backbone=VIT, mask=RandomMask(size=4, ratio=0.5), recipe=recipe, seed=seed
    )


def probe(start: Pretrain, k: int = 20) -> Knn:
    """A run that starts from a pre-training."""
    return Knn(start=start, k=k, seed=start.seed)


def fail(store: Store, *runs: Run) -> None:
    """Name the runs that are to fail from now on."""
    store.root.mkdir(parents=True, exist_ok=True)
    (store.root / ".failing").write_text("\n".join(key(run) for run in runs))


def take(store: Store, seconds: float) -> None:
    """Say how long a run takes from now on."""
    store.root.mkdir(parents=True, exist_ok=True)
    (store.root / ".seconds").write_text(str(seconds))


def prepare(resources: Any) -> None:
    """Nothing to prepare."""


def room(device: Any, most: int) -> bool:
    return True


def work_in_turns(
    store: Store, run: Run, device: Any, resources: Any, *, retry: bool, report: Any, stopping: Any, begin: Any
) -> Generator[Any, None, Event]:
    """As harness.launch.job.work_in_turns, with a sleep for a training."""
    name = key(run)
    attempt = store.acquire(run, retry=retry)
    if not isinstance(attempt, Attempt):
        return Event("done" if attempt.word == "done" else "elsewhere", name)
    try:
        begin(attempt)
        report(Event("started", name))
        print(f"computing {name}", flush=True)
        until = time.monotonic() + float(_read(store.root / ".seconds") or 0)
        while time.monotonic() < until:
            if stopping():
                return Event("interrupted", name)
            time.sleep(0.02)
            yield lambda: True
        if (first := upstream(run)) is not None:
            store.upstream_weights(key(first))
        if name in _read(store.root / ".failing").split():
            raise RuntimeError(f"run of seed {run.seed} was told to fail")
        attempt.finish({"top1": float(run.seed), "loss": 1.0}, 0.1, b"weights" if isinstance(run, Pretrain) else None)
    except Exception:
        attempt.fail(traceback.format_exc())
        return Event("failed", name, last_line(traceback.format_exc()))
    finally:
        attempt.release()
    return Event("done", name)


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
