"""Where the runs of a search are computed: a queue that grows, fed to worker processes or to this one; or Slurm."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from harness.launch.local.pool import DEATH
from harness.launch.queue import Queue, last_line
from harness.launch.resources import Resources
from harness.launch.site import Site, Stage
from harness.launch.slurm import submit as slurm
from harness.launch.slurm.run_states import Overview, overview
from harness.spec import HarnessError, Run
from harness.store import Store
from harness.store.submissions import Submissions

ASK_SECONDS = 15.0
"""How often Slurm is asked for jobs that have died; results are seen in the store at once."""

PATIENCE_SECONDS = 600.0
"""How long Slurm may not answer, as when its controller is begun anew, before a search gives up."""


@dataclass(frozen=True)
class Fate:
    """What became of a run.

    word: done; open (waits or is at work); gone (nobody works on it any more, and nothing speaks against going on with
        it); failed, with the reason.
    """

    word: Literal["done", "open", "gone", "failed"]
    reason: str = ""


class Jobs(Protocol):
    """Computes runs."""

    def add(self, runs: Mapping[str, Run]) -> None:
        """Have runs computed; those that wait or are at work are left alone."""

    def drop(self, runs: Mapping[str, Run]) -> None:
        """Stop runs, or take them out of the queue."""

    def fates(self, runs: Mapping[str, Run]) -> dict[str, Fate]:
        """What became of runs."""


def by_store(store: Store, name: str, begins: int) -> Fate | None:
    """What became of a run as far as its files say.

    begins: how often its process may die before that counts as a failure.
    """
    state = store.state(name)
    if state.word == "done":
        return Fate("done")
    if state.word != "failed":
        return None
    if not state.error.startswith(DEATH):
        return Fate("failed", last_line(state.error))
    deaths = sum(attempt.error.exists() for attempt in store.folder(name).attempts())
    return Fate("failed", f"{deaths} times {last_line(state.error)}") if deaths >= begins else None


class QueuedJobs:
    """Runs in a queue that `run_local` or `run_inline` works off."""

    def __init__(self, store: Store, begins: int) -> None:
        self.queue = Queue({}, store, retry=True)
        self._store, self._begins = store, begins
        self._dropped: set[str] = set()

    def add(self, runs: Mapping[str, Run]) -> None:
        self._dropped -= set(runs)
        self.queue.add(runs)

    def drop(self, runs: Mapping[str, Run]) -> None:
        self._dropped |= set(runs) & set(self.queue.open())

    def unwanted(self, name: str) -> bool:
        """Whether a run was dropped."""
        return name in self._dropped

    def fates(self, runs: Mapping[str, Run]) -> dict[str, Fate]:
        waiting = set(self.queue.open())
        found = {}
        for name in runs:
            fate = by_store(self._store, name, self._begins)
            if fate is not None and fate.word == "failed" and name in waiting:
                fate = None  # a run that is begun again: the failure is that of the time before
            found[name] = fate or Fate("open" if name in waiting else "gone")
        return found


class SlurmJobs:
    """Runs in Slurm jobs, one element a run."""

    def __init__(
        self,
        store: Store,
        site: Mapping[Stage, Site],
        resources: Resources,
        *,
        study: str,
        project: Path,
        begins: int,
        program: str = slurm.PROGRAM,
    ) -> None:
        self._store, self._site, self._resources = store, site, resources
        self._study, self._project, self._begins, self._program = study, project, begins, program
        self._seen: Overview | None = None
        self._asked = self._full = -ASK_SECONDS
        self._silent: float | None = None
        self._looked: set[str] = set()

    def add(self, runs: Mapping[str, Run]) -> None:
        """Submit runs, as far as the queue has room; those that it has not are gone, and added again later.

        Raises:
            HarnessError: sbatch refuses, or Slurm has not answered for PATIENCE_SECONDS.
        """
        if time.monotonic() - self._full < ASK_SECONDS:
            return
        try:
            done = slurm.submit(
                runs,
                self._store,
                self._site,
                self._resources,
                study=self._study,
                project=self._project,
                retry=True,
                program=self._program,
            )
        except HarnessError:
            self._full = time.monotonic()
            self._silent = self._silent or self._full
            if self._full - self._silent > PATIENCE_SECONDS:
                raise
            return
        self._asked, self._silent = -ASK_SECONDS, None
        if done.left:
            self._full = time.monotonic()
        if done.refused:
            raise HarnessError(f"sbatch refused: {done.refused}")

    def drop(self, runs: Mapping[str, Run]) -> None:
        slurm.cancel(runs, self._store, study=self._study)
        self._asked = -ASK_SECONDS

    def fates(self, runs: Mapping[str, Run]) -> dict[str, Fate]:
        if time.monotonic() - self._asked >= ASK_SECONDS or set(runs) - self._looked:
            self._seen, self._looked, self._asked = overview(runs, self._store), set(runs), time.monotonic()
        assert self._seen is not None
        return {name: self._fate(name, self._seen) for name in runs}

    def _fate(self, name: str, seen: Overview) -> Fate:
        place = seen.places[name]
        live = place.word in ("running", "queued") or bool(place.job) or bool(seen.silent)
        fate = by_store(self._store, name, self._begins)
        if fate is not None and not (fate.word == "failed" and live and place.word != "running"):
            return fate
        if live:
            return Fate("open")
        broken = (place.word == "failed" and place.state.word != "failed") or (place.word == "missing" and place.detail)
        if broken and (begun := self._submitted(name)) >= self._begins:
            return Fate("failed", f"submitted {begun} times; {place.detail}")
        return Fate("gone", place.detail)

    def _submitted(self, name: str) -> int:
        return sum(name in entry.places() for entry in Submissions(self._store.root).entries())
