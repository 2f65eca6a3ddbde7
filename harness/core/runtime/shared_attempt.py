"""An attempt shared by several processes: rank 0 writes, and an error of rank 0 stops all."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from harness.core.runtime.distributed import Group
from harness.spec import HarnessError, Run, key
from harness.store import Attempt, AttemptFolder, Store
from harness.store.files import write_atomically
from harness.store.layout import CheckpointFile


class SharedAttempt(Attempt):
    """One rank's view of an attempt. All ranks call its methods together, but for `fail`, `artefact` and `release`.

    An error of rank 0's own attempt is raised on rank 0 and becomes LeaderLeft on the others, so that no rank waits in
    a collective for one that has left.

    Args:
        own: the attempt, on rank 0; None elsewhere.
    """

    def __init__(self, store: Store, run: Run, files: AttemptFolder, group: Group, own: Attempt | None) -> None:
        self.store, self.run, self.key, self.files = store, run, key(run), files
        self._group, self._own = group, own
        self._lines: list[dict[str, Any]] = []
        self._unread: tempfile.TemporaryDirectory[str] | None = None

    def check(self) -> None:
        self._lead(lambda own: own.check())

    def checkpoints(self) -> Iterator[CheckpointFile]:
        """The checkpoint that rank 0 chose, if there is one."""
        chosen = self._lead(lambda own: next(own.checkpoints(), None))
        return iter([] if chosen is None else [chosen])

    def write_checkpoint(self, step: int, write: Callable[[IO[bytes]], object]) -> None:
        self._lead(lambda own: own.write_checkpoint(step, write))

    def write_snapshot(self, epoch: int, weights: bytes) -> None:
        self._lead(lambda own: own.write_snapshot(epoch, weights))

    def begin_metrics(self, lines: Sequence[dict[str, Any]] = ()) -> None:
        self._lines = list(lines)
        self._lead(lambda own: own.begin_metrics(lines))

    def log(self, line: dict[str, Any]) -> None:
        # Through JSON, so that all ranks hold exactly what rank 0 would read back from the file.
        self._lines.append(json.loads(json.dumps(line)))
        self._lead(lambda own: own.log(line))

    def lines(self) -> list[dict[str, Any]]:
        """Metrics lines so far, kept in memory: on a network disk another rank may read an old state of the file."""
        return list(self._lines)

    def artefact(self, name: str) -> Path:
        """Path to write an artefact to; on ranks other than 0 in a temporary folder, which is deleted."""
        if self._own is not None:
            return self._own.artefact(name)
        self._unread = self._unread or tempfile.TemporaryDirectory()
        return Path(self._unread.name) / name

    def write_environment(self, environment: dict[str, Any], patch: str) -> None:
        self._lead(lambda own: own.write_environment(environment, patch))

    def note(self, facts: dict[str, Any]) -> None:
        self._lead(lambda own: own.note(facts))

    def finish(self, metrics: dict[str, float], seconds: float, weights: bytes | None = None) -> None:
        self._lead(lambda own: own.finish(metrics, seconds, weights))

    def fail(self, text: str) -> None:
        """Record a failure; ranks other than 0 write it into a file of their own, which rank 0 reads."""
        if self._own is not None:
            self._own.fail(text)
        else:
            rank, size = self._group.rank, self._group.size
            told = f"process {rank} of {size}, counted from 0:\n{text}"
            with contextlib.suppress(HarnessError):
                write_atomically(self.files.rank_error(rank), told.encode(errors="replace"))

    def release(self) -> None:
        if self._own is not None:
            self._own.release()
        if self._unread is not None:
            self._unread.cleanup()

    def _lead(self, do: Callable[[Attempt], Any]) -> Any:
        own = self._own
        return self._group.lead(lambda: do(own) if own is not None else None)
