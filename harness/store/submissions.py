"""The log of what was submitted to a cluster: numbered entries, each made in one step by one process.

An entry is written before sbatch is called. Whoever wants to submit reads the log, decides what is not in it, and
publishes the next number; if somebody was faster, that fails and it decides again. So two shells never submit the same
run, and a process that dies between its entry and sbatch leaves jobs that are found by their names, or none.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.spec import HarnessError
from harness.store.files import publish_folder, read_json, write_atomically
from harness.store.layout import SubmissionFolder, submission_folder, submission_folders
from harness.store.ownership import Owner, this_process

SCHEMA = 1


@dataclass(frozen=True)
class Array:
    """Jobs that are submitted together.

    name: the job name, of this array alone. stage: pretrain or evaluation. elements: keys of the runs of each job.
    after: the array of the same entry whose element of the same index must succeed first.
    dependency: else what sbatch is told, such as `afterok:12_3`; empty for none.
    """

    name: str
    stage: Literal["pretrain", "evaluation"]
    elements: tuple[tuple[str, ...], ...]
    after: int | None = None
    dependency: str = ""


@dataclass(frozen=True)
class Entry:
    """One entry of the log.

    kind: submission or cancel. time: seconds since 1970. study: name and scale. wants: keys that the study waits for
    (submission) or gives up (cancel). settings: what the jobs compute with, by stage.
    """

    number: int
    kind: Literal["submission", "cancel"]
    study: str
    wants: tuple[str, ...]
    time: float = 0.0
    arrays: tuple[Array, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    owner: Owner | None = None

    def places(self) -> dict[str, tuple[int, int]]:
        """For each submitted run its array and element."""
        return {
            name: (number, index)
            for number, array in enumerate(self.arrays)
            for index, names in enumerate(array.elements)
            for name in names
        }


class Submissions:
    """The log of a store."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def last(self) -> int:
        """The highest number so far, 0 for an empty log."""
        folders = submission_folders(self._root)
        return folders[-1].number if folders else 0

    def folder(self, number: int) -> SubmissionFolder:
        """The paths of one entry."""
        return submission_folder(self._root, number)

    def entries(self, *, after: int = 0, closed: bool = False) -> list[Entry]:
        """Entries with a higher number than `after`, oldest first; those that are closed only on request.

        A torn one is passed over: no job was queued for it.

        Raises:
            HarnessError: an entry was written by a version of harness that keeps them in another form.
        """
        found = []
        for folder in submission_folders(self._root):
            if folder.number > after and (closed or not folder.closed.exists()):
                record = read_json(folder.entry)
                if isinstance(record, dict):
                    found.append(_entry(folder, record))
        return found

    def read(self, number: int) -> Entry:
        """One entry.

        Raises:
            HarnessError: it is missing or torn, or another version of harness wrote it.
        """
        folder = self.folder(number)
        record = read_json(folder.entry)
        if not isinstance(record, dict):
            raise HarnessError(f"{folder.entry} is missing or damaged")
        return _entry(folder, record)

    def publish(
        self,
        number: int,
        kind: Literal["submission", "cancel"],
        study: str,
        wants: Iterable[str],
        arrays: Sequence[Array] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> Entry | None:
        """Append an entry under this number; None if another process was faster.

        Raises:
            HarnessError: the disk refuses.
        """
        entry = Entry(number, kind, study, tuple(wants), time.time(), tuple(arrays), settings or {}, this_process())
        record = {"schema": SCHEMA} | asdict(entry)
        del record["number"]
        folder = self.folder(number)
        done = publish_folder(folder.path, lambda fresh: SubmissionFolder(fresh).entry.write_text(json.dumps(record)))
        return entry if done else None

    def answer(self, number: int, array: int) -> dict[str, str]:
        """What sbatch said: `id`, or `error`; empty if that was not recorded."""
        found = read_json(self.folder(number).answer(array))
        return found if isinstance(found, dict) else {}

    def record(self, number: int, array: int, answer: Mapping[str, str]) -> None:
        """Write down what sbatch said."""
        write_atomically(self.folder(number).answer(array), json.dumps(dict(answer)).encode())

    def close(self, number: int) -> None:
        """Mark an entry none of whose runs waits for anything any more, so that it need not be read again."""
        with contextlib.suppress(OSError):
            self.folder(number).closed.touch()


def asked_for(entries: Iterable[Entry]) -> dict[str, set[str]]:
    """What each study has asked for and not given up, by keys."""
    found: dict[str, set[str]] = {}
    for entry in entries:
        mine = found.setdefault(entry.study, set())
        if entry.kind == "submission":
            mine |= set(entry.wants)
        else:
            mine -= set(entry.wants)
    return found


def _entry(folder: SubmissionFolder, record: dict[str, Any]) -> Entry:
    if record.get("schema") != SCHEMA:
        raise HarnessError(f"{folder.entry} has schema {record.get('schema')}, this version of harness reads {SCHEMA}")
    arrays = tuple(
        Array(a["name"], a["stage"], tuple(tuple(e) for e in a["elements"]), a["after"], a["dependency"])
        for a in record["arrays"]
    )
    return Entry(
        folder.number,
        record["kind"],
        record["study"],
        tuple(record["wants"]),
        float(record["time"]),
        arrays,
        record["settings"],
        record["owner"],
    )
