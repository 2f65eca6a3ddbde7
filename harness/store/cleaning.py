"""Files of a store that can be deleted without losing a result."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.spec import Run, key, upstreams
from harness.store.features import is_taken
from harness.store.files import digests, size_below, write_atomically
from harness.store.layout import (
    FeaturesFolder,
    RunFolder,
    coordinator_owners,
    description_files,
    features_folders,
    submission_folders,
)
from harness.store.lease import clock
from harness.store.records import SCHEMA, read_record, sealed
from harness.store.store import Store

TEMPORARY = re.compile(r"\..+[.-][0-9a-f]{8}\.tmp|\.(clock|group)-[0-9a-f]{8}")
"""Names of temporary files and folders, and of files at which processes of a group meet."""
TEMPORARY_SECONDS = 3600.0
"""Minimum age of a deletable temporary file; a younger one may be in use."""


@dataclass(frozen=True)
class Removable:
    """A file or folder that can go. size: in bytes. free: asked just before: False leaves it."""

    what: str
    path: Path
    size: int
    free: Callable[[], bool] = lambda: True


def removable(
    store: Store, runs: Mapping[str, Run], *, weights: bool = False, unfinished: bool = False
) -> list[Removable]:
    """Superseded attempts and checkpoints of done runs, and on request more.

    Args:
        weights: also the weights of done runs, but for those that an evaluation starts from that is not done: one of
            these runs, or of any study whose runs are in the store.
        unfinished: also whole folders of failed and interrupted runs. Running ones are left alone.

    Raises:
        HarnessError: a spec in the store does not read, so that what it needs cannot be told.
    """
    states = store.states(runs)
    needed = _needed(store, runs) if weights else set()
    found: list[Removable] = []
    for name, state in states.items():
        folder = store.folder(name)
        if state.word == "done":
            found += _leftovers(folder, state.attempt)
            file = folder.attempt(state.attempt).weights
            if weights and name not in needed:
                kept = [file] if file.is_file() else []
                found += [Removable("weights", path, size_below(path)) for path in (*kept, *folder.all_snapshots())]
        elif unfinished and state.word in ("failed", "interrupted"):
            still = partial(_stands_still, store, name)
            found.append(Removable(f"{state.word} runs", folder.path, size_below(folder.path), still))
    return found


def _needed(store: Store, runs: Mapping[str, Run]) -> set[str]:
    """Keys of the runs that others start from which are not done."""
    open_ones = [run for name, run in runs.items() if store.result(name) is None]
    # Other studies may share a pre-training, and their jobs wait in a queue.
    open_ones += [store.spec(name) for name in store.keys() if name not in runs and store.result(name) is None]  # noqa: SIM118
    return {key(first) for run in open_ones for first in upstreams(run)}


def _stands_still(store: Store, name: str) -> bool:
    return store.state(name).word in ("failed", "interrupted")


def kept_features(store: Store) -> list[Removable]:
    """Features that evaluations keep for each other, anywhere in the store, but for those being computed."""
    free = {folder.path: partial(_is_free, folder) for folder in features_folders(store.root)}
    return [Removable("kept features", path, size_below(path), still) for path, still in free.items() if still()]


def left_by_kills(store: Store, seconds: float = TEMPORARY_SECONDS) -> list[Removable]:
    """Temporary files of killed processes, anywhere in the store. seconds: their minimum age."""
    found = []
    for folder, below, files in os.walk(store.root):
        names = [name for name in (*below, *files) if TEMPORARY.fullmatch(name)]
        below[:] = [name for name in below if name not in names]
        found += [Path(folder) / name for name in names]
    oldest = clock(store.root) - seconds if found else 0.0
    return [Removable("left by kills", path, size_below(path)) for path in found if 0 < _stamp(path) < oldest]


def _stamp(path: Path) -> float:
    """Time of a file or link, 0 if it is gone: a process at work gives its temporary files their names."""
    try:
        return os.lstat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def old_records(store: Store) -> Iterator[Path]:
    """The records of schema 1 in a store; those that do not read are left out.

    Raises:
        HarnessError: a later version of harness wrote one of them.
    """
    for path in _records(store):
        record = read_record(path)
        if record is not None and record.get("schema", 1) != SCHEMA:
            yield path


def seal(path: Path) -> None:
    """Rewrite a record of schema 1 in the present one, with a digest; a result then also vouches for its run's files.

    Versions of harness that write schema 1 take it for damaged then.
    """
    record = read_record(path) or {}
    record.pop("schema", None)
    folder = RunFolder(path.parent)
    if path == folder.result:
        attempt = folder.attempt(record["attempt"])
        record["files"] = digests(attempt.path, attempt.kept())
    write_atomically(path, sealed(record))


def _records(store: Store) -> Iterator[Path]:
    for name in store.keys():  # noqa: SIM118
        folder = store.folder(name)
        yield from (folder.spec, *(attempt.owner for attempt in folder.attempts()))
        if store.result(name) is not None:
            yield folder.result
    for entry in submission_folders(store.root):
        yield from (entry.entry, *entry.answers())
    yield from (*coordinator_owners(store.root), *description_files(store.root))


def remove(found: list[Removable]) -> None:
    """Delete them."""
    for item in found:
        if not item.free():
            continue
        if item.path.is_dir():
            shutil.rmtree(item.path)
        else:
            item.path.unlink(missing_ok=True)


def _is_free(folder: FeaturesFolder) -> bool:
    return not is_taken(folder)


def _leftovers(folder: RunFolder, final: int) -> list[Removable]:
    old = [attempt.path for attempt in folder.attempts() if attempt.number != final]
    states = [file.path for file in folder.attempt(final).checkpoints()]  # killed between the result and the clean-up
    return [
        Removable(what, path, size_below(path))
        for what, paths in (
            ("superseded attempts", old),
            ("checkpoints of done runs", states),
            ("results put aside", folder.results_put_aside()),
        )
        for path in paths
    ]
