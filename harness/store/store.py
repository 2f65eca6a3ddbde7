"""The store: registers runs, reads states and results, hands out attempts."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from harness.machine import store_folder
from harness.spec import HarnessError, Run, key, run_from_json
from harness.store.attempt import Attempt
from harness.store.files import (
    disk_errors,
    publish_folder,
    read_bytes,
    read_json,
    read_lines,
    require_exclusive_creation,
    sha256,
    size_below,
    text_of,
    tried_again,
    write_atomically,
)
from harness.store.layout import AttemptFolder, RunFolder
from harness.store.lease import clock, owner_lives, publish_owner, read_owner
from harness.store.records import read_record, sealed
from harness.store.states import MISSING, Result, State

AT_A_TIME = 32
"""Runs that are registered side by side."""


class Store:
    """Folder with one folder a run, named by its key; the only record of what is done."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, name: str) -> RunFolder:
        """Paths of the files of a run, by its key."""
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
        text = sealed({"key": name, "run": run.to_plain()})
        if not files.path.is_dir():
            self._require_exclusive_creation()
            publish_folder(files.path, lambda fresh: RunFolder(fresh).spec.write_bytes(text))
        if read_bytes(files.spec) != text:  # written by another version, or something else
            if "run" not in (read_record(files.spec) or {}):  # damaged: the key says what it was
                write_atomically(files.spec, text)
            self.spec(name)
        return name

    def register_all(self, runs: Iterable[Run]) -> None:
        """Register many runs, some at a time: each waits for the disk twice, which is mostly all it does."""
        self._require_exclusive_creation()
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            for _ in pool.map(self.register, runs):
                pass

    def spec(self, name: str) -> Run:
        """The spec of the run with this key.

        Raises:
            HarnessError: there is none, it does not read, or it is another one than the key says.
        """
        path = self.folder(name).spec
        record = read_record(path) or {}
        if "run" not in record:
            raise HarnessError(f"{path} is missing or damaged")
        try:
            run = run_from_json(json.dumps(record["run"]))
        except (HarnessError, RecursionError) as error:
            raise HarnessError(f"{path} does not read: {error}") from None
        if key(run) != name:
            told = "it was altered, or a later version of harness corrected what it means (see the changelog)"
            raise HarnessError(f"{path} holds another spec than its folder's name says: {told}; plan again")
        return run

    def result(self, name: str) -> Result | None:
        """The result of a run, or None if there is no valid one.

        Raises:
            HarnessError: a later version of harness wrote it, or the disk refuses.
        """
        record = read_record(self.folder(name).result)
        if record is None or record.get("key") != name:
            return None
        metrics, attempt, seconds = record.get("metrics"), record.get("attempt"), record.get("seconds")
        if not isinstance(metrics, dict) or not all(map(_is_number, (seconds, *metrics.values()))):
            return None
        if type(attempt) is not int or not 0 < attempt < 10**9 or not isinstance(record.get("weights"), str):
            return None
        found = {metric: float(value) for metric, value in metrics.items()}
        cpu = record["cpu_seconds"] if _is_number(record.get("cpu_seconds")) else None
        return Result(found, attempt, float(seconds), record["weights"], record.get("files", {}), cpu)  # type: ignore[arg-type]

    def state(self, name: str, now: Callable[[], float] | None = None) -> State:
        """State of one run by its files. Changes nothing.

        now: gives the time by the clock of the store's disk, where several runs are looked at; see `lease.clock`.
        """
        if result := self.result(name):
            return State("done", result, result.attempt)
        attempts = self.folder(name).attempts()
        if not attempts:
            return MISSING
        latest = attempts[-1]
        owner = read_owner(latest.owner)
        if latest.error.exists():
            return State("failed", None, latest.number, owner, text_of(latest.error))
        alive = owner_lives(latest, owner, now or (lambda: clock(self.root)))
        progress: dict[str, Any] = next(iter(reversed(read_lines(latest.metrics))), {})
        if alive:
            return State("running", None, latest.number, owner, "", progress)
        saved = max((file.step for attempt in attempts for file in attempt.checkpoints()), default=0)
        return State("interrupted", None, latest.number, owner, "", progress, saved)

    def states(self, names: Iterable[str]) -> dict[str, State]:
        """States of runs by key."""
        present = set(self.keys())
        now = cache(lambda: clock(self.root))  # asked for once, if at all: it makes a file
        return {name: self.state(name, now) if name in present else MISSING for name in names}

    def final_attempt(self, name: str) -> AttemptFolder | None:
        """Folder of the attempt that finished a run, None if the run is not done."""
        result = self.result(name)
        return self.folder(name).attempt(result.attempt) if result else None

    def weights(self, name: str) -> Path | None:
        """Weights file of a finished run; None if it keeps none or the file was deleted."""
        attempt = self.final_attempt(name)
        return attempt.weights if attempt and attempt.weights.is_file() else None

    def metrics(self, name: str) -> list[dict[str, Any]]:
        """Metrics lines of a run: of the attempt that finished it, else of the latest attempt.

        Raises:
            HarnessError: they are not what the finished run wrote.
        """
        if result := self.result(name):
            return read_lines(self.checked(name, result, self.folder(name).attempt(result.attempt).metrics))
        attempts = self.folder(name).attempts()
        return read_lines(attempts[-1].metrics) if attempts else []

    def environment(self, name: str) -> dict[str, Any]:
        """Commit, versions and device of the attempt that finished; empty if none did.

        Raises:
            HarnessError: it is not what the finished run wrote.
        """
        result = self.result(name)
        if result is None:
            return {}
        found = read_json(self.checked(name, result, self.folder(name).attempt(result.attempt).environment))
        return found if isinstance(found, dict) else {}

    def upstream_weights(self, name: str) -> Path:
        """Weights file of a run that another starts from.

        Raises:
            HarnessError: it is not done, or its weights are gone or damaged.
        """
        path, result = self.weights(name), self.result(name)
        if path is None or result is None:
            raise HarnessError(f"{name}, which this run starts from, has no weights in the store")
        if sha256(path) != result.weights:
            raise HarnessError(f"{path} is damaged; delete it and run again")
        return path

    def artefact(self, name: str, file: str) -> Path | None:
        """An artefact of a finished run, None where it is not done; the file need not be there.

        Raises:
            HarnessError: it is not what the run wrote.
        """
        result = self.result(name)
        if result is None:
            return None
        return self.checked(name, result, self.folder(name).attempt(result.attempt).artefacts / file)

    def checked(self, name: str, result: Result, path: Path) -> Path:
        """A file of a finished run, if it is what the run wrote, or is not there.

        Raises:
            HarnessError: it is damaged; or the disk refuses.
        """
        wanted = result.files.get(path.relative_to(self.folder(name).attempt(result.attempt).path).as_posix())
        with contextlib.suppress(FileNotFoundError):
            if wanted is not None and tried_again(lambda: sha256(path), path, "read") != wanted:
                raise HarnessError(f"{path} is damaged: the run wrote something else; move it away to go on without it")
        return path

    def size(self, name: str) -> int:
        """Size of a run's folder in bytes."""
        return size_below(self.folder(name).path)

    def put_result_aside(self, name: str) -> None:
        """Rename a result, so that the run counts as not done and is computed again."""
        files = self.folder(name)
        with contextlib.suppress(FileNotFoundError):
            files.result.rename(files.result_put_aside(uuid.uuid4().hex[:8]))

    def acquire(self, run: Run, *, retry: bool = False) -> Attempt | State:
        """Become the owner of a run.

        Args:
            retry: also take a run whose latest attempt failed.

        Returns:
            The attempt to work in; or, where there is nothing to do, the state that says why: done, running in
            another process, or failed.
        """
        name = self.register(run)
        self._require_exclusive_creation()
        while True:
            state = self.state(name)
            if state.word in ("done", "running") or (state.word == "failed" and not retry):
                return state
            if self.folder(name).result.exists() and self.result(name) is None:
                self.put_result_aside(name)  # damaged: as good as absent
            files = self.folder(name).attempt(state.attempt + 1)
            if not publish_owner(files, lambda fresh: fresh.artefacts.mkdir()):
                continue  # somebody was faster
            # Looked up again now that nobody else can begin: the owner that looked dead may have finished meanwhile.
            if done := self.result(name):
                shutil.rmtree(files.path)
                return State("done", done, done.attempt)
            return Attempt(self, run, files)

    def _require_exclusive_creation(self) -> None:
        """Refuse, before anything is computed, a disk on which one process could overwrite another's result."""
        with disk_errors(self.root), contextlib.suppress(FileExistsError):
            self.root.mkdir(parents=True, exist_ok=True)
        require_exclusive_creation(self.root)


def open_store(said: Path | str | None = None, root: Path | None = None) -> Store:
    """The store of a project; for the arguments see `harness.machine.store_folder`."""
    return Store(store_folder(said, root))


def _is_number(value: object) -> bool:
    return (type(value) is int and abs(value) < 2**1000) or (type(value) is float and math.isfinite(value))
