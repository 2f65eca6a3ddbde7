"""Runs computed whole, or stopped on the way and gone on with, as a job computes them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from harness.launch import Resources
from harness.launch.job import work
from harness.spec import Detect, Segment, key
from harness.store import Store

Computed = Callable[..., dict[str, Any]]


def computed_in(folder: Path) -> Computed:
    """Function that computes a run in a fresh store: its metrics lines without times, metrics, digest of weights.

    Its argument `stop` is the step at which the run is asked to stop before it goes on; others are resources.
    """
    stores = itertools.count()

    def call(run: Segment | Detect, stop: int | None = None, **resources: Any) -> dict[str, Any]:
        store, steps = Store(folder / str(next(stores))), itertools.count(1)
        torch.set_num_threads(1)
        cpu, used = torch.device("cpu"), Resources(**resources)
        if stop is not None:
            asked = work(store, run, cpu, used, report=lambda event: None, stopping=lambda: next(steps) == stop)
            assert asked.kind == "interrupted", asked.text
        event = work(store, run, cpu, used, report=lambda event: None)
        assert event.kind == "done", event.text
        return _told(store, run)

    return call


def _told(store: Store, run: Segment | Detect) -> dict[str, Any]:
    times = {"seconds", "images_per_second"}
    lines = [{name: value for name, value in line.items() if name not in times} for line in store.metrics(key(run))]
    result = store.result(key(run))
    assert result is not None
    return {"lines": lines, "metrics": result.metrics, "weights": result.weights}
