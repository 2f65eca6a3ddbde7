"""The folder of run folders: registering, reading, taking ownership."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.spec import HarnessError, Run, key, run_from_json
from harness.store.attempt import SCHEMA, Attempt
from harness.store.files import publish_folder, read_json, read_lines, size_below, write_atomically
from harness.store.layout import AttemptFolder, RunFolder
from harness.store.ownership import Owner, is_alive, this_process

Word = Literal["done", "running", "failed", "lost", "missing"]


@dataclass(frozen=True)
class Result:
    """What a finished run found.

    metrics: by name. attempt: number of the attempt that found them. seconds: time it spent, over all attempts.
    weights: SHA-256 of its weights file, empty if it keeps none.
    """

    metrics: dict[str, float]
    attempt: int
    seconds: float
    weights: str


@dataclass(frozen=True)
class State:
    """Where a run stands, as its files say.

    word: done; running; failed (it raised: only `retry` runs it again); lost (its process vanished: `run` goes on with
        it); missing (never begun).
    progress: the last line of its metrics.
    """

    word: Word
    result: Result | None = None
    attempt: int = 0
    owner: Owner | None = None
    error: str = ""
    progress: dict[str, Any] = field(default_factory=dict)


MISSING = State("missing")


class Store:
    """The folder of run folders; the only truth about what is done."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, name: str) -> RunFolder:
        """The paths of the run with this key."""
        return RunFolder(self.root / name)

    def keys(self) -> list[str]:
        """The keys of all run folders, sorted."""
        try:
            with os.scandir(self.root) as entries:
                return sorted(entry.name for entry in entries if not entry.name.startswith("."))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise HarnessError(f"cannot read {self.root}: {error.strerror}") from None

    def register(self, run: Run) -> str:
        """Make the run's folder if there is none, and return its key.

        Raises:
            HarnessError: the folder holds another spec, or the disk refuses.
        """
        name = key(run)
        files = self.folder(name)
        record = {"schema": SCHEMA, "key": name, "run": run.to_plain()}
        text = json.dumps(record, indent=1) + "\n"
        if not files.path.is_dir():
            publish_folder(files.path, lambda fresh: RunFolder(fresh).spec.write_text(text))
        if read_json(files.spec) is None:  # torn: the key says what it was
            write_atomically(files.spec, text.encode())
        self.spec(name)
        return name

    def spec(self, name: str) -> Run:
        """The spec of the run with this key.

        Raises:
            HarnessError: there is none, it does not read, or it is another one than the key says.
        """
        record = read_json(self.folder(name).spec)
        if not isinstance(record, dict) or "run" not in record:
            raise HarnessError(f"{self.folder(name).spec} is missing or damaged")
        run = run_from_json(json.dumps(record["run"]))
        if key(run) != name:
            raise HarnessError(f"{self.folder(name).spec} holds another spec than its folder's name says; move it away")
        return run

    def result(self, name: str) -> Result | None:
        """The result of a run, or None if there is no valid one."""
        record = read_json(self.folder(name).result)
        try:
            if record["schema"] != SCHEMA or record["key"] != name:
                return None
            metrics = {str(metric): float(value) for metric, value in record["metrics"].items()}
            return Result(metrics, int(record["attempt"]), float(record["seconds"]), str(record["weights"]))
        except (TypeError, KeyError, ValueError, AttributeError):
            return None

    def state(self, name: str) -> State:
        """Where one run stands. Reading changes nothing."""
        if result := self.result(name):
            return State("done", result, result.attempt)
        attempts = self.folder(name).attempts()
        if not attempts:
            return MISSING
        latest = attempts[-1]
        owner = read_json(latest.owner)
        if latest.error.exists():
            return State("failed", None, latest.number, owner, _text(latest.error))
        alive = owner is not None and is_alive(owner, lambda: self._age(latest))
        progress: dict[str, Any] = next(iter(reversed(read_lines(latest.metrics))), {})
        return State("running" if alive else "lost", None, latest.number, owner, "", progress)

    def states(self, names: Iterable[str]) -> dict[str, State]:
        """Where each of the runs stands."""
        present = set(self.keys())
        return {name: self.state(name) if name in present else MISSING for name in names}

    def final_attempt(self, name: str) -> AttemptFolder | None:
        """The attempt that finished a run, None if none did."""
        result = self.result(name)
        return self.folder(name).attempt(result.attempt) if result else None

    def weights(self, name: str) -> Path | None:
        """The weights file of a finished run; None if it keeps none or they were cleaned away."""
        attempt = self.final_attempt(name)
        return attempt.weights if attempt and attempt.weights.is_file() else None

    def metrics(self, name: str) -> list[dict[str, Any]]:
        """The metrics lines of a run: of the attempt that finished, or else of the latest."""
        attempt = self.final_attempt(name) or next(iter(self.folder(name).attempts()[::-1]), None)
        return read_lines(attempt.metrics) if attempt else []

    def environment(self, name: str) -> dict[str, Any]:
        """Commit, versions and device of the attempt that finished; empty if none did."""
        attempt = self.final_attempt(name)
        return (read_json(attempt.environment) or {}) if attempt else {}

    def size(self, name: str) -> int:
        """Bytes that a run takes on disk."""
        return size_below(self.folder(name).path)

    def put_result_aside(self, name: str) -> None:
        """Rename a result, so that the run counts as not done and is computed again."""
        path = self.folder(name).result
        with contextlib.suppress(FileNotFoundError):
            path.rename(path.with_name(f"result-put-aside-{uuid.uuid4().hex[:8]}.json"))

    def acquire(self, run: Run, *, retry: bool = False) -> Attempt | State:
        """Become the owner of a run.

        Args:
            retry: also take a run whose latest attempt failed.

        Returns:
            The attempt to work in; or, where there is nothing to do, the state that says why: done, running in
            another process, or failed.
        """
        name = self.register(run)
        while True:
            if self.folder(name).result.exists() and self.result(name) is None:
                self.put_result_aside(name)  # damaged: as good as absent
            state = self.state(name)
            if state.word in ("done", "running") or (state.word == "failed" and not retry):
                return state
            files = self.folder(name).attempt(state.attempt + 1)
            if not publish_folder(files.path, _fill_attempt):
                continue  # somebody was faster
            if done := self.result(name):  # the owner that looked dead finished meanwhile
                shutil.rmtree(files.path)
                return State("done", done, done.attempt)
            return Attempt(self, run, files)

    def _age(self, attempt: AttemptFolder) -> float:
        """Seconds since an attempt's heartbeat, both times given by the store's own file system."""
        clock = self.root / f".clock-{uuid.uuid4().hex[:8]}"
        try:
            clock.touch()
            now = clock.stat().st_mtime
        except OSError:
            now = time.time()  # read-only or full: this machine's clock is the next best
        finally:
            with contextlib.suppress(OSError):
                clock.unlink(missing_ok=True)
        try:
            return now - attempt.heartbeat.stat().st_mtime
        except OSError:
            return math.inf


def _fill_attempt(fresh: Path) -> None:
    files = AttemptFolder(fresh)
    files.artefacts.mkdir()
    files.owner.write_text(json.dumps(this_process()))
    files.heartbeat.touch()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
