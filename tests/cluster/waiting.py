"""Waiting for what a cluster does, and the states of runs on it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping

from harness.launch.executor import overview
from harness.spec import Run
from harness.store import Store


def wait(holds: Callable[[], object], seconds: float, every: float = 0.5) -> None:
    """Ask until it holds; fails after so many seconds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not so after {seconds} s"
        time.sleep(every)


def words(runs: Mapping[str, Run], store: Store) -> Counter[str]:
    """How many runs are in each state."""
    return Counter(place.word for place in overview(runs, store).places.values())
