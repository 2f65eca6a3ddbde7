"""Computing the runs of a search: in a growing queue for local processes, or in Slurm jobs."""

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
"""Interval at which Slurm is asked for dead jobs. Results are read from the store and need no question."""

PATIENCE_SECONDS = 600.0
"""Time without an answer from Slurm, whose controller may be restarting, after which a search gives up."""


@dataclass(frozen=True)
class Fate:
    """State of a run for the coordinator.

    word: done; open (waiting or at work); gone (nobody works on it, and it may be submitted again); failed, with the
        reason.
    """

    word: Literal["done", "open", "gone", "failed"]
    reason: str = ""


class Jobs(Protocol):
    """Executor of runs, as the coordinator sees it."""

    def add(self, runs: Mapping[str, Run]) -> None:
        """Submit runs; those that wait or are at work are left alone."""

    def drop(self, runs: Mapping[str, Run]) -> None:
        """Stop runs, or remove them from the queue."""

    def fates(self, runs: Mapping[str, Run]) -> dict[str, Fate]:
        """States of runs, by key."""


def by_store(store: Store, name: str, begins: int) -> Fate | None:
    """State of a run by its files alone; None where these do not decide.

    begins: number of deaths of its process after which the run counts as failed.
    """
    state = store.state(name)
    if state.word == "done":
        return Fate("done")
    if state.word != "failed":
        return None
    # An error of the run itself comes again; a killed process may succeed the next time.
    if not state.error.startswith(DEATH):
        return Fate("failed", last_line(state.error))
    deaths = sum(attempt.error.exists() for attempt in store.folder(name).attempts())
    return Fate("failed", f"{deaths} times {last_line(state.error)}") if deaths >= begins else None


class QueuedJobs:
    """Runs in a queue that `run_local` or `run_inline` computes."""

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
        """True if a run was dropped."""
        return name in self._dropped

    def fates(self, runs: Mapping[str, Run]) -> dict[str, Fate]:
        waiting = set(self.queue.open())
        found = {}
        for name in runs:
            fate = by_store(self._store, name, self._begins)
            if fate is not None and fate.word == "failed" and name in waiting:
                fate = None  # begun again: the failure is that of the earlier attempt
            found[name] = fate or Fate("open" if name in waiting else "gone")
        return found


class SlurmJobs:
    """Runs in Slurm jobs, one array element a run."""

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
        """Submit runs as far as Slurm's queue has room; the others stay gone, and are added again later.

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
            # Slurm does not answer, as when its controller restarts: try again later, but not for ever.
            self._full = time.monotonic()
            self._silent = self._silent or self._full
            if self._full - self._silent > PATIENCE_SECONDS:
                raise
            return
        self._asked, self._silent = -ASK_SECONDS, None
        if done.left:  # no more until jobs have had time to leave the queue
            self._full = time.monotonic()
        if done.refused:
            raise HarnessError(f"sbatch refused: {done.refused}")

    def drop(self, runs: Mapping[str, Run]) -> None:
        slurm.cancel(runs, self._store, study=self._study)
        self._asked = -ASK_SECONDS  # ask again at once

    def fates(self, runs: Mapping[str, Run]) -> dict[str, Fate]:
        # New runs are asked for at once, else nothing would be known of them.
        if time.monotonic() - self._asked >= ASK_SECONDS or set(runs) - self._looked:
            self._seen, self._looked, self._asked = overview(runs, self._store), set(runs), time.monotonic()
        assert self._seen is not None
        return {name: self._fate(name, self._seen) for name in runs}

    def _fate(self, name: str, seen: Overview) -> Fate:
        """State of a run from its files and from Slurm."""
        place = seen.places[name]
        live = place.word in ("running", "queued") or bool(place.job) or bool(seen.silent)
        fate = by_store(self._store, name, self._begins)
        # The files of a run that was submitted again still tell its earlier failure until it begins.
        if fate is not None and not (fate.word == "failed" and live and place.word != "running"):
            return fate
        if live:
            return Fate("open")
        broken = (place.word == "failed" and place.state.word != "failed") or (place.word == "missing" and place.detail)
        if broken and (begun := self._submitted(name)) >= self._begins:
            return Fate("failed", f"submitted {begun} times; {place.detail}")
        return Fate("gone", place.detail)

    def _submitted(self, name: str) -> int:
        """Number of submissions that included a run."""
        return sum(name in entry.places for entry in Submissions(self._store.root).entries())
