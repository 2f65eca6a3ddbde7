"""Storage of a search: who may write to it, the journal with its checksums, the Optuna studies in it.

One process at a time, the coordinator, writes; all others open the storage for reading only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage, JournalStorage, get_storage
from optuna.storages.journal import JournalFileBackend

from harness.search.declaration import Direction
from harness.search.space import changes
from harness.spec import HarnessError
from harness.store import Store
from harness.store.files import disk_errors, parsed, read_bytes
from harness.store.layout import SearchFolder
from harness.store.lease import Lease, Owner, clock, owner_lives, publish_owner, read_owner

SETTINGS = "settings"
"""Attribute of an Optuna study: the settings that must not change while it goes on."""


def open_storage(folder: SearchFolder, url: str | None, *, writing: bool) -> BaseStorage:
    """Open the storage at an Optuna URL; without one, the journal in the folder of the search.

    Args:
        writing: True for the coordinator, which first removes what a killed one left half written.

    Raises:
        HarnessError: there is nothing to read, the journal is corrupt, or the data base does not answer.
    """
    if url is not None:
        try:
            return get_storage(url)
        except Exception as error:  # each data base driver has its own exceptions
            raise HarnessError(f"storage {url}: {_first_line(error)}") from None
    path = folder.journal
    if writing:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _mend(path)
    elif not path.is_file():
        raise HarnessError(f"there is no search in {folder.path} yet; the same command without --status begins it")
    _check(path)
    try:
        return JournalStorage(Journal(str(path)))
    except Exception as error:  # a damaged line without a digest can raise anything
        raise _corrupt(path, f"does not read: {_first_line(error)}") from None


class Journal(JournalFileBackend):
    """Optuna's journal with a digest in each line, by which a changed line is noticed; Optuna ignores the field."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        super().append_logs([{**log, "digest": _digest(log)} for log in logs])


def _digest(log: dict[str, Any]) -> str:
    # 64 bits: the digest is to notice damage, not an adversary.
    return hashlib.sha256(json.dumps(log).encode()).hexdigest()[:16]


def _mend(path: Path) -> None:
    """Remove the lock file and the incomplete last line that a killed coordinator may have left."""
    # This process holds the lease, so nobody else can hold Optuna's own lock.
    Path(f"{path}.lock").unlink(missing_ok=True)
    if path.is_file():
        data = path.read_bytes()
        if data and not data.endswith(b"\n"):
            os.truncate(path, data.rfind(b"\n") + 1)


def _check(path: Path) -> None:
    """Check the digest of every complete line; older versions wrote lines without one, which come first.

    Raises:
        HarnessError: a line is corrupt.
    """
    digested = False
    *lines, _ = (read_bytes(path) or b"").split(b"\n")  # what follows the last newline is still being written
    for number, line in enumerate(lines, 1):
        log = parsed(line)
        if isinstance(log, dict) and "digest" in log:
            digested, digest = True, log.pop("digest")
            # The text is compared as well: other spaces or a doubled field would leave the parsed values as they are.
            text = json.dumps({**log, "digest": _digest(log)}, separators=(",", ":"))
            if digest == _digest(log) and line == text.encode():
                continue
        elif isinstance(log, dict) and not digested:
            continue
        raise _corrupt(path, f"is corrupt at line {number}")


def _corrupt(path: Path, how: str) -> HarnessError:
    return HarnessError(
        f"{path} {how}; move it away, and the same command begins a new one from the finished runs in the store"
    )


def versions(storage: BaseStorage, name: str) -> list[str]:
    """Names of a search's studies in a storage, the latest last: `name`, `name.2`, `name.3`.

    Raises:
        HarnessError: the storage does not answer.
    """
    try:
        taken = {study.study_name for study in storage.get_all_studies()}
    except Exception as error:
        raise HarnessError(f"the storage does not answer: {_first_line(error)}") from None
    known = [name] if name in taken else []
    while f"{name}.{len(known) + 1}" in taken:
        known.append(f"{name}.{len(known) + 1}")
    return known


def begin(
    storage: BaseStorage, name: str, directions: tuple[Direction, ...], settings: dict[str, Any], pruner: BasePruner
) -> optuna.Study:
    """Create a study under the next free name, and store its settings in it."""
    # An earlier version stays in the storage: its trials are candidates for import.
    count = len(versions(storage, name)) + 1
    study = optuna.create_study(
        storage=storage,
        study_name=name if count == 1 else f"{name}.{count}",
        directions=list(directions),
        pruner=pruner,
    )
    study.set_user_attr(SETTINGS, settings)
    return study


def resume(storage: BaseStorage, name: str, settings: dict[str, Any], pruner: BasePruner) -> optuna.Study:
    """Load the study of that name in order to continue it.

    Raises:
        HarnessError: the study was begun with another space or other settings, or not by this program.
    """
    study = optuna.load_study(storage=storage, study_name=name, pruner=pruner)
    kept = study.user_attrs.get(SETTINGS)
    if kept is None:
        raise HarnessError(f"study {name} in this storage was not begun by this program; choose another --storage")
    if changed := differing(kept, settings):
        raise HarnessError(
            f"search {name} was begun otherwise: {'; '.join(changed)}. Put that back, or begin a new one from the runs "
            "in the store with --new"
        )
    return study


def differing(kept: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """Changes between the stored settings of a study and the present ones, in words.

    What an earlier version of the program did not store is not compared.
    """
    changed = [
        f"{name} was {kept[name]} and is {value}"
        for name, value in settings.items()
        if name != "space" and name in kept and kept[name] != value
    ]
    # The space is compared by its own rules, which name the parameter that changed.
    return changes(kept.get("space", {}), settings["space"]) + changed


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def require_held(lease: Lease) -> None:
    """Check that no other process has taken the search over.

    Raises:
        HarnessError: another process has.
    """
    if not lease.holds():
        raise HarnessError("another process has taken this search over; this one ends")


def holder(store: Store, folder: SearchFolder) -> Owner | None:
    """Process that runs a search at present; None if none is alive."""
    if not (coordinators := folder.coordinators()):
        return None
    owner = read_owner(coordinators[-1].owner)
    return owner if owner_lives(coordinators[-1], owner, lambda: clock(store.root)) else None


@contextlib.contextmanager
def leased(store: Store, folder: SearchFolder) -> Iterator[Lease]:
    """Make this process the coordinator of a search until the context ends.

    Raises:
        HarnessError: another process is the coordinator.
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
