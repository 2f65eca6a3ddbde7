"""The coordinator of a search: one process at a time, by a lease of the search's folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from harness.spec import HarnessError
from harness.store import Store
from harness.store.layout import SearchFolder
from harness.store.lease import Lease, Owner, owner_lives, publish_owner, read_owner


def require_held(lease: Lease) -> None:
    """Refuse to go on with a search that another process has taken over.

    Raises:
        HarnessError: another process has.
    """
    if not lease.holds():
        raise HarnessError("another process has taken this search over; this one ends")


def holder(store: Store, folder: SearchFolder) -> Owner | None:
    """The live process that runs a search, None if there is none."""
    found = folder.coordinators()
    if not found:
        return None
    owner = read_owner(found[-1].owner)
    return owner if owner_lives(found[-1], owner, store.root) else None


@contextlib.contextmanager
def leased(store: Store, folder: SearchFolder) -> Iterator[Lease]:
    """Be the coordinator of a search until the context ends.

    Raises:
        HarnessError: another process is.
    """
    # Listed before the holder is looked up: whoever begins in between takes this number, and publishing it fails here.
    before = folder.coordinators()
    if (owner := holder(store, folder)) is not None:
        raise HarnessError(
            f"this search is locked: pid {owner['pid']} on {owner['host']} runs it; --status shows how it stands"
        )
    own = folder.coordinator(before[-1].number + 1 if before else 1)
    if not publish_owner(own):
        raise HarnessError("this search is locked: another process began to run it just now")
    lease = Lease(own)
    try:
        yield lease
    finally:
        lease.release()
