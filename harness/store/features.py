"""Features of frozen encoders, kept for further evaluations of the same encoder on the same images.

They are a cache: what is missing, damaged or cannot be written is computed, and all of it may be deleted at any time. A
file is named by its content, so whoever writes it, it is right or is not read; the lease of a folder only spares a
second process the same work.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator

from harness.spec import HarnessError
from harness.store.files import size_below, write_named_by_content
from harness.store.layout import FeaturesFolder, features_folders
from harness.store.lease import Lease, clock, modified, owner_lives, publish_owner, read_owner

KEPT_BYTES = 20 * 10**9
"""Most bytes of features that a store keeps; the oldest go first."""
LONGEST_WAIT = 1800.0
"""Seconds after which a process no longer waits for features that another computes."""
POLL_SECONDS = 0.5


@contextlib.contextmanager
def kept_features(folder: FeaturesFolder, check: Callable[[], object] = lambda: None) -> Iterator[bytearray | None]:
    """The features in a folder; None where they have to be computed, for which other processes wait meanwhile.

    A process that finds another at work waits for it, and takes its place if it dies.

    Args:
        check: called while waiting; what it raises ends the wait.
    """
    kept, lease, deadline = None, None, time.monotonic() + LONGEST_WAIT
    try:
        with contextlib.suppress(OSError, HarnessError):
            # Read again with the lease in hand: the owner before may have written in between.
            while (kept := _whole(folder)) is None and lease is None and time.monotonic() < deadline:
                if (lease := _lease(folder)) is None:
                    check()
                    time.sleep(POLL_SECONDS)
        yield kept
    finally:
        if lease is not None:
            lease.release()


def keep_features(folder: FeaturesFolder, data: memoryview) -> None:
    """Write features into a folder, if the disk lets it, and delete the oldest of a store that keeps too many.

    Args:
        data: in bytes; more than KEPT_BYTES are not kept.
    """
    if (total := len(data)) > KEPT_BYTES:
        return
    with contextlib.suppress(OSError, HarnessError):
        folder.path.mkdir(parents=True, exist_ok=True)
        write_named_by_content(folder.path, folder.name, lambda file: file.write(data))
        for old in sorted(features_folders(folder.root), key=lambda old: modified(old.path), reverse=True):
            total += size_below(old.path) if old != folder else 0
            if total > KEPT_BYTES and not is_taken(old):
                shutil.rmtree(old.path, ignore_errors=True)


def is_taken(folder: FeaturesFolder) -> bool:
    """True while a living process computes the features of a folder."""
    latest = folder.owners()[-1:]
    return any(owner_lives(own, read_owner(own.owner), lambda: clock(folder.root)) for own in latest)


def _whole(folder: FeaturesFolder) -> bytearray | None:
    """Content of a file that is what its name says, None if there is none; a damaged one is deleted."""
    for path in folder.files():
        # Read whole before it is checked: what is used is what was checked, whatever happens to the file later.
        data = bytearray(path.stat().st_size)
        with path.open("rb") as file:
            file.readinto(data)
        if folder.name(hashlib.sha256(data).hexdigest()) == path.name:
            return data
        path.unlink(missing_ok=True)
    return None


def _lease(folder: FeaturesFolder) -> Lease | None:
    """Right to compute the features of a folder; None while another process has it."""
    # Listed before the owner is looked at: whoever begins in between takes this number, and publishing it fails here.
    before = folder.owners()
    if before and is_taken(folder):
        return None
    own = folder.owner(before[-1].number + 1 if before else 1)
    return Lease(own) if publish_owner(own) else None
