"""One attempt at a run, owned by this process."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from harness.spec import HarnessError, Run, key
from harness.store.files import (
    DiskError,
    create_exclusively,
    digests,
    read_json,
    read_lines,
    sha256,
    tried_again,
    write_atomically,
    write_named_by_content,
)
from harness.store.layout import AttemptFolder, CheckpointFile
from harness.store.lease import Lease
from harness.store.records import sealed

if TYPE_CHECKING:
    from harness.store.store import Store


class Superseded(Exception):
    """Raised in a process whose run another has taken over: it must stop and write nothing more."""


class Attempt:
    """One attempt at a run by this process, which owns the run.

    Everything is written to the attempt's own folder, except the result, which is created exclusively. So a process
    that was suspended and wakes up after another has taken the run over cannot damage the other's files.

    alone: True where this process computes nothing else meanwhile and no other helps it, so that its CPU time is the
        run's.
    """

    def __init__(self, store: Store, run: Run, files: AttemptFolder) -> None:
        self.store, self.run, self.key, self.files = store, run, key(run), files
        self._lines: list[dict[str, Any]] = []
        self._written = 0
        self._cpu_begun = _cpu_seconds()
        self.alone = False
        self._lease = Lease(files)

    def check(self) -> None:
        """Raise Superseded unless this attempt still owns the run."""
        if not self._lease.holds():
            raise Superseded(f"{self.key}: attempt {self.files.number} was taken over")

    def checkpoints(self) -> Iterator[CheckpointFile]:
        """Intact checkpoints of this run, of all attempts, the latest step first; damaged ones are left out."""
        for file in sorted(self._all_checkpoints(), key=lambda file: file.step, reverse=True):
            with contextlib.suppress(OSError, DiskError):
                if tried_again(lambda path=file.path: sha256(path), file.path, "read").startswith(file.digest):  # type: ignore[misc]
                    yield file

    def write_checkpoint(self, step: int, write: Callable[[IO[bytes]], object]) -> None:
        """Write a checkpoint; the one before it is kept as a fallback, older ones are removed.

        Raises:
            Superseded: the run was taken over.
            HarnessError: the disk refuses.
        """
        self.check()
        # Checked again before it gets its name: writing takes long, and a process can be stopped in the middle.
        path = write_named_by_content(
            self.files.path, lambda digest: CheckpointFile.name(step, digest), write, self.check
        )
        others = [file for file in self._all_checkpoints() if file.path != path]
        previous = max((file for file in others if file.step < step), key=lambda file: file.step, default=None)
        for file in others:
            if file != previous:
                _remove(file)

    def write_snapshot(self, epoch: int, weights: bytes) -> None:
        """Write the weights after an epoch, for evaluations that start from them.

        Raises:
            Superseded: the run was taken over.
            HarnessError: the disk refuses.
        """
        write_named_by_content(
            self.files.path,
            lambda digest: AttemptFolder.snapshot_name(epoch, digest),
            lambda file: file.write(weights),
            self.check,
        )

    def begin_metrics(self, lines: Sequence[dict[str, Any]] = ()) -> None:
        """Write the metrics file anew, with the lines stored in the checkpoint that this attempt resumes from."""
        self._lines = list(lines)
        data = b"".join(map(_line, lines))
        write_atomically(self.files.metrics, data)
        self._written = len(data)

    def log(self, line: dict[str, Any]) -> None:
        """Append one line to the metrics.

        Raises:
            Superseded: the run was taken over.
            HarnessError: the disk refuses.
        """
        self.check()
        data = _line(line)

        def append() -> None:
            with self.files.metrics.open("ab") as file:
                file.truncate(self._written)  # what a try that failed left of the line
                file.write(data)

        tried_again(append, self.files.metrics)
        self._written += len(data)
        self._lines.append(json.loads(data))

    def lines(self) -> list[dict[str, Any]]:
        """All metrics lines so far; every checkpoint must contain them."""
        return list(self._lines)

    @staticmethod
    def lines_before(file: CheckpointFile) -> list[dict[str, Any]]:
        """Metrics lines up to a checkpoint of schema 1, which does not contain them itself."""
        lines = read_lines(AttemptFolder(file.path.parent).metrics)
        return [line for line in lines if isinstance(step := line.get("step"), int) and step <= file.step]

    def artefact(self, name: str) -> Path:
        """Path for an artefact of this name."""
        return self.files.artefacts / name

    def write_environment(self, environment: dict[str, Any], patch: str) -> None:
        """Record commit, versions and device, and the patch of a dirty tree."""
        write_atomically(self.files.environment, json.dumps(environment, indent=1).encode())
        if patch:
            write_atomically(self.files.patch, patch.encode())

    def environment(self) -> dict[str, Any]:
        """The record of commit, versions and device; empty before it is written."""
        found: dict[str, Any] = read_json(self.files.environment) or {}
        return found

    def note(self, facts: dict[str, Any]) -> None:
        """Add facts to the record of commit, versions and device."""
        write_atomically(self.files.environment, json.dumps(self.environment() | facts, indent=1).encode())

    def finish(self, metrics: dict[str, float], seconds: float, weights: bytes | None = None) -> None:
        """Publish the result, then drop the checkpoints.

        Raises:
            Superseded: the run was taken over.
            HarnessError: a metric is not finite, or the disk refuses.
        """
        if bad := [name for name, value in metrics.items() if not math.isfinite(value)]:
            raise HarnessError(f"{', '.join(bad)} is not a finite number")
        # Weights before the result: a run counts as done from the moment its result exists.
        self.check()
        if weights is not None:
            write_atomically(self.files.weights, weights, self.check)
        record = {
            "key": self.key,
            "attempt": self.files.number,
            "metrics": metrics,
            "seconds": seconds,
            "weights": hashlib.sha256(weights).hexdigest() if weights is not None else "",
            "files": digests(self.files.path, self.files.kept()),
        }
        if self.alone and self.files.number == 1:  # what earlier attempts took died with their processes
            record["cpu_seconds"] = round(_cpu_seconds() - self._cpu_begun, 2)
        try:
            create_exclusively(self.store.folder(self.key).result, sealed(record), self.check)
        except FileExistsError:
            raise Superseded(f"{self.key}: another attempt has finished it") from None
        for file in self._all_checkpoints():  # only now: until the result exists a resume needs them
            _remove(file)

    def fail(self, text: str) -> None:
        """Record a failure; only `retry` runs this again.

        Raises:
            Superseded: the run was taken over, so that this failure says nothing about it.
        """
        # On a full disk the run stays interrupted instead of failed, and goes on once there is room.
        with contextlib.suppress(HarnessError):
            self.check()
            write_atomically(self.files.error, text.encode(errors="replace"))

    def release(self) -> None:
        """Stop the heartbeat: this process no longer works on the run."""
        self._lease.release()

    def _all_checkpoints(self) -> list[CheckpointFile]:
        attempts = self.store.folder(self.key).attempts()
        # A successor's are none of this attempt's business, even if it was stopped between a check and this line.
        return [file for folder in attempts if folder.number <= self.files.number for file in folder.checkpoints()]


def _line(line: dict[str, Any]) -> bytes:
    return json.dumps(line).encode() + b"\n"


def _remove(file: CheckpointFile) -> None:
    with contextlib.suppress(OSError):  # what stays is removed by `clean`
        file.path.unlink(missing_ok=True)


def _cpu_seconds() -> float:
    """CPU time of this process, its threads and those of its children that have ended."""
    found = os.times()
    return found.user + found.system + found.children_user + found.children_system
