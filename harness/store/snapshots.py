"""Weight snapshots: weights of a pre-training after some of its epochs, written during training for evaluations.

A request is an empty file in the run folder, so that requests add up without a lock, and the key knows nothing of them.
An epoch that is asked for when it is over is not written any more.
"""

from __future__ import annotations

from pathlib import Path

from harness.spec import HarnessError
from harness.store.files import disk_errors, sha256
from harness.store.layout import RunFolder, numbers
from harness.store.store import Store


def ask_for_snapshot(store: Store, name: str, epoch: int) -> None:
    """Request the weights of a registered pre-training after an epoch (counted from 1).

    Raises:
        HarnessError: the disk refuses.
    """
    folder = store.folder(name).snapshots_asked_for
    with disk_errors(folder):
        folder.mkdir(exist_ok=True)
        (folder / f"{epoch:04d}").touch()


def epochs_asked_for(folder: RunFolder) -> set[int]:
    """Epochs after which a pre-training must write its weights."""
    return set(numbers(folder.snapshots_asked_for, 4))


def snapshot_of(store: Store, name: str, epoch: int) -> Path | None:
    """Weights file after an epoch, of the latest attempt that wrote one; None if there is none."""
    for attempt in reversed(store.folder(name).attempts()):
        if found := attempt.snapshots(epoch):
            return found[0]
    return None


def whole_snapshot(store: Store, name: str, epoch: int) -> Path:
    """As `snapshot_of`, with its digest checked.

    Raises:
        HarnessError: it was never written, or is damaged.
    """
    path = snapshot_of(store, name, epoch)
    if path is None:
        raise HarnessError(f"{name} has no snapshot after epoch {epoch}")
    if not sha256(path).startswith(path.stem.rpartition("-")[2]):
        raise HarnessError(f"{path} is damaged; delete it and run again")
    return path
