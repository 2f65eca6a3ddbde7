"""Waiting for what a cluster does, and the states of runs on it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TypeVar

from harness.launch.executor import overview
from harness.spec import Run
from harness.store import Store

T = TypeVar("T")


def wait(found: Callable[[], T], seconds: float, every: float = 0.5) -> T:
    """Ask until there is something; returns it, and fails after so many seconds."""
    end = time.monotonic() + seconds
    while not (it := found()):
        assert time.monotonic() < end, f"not so after {seconds} s"
        time.sleep(every)
    return it


def words(runs: Mapping[str, Run], store: Store) -> Counter[str]:
    """How many runs are in each state."""
    return Counter(place.word for place in overview(runs, store).places.values())
