"""How much computing time a test takes, its processes included: on a loaded machine it is the same."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path


def spent() -> float:
    """CPU seconds of this process, of its children that have ended, and of those that live, in all generations."""
    ended = os.times()
    return time.process_time() + ended.children_user + ended.children_system + _of_the_living(os.getpid())


def _of_the_living(pid: int) -> float:
    """Seconds of the processes below one, as Linux counts them; 0 elsewhere."""
    total = 0.0
    for child in _children(pid):
        try:
            times = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:15]
        except OSError:  # ended meanwhile: counted among the ended from now on
            continue
        total += sum(map(int, times)) / os.sysconf("SC_CLK_TCK") + _of_the_living(child)
    return total


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that ended meanwhile
            found += map(int, children.read_text().split())
    return found
