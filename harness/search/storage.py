"""The storage of a search: opened by its coordinator for writing, by anybody else for reading only."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage, JournalStorage, get_storage
from optuna.storages.journal import JournalFileBackend

from harness.search.declaration import Direction
from harness.search.space import changes
from harness.spec import HarnessError
from harness.store.files import disk_errors, parsed, read_bytes
from harness.store.layout import SearchFolder

SETTINGS = "settings"
"""The attribute of an Optuna study that holds what must not change while it goes on."""


def open_storage(folder: SearchFolder, url: str | None, *, writing: bool) -> BaseStorage:
    """The storage at an Optuna URL, by default a journal in the folder of the search.

    Args:
        writing: by the only process that does; then what a killed one left half done is removed first.

    Raises:
        HarnessError: there is none to read, it is corrupt, or it does not answer.
    """
    if url is not None:
        try:
            return get_storage(url)
        except Exception as error:  # the drivers of data bases raise what they like
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
    except Exception as error:  # what a line without a digest makes Optuna raise is open
        raise _corrupt(path, f"does not read: {_first_line(error)}") from None


class Journal(JournalFileBackend):
    """Optuna's journal, with a digest in each line, which Optuna ignores: a line that was changed is noticed."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        super().append_logs([{**log, "digest": _digest(log)} for log in logs])


def _digest(log: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(log).encode()).hexdigest()[:16]


def _mend(path: Path) -> None:
    """Remove the lock and the half line that a killed coordinator may have left; its other lines are whole."""
    Path(f"{path}.lock").unlink(missing_ok=True)
    if path.is_file():
        data = path.read_bytes()
        if data and not data.endswith(b"\n"):
            os.truncate(path, data.rfind(b"\n") + 1)


def _check(path: Path) -> None:
    sealed = False
    *lines, _ = (read_bytes(path) or b"").split(b"\n")  # the rest is still being written
    for number, line in enumerate(lines, 1):
        log = parsed(line)
        if isinstance(log, dict) and "digest" in log:
            sealed, digest = True, log.pop("digest")
            text = json.dumps({**log, "digest": _digest(log)}, separators=(",", ":"))
            if digest == _digest(log) and line == text.encode():
                continue
        elif isinstance(log, dict) and not sealed:  # written before lines had digests
            continue
        raise _corrupt(path, f"is corrupt at line {number}")


def _corrupt(path: Path, how: str) -> HarnessError:
    return HarnessError(
        f"{path} {how}; move it away, and the same command begins a new one from the finished runs in the store"
    )


def versions(storage: BaseStorage, name: str) -> list[str]:
    """The studies of a search in a storage, the latest last: `name`, `name.2`, `name.3`.

    Raises:
        HarnessError: the storage does not answer.
    """
    try:
        found = {study.study_name for study in storage.get_all_studies()}
    except Exception as error:
        raise HarnessError(f"the storage does not answer: {_first_line(error)}") from None
    known = [name] if name in found else []
    while f"{name}.{len(known) + 1}" in found:
        known.append(f"{name}.{len(known) + 1}")
    return known


def begin(
    storage: BaseStorage, name: str, directions: tuple[Direction, ...], settings: dict[str, Any], pruner: BasePruner
) -> optuna.Study:
    """A new study, under a name that no other has, with what must not change noted in it."""
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
    """The study of that name, to go on with.

    Raises:
        HarnessError: it was begun with another space, or other settings.
    """
    study = optuna.load_study(storage=storage, study_name=name, pruner=pruner)
    kept = study.user_attrs.get(SETTINGS)
    if kept is None:
        raise HarnessError(f"study {name} in this storage was not begun by this program; choose another --storage")
    if found := differing(kept, settings):
        raise HarnessError(
            f"search {name} was begun otherwise: {'; '.join(found)}. Put that back, or begin a new one from the runs "
            "in the store with --new"
        )
    return study


def differing(kept: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """What has changed between the settings of a study and those of now, in words."""
    found = [
        f"{name} was {kept.get(name)} and is {value}"
        for name, value in settings.items()
        if name != "space" and kept.get(name) != value
    ]
    return changes(kept.get("space", {}), settings["space"]) + found


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
