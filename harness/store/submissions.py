"""The log of what was submitted to a cluster: numbered entries, each made in one step by one process.

An entry is written before sbatch is called. Whoever wants to submit reads the log, decides what is not in it, and
publishes the next number; if somebody was faster, that fails and it decides again. So two shells never submit the same
run, and a process that dies between its entry and sbatch leaves jobs that are found by their names, or none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from harness.spec import HarnessError
from harness.store.files import publish_folder, write_atomically
from harness.store.layout import SubmissionFolder, submission_folder, submission_folders
from harness.store.lease import UNKNOWN, Owner, clock, owner_of, this_process
from harness.store.records import read_record, sealed


@dataclass(frozen=True)
class Array:
    """A Slurm job array.

    name: unique job name. elements: keys of the runs of each job.
    after: index of an array of the same entry; each element waits for its element of the same index.
    dependency: sbatch dependency on an earlier job, such as `afterok:12_3`; empty for none.
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
    owner: Owner = field(default_factory=lambda: UNKNOWN)

    @cached_property  # asked for each run of an entry
    def places(self) -> dict[str, tuple[int, int]]:
        """Index of array and element of each submitted run, by key."""
        return {
            name: (number, index)
            for number, array in enumerate(self.arrays)
            for index, names in enumerate(array.elements)
            for name in names
        }


class Submissions:
    """The submission log of a store."""

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

        Raises:
            HarnessError: an entry is damaged, or a later version of harness wrote it.
        """
        return [
            self.read(folder.number)
            for folder in submission_folders(self._root)
            if folder.number > after and (closed or not folder.closed.exists())
        ]

    def read(self, number: int) -> Entry:
        """One entry.

        Raises:
            HarnessError: it is missing or damaged, or a later version of harness wrote it.
        """
        folder = self.folder(number)
        record = read_record(folder.entry)
        try:
            return _entry(number, record or {})
        except (KeyError, TypeError, ValueError, AttributeError):
            raise HarnessError(
                f"{folder.entry} is missing or damaged: move {folder.path.name} away, and cancel jobs of it by hand"
            ) from None

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
        entry = Entry(
            number, kind, study, tuple(wants), clock(self._root), tuple(arrays), settings or {}, this_process()
        )
        record = asdict(entry)
        del record["number"]
        folder = self.folder(number)
        done = publish_folder(folder.path, lambda fresh: SubmissionFolder(fresh).entry.write_bytes(sealed(record)))
        return entry if done else None

    def answer(self, number: int, array: int) -> dict[str, str]:
        """Recorded answer of sbatch for an array: `id` or `error`; empty if there is none."""
        found = read_record(self.folder(number).answer(array)) or {}
        return {name: found[name] for name in ("id", "error") if isinstance(found.get(name), str)}

    def record(self, number: int, array: int, answer: Mapping[str, str]) -> None:
        """Record the answer of sbatch for an array."""
        write_atomically(self.folder(number).answer(array), sealed(answer))

    def close(self, number: int) -> None:
        """Mark an entry whose runs are all done, so that it is not read again."""
        with contextlib.suppress(OSError):
            self.folder(number).closed.touch()


def asked_for(entries: Iterable[Entry]) -> dict[str, set[str]]:
    """Keys of the runs that each study has submitted and not cancelled, by study."""
    found: dict[str, set[str]] = {}
    for entry in entries:
        mine = found.setdefault(entry.study, set())
        if entry.kind == "submission":
            mine |= set(entry.wants)
        else:
            mine -= set(entry.wants)
    return found


def _entry(number: int, record: dict[str, Any]) -> Entry:
    """Entry from its record. Raises KeyError, TypeError, ValueError or AttributeError if that has another form."""
    arrays = tuple(
        Array(_text(a["name"]), a["stage"], tuple(map(_texts, a["elements"])), a["after"], _text(a["dependency"]))
        for a in record["arrays"]
    )
    settings = record["settings"]
    after = (None, *range(len(arrays)))
    if record["kind"] not in ("submission", "cancel") or not isinstance(settings, dict):
        raise ValueError
    if not all(array.stage in ("pretrain", "evaluation") and array.after in after for array in arrays):
        raise ValueError
    owner = owner_of(record["owner"])
    study, wants, moment = _text(record["study"]), _texts(record["wants"]), float(record["time"])
    return Entry(number, record["kind"], study, wants, moment, arrays, settings, owner)


def _texts(values: list[str]) -> tuple[str, ...]:
    return tuple(map(_text, values))


def _text(value: str) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
