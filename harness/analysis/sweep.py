"""Loop over the parts of an analysis, with progress, checkpoints and a division of work among processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.core.runtime.session import Session
from harness.core.train.training import Pace
from harness.core.weights.checkpoint import latest_state, write_state

FILE = "analysis.npz"
"""The artefact that reports read."""


def sweep(
    session: Session, *, parts: int, found: dict[str, Tensor], compute: Callable[[int], None], images: int = 1
) -> float:
    """Fill arrays part by part, from the latest checkpoint on if there is one.

    Of n processes each computes every n-th part; at the end all processes have all parts.

    Args:
        found: arrays [parts, ...] of zeros on the CPU. compute: fills row `part` of each array.
        images: number of images that pass through the model in a part, for the shown speed.

    Returns:
        Seconds spent, over all attempts.

    Raises:
        Interrupted: the executor asked to stop; finished parts are saved.
    """
    group = session.group
    done, spent = _restored(session, found)
    # A checkpoint holds the sum over all ranks. Only rank 0 keeps it, or the next sum would count it once a rank.
    if group.rank:
        for array in found.values():
            array.zero_()
    begun, first = time.monotonic(), done

    def save() -> None:
        # A copy: the rank's own rows must not become the sum while the sweep goes on.
        whole = {name: group.sum(array.clone()) for name, array in found.items()}
        write_state(session, done, {"done": done, "seconds": spent + time.monotonic() - begun, "found": whole})

    pace = Pace(session, save)
    while done < parts:
        if done + group.rank < parts:
            compute(done + group.rank)
        done = min(done + group.size, parts)
        seconds = time.monotonic() - begun
        line = {"step": done, "steps": parts, "images_per_second": (done - first) * images / max(seconds, 1e-9)}
        line["seconds"] = spent + seconds
        session.attempt.log(line)
        session.report(line)
        pace.after(done, parts, at_end=False)
    for array in found.values():
        group.sum(array)
    return spent + time.monotonic() - begun


def write_arrays(session: Session, **arrays: Any) -> None:
    """Write analysis.npz for reports: arrays of numbers or text by name, without pickles."""
    np.savez_compressed(session.attempt.artefact(FILE), allow_pickle=False, **arrays)


def _restored(session: Session, found: dict[str, Tensor]) -> tuple[int, float]:
    """Fill finished rows from the latest checkpoint; returns the number of parts and the seconds they took."""
    state = latest_state(session, torch.device("cpu"))
    if state is None:
        return 0, 0.0
    for name, array in found.items():
        array.copy_(state["found"][name])
    return int(state["done"]), float(state["seconds"])
