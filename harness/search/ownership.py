"""One coordinator a search: the highest number in its folder, as with attempts at a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from harness.spec import HarnessError
from harness.store import Store
from harness.store.files import publish_folder
from harness.store.layout import AttemptFolder, SearchFolder
from harness.store.ownership import Heartbeat, Owner, is_alive, read_owner, this_process
from harness.store.records import sealed


class Lease:
    """This process's right to write to a search."""

    def __init__(self, folder: SearchFolder, own: AttemptFolder) -> None:
        self._folder, self._own = folder, own
        self._heartbeat = Heartbeat(own.heartbeat)

    def check(self) -> None:
        """Raise if another process has taken the search over.

        Raises:
            HarnessError: it has.
        """
        if self._folder.coordinators()[-1] != self._own:
            raise HarnessError("another process has taken this search over; this one ends")

    def release(self) -> None:
        """Give the right back."""
        self._heartbeat.stop()


def holder(store: Store, folder: SearchFolder) -> Owner | None:
    """Who runs a search at present, if anybody does."""
    found = folder.coordinators()
    if not found:
        return None
    owner = read_owner(found[-1].owner)
    return owner if is_alive(owner, lambda: store.heartbeat_age(found[-1])) else None


@contextlib.contextmanager
def leased(store: Store, folder: SearchFolder) -> Iterator[Lease]:
    """Be the coordinator of a search.

    Raises:
        HarnessError: another process is.
    """
    before = folder.coordinators()
    if (owner := holder(store, folder)) is not None:
        raise HarnessError(
            f"this search is locked: pid {owner['pid']} on {owner['host']} runs it; --status shows how it stands"
        )
    own = folder.coordinator(before[-1].number + 1 if before else 1)
    if not publish_folder(own.path, lambda fresh: AttemptFolder(fresh).owner.write_bytes(sealed(this_process()))):
        raise HarnessError("this search is locked: another process began to run it just now")
    lease = Lease(folder, own)
    try:
        yield lease
    finally:
        lease.release()
