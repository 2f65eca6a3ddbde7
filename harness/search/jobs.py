"""The runs of a search on an executor: how often a run may die, and how long a cluster may be silent."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from harness.launch.executor import Executor, Here, Overview, Place
from harness.launch.local.pool import DEATH
from harness.launch.queue import last_line
from harness.spec import HarnessError, Run
from harness.store import Store

ASK_SECONDS = 15.0
"""Interval at which a cluster is asked for dead jobs. Results are read from the store and need no question."""

PATIENCE_SECONDS = 600.0
"""Time without an answer from a cluster, whose controller may be restarting, after which a search gives up."""


class Jobs:
    """Runs that a search gives to an executor.

    Args:
        begins: number of deaths of its process, or of submissions without a result, after which a run counts as failed.
    """

    def __init__(self, executor: Executor, store: Store, begins: int) -> None:
        self._executor, self._store, self._begins = executor, store, begins
        # An executor in this process knows its runs at any moment; a cluster is asked at intervals.
        self._here = isinstance(executor, Here)
        self._seen = Overview()
        self._asked = self._full = -ASK_SECONDS
        self._silent: float | None = None

    def add(self, runs: Mapping[str, Run]) -> None:
        """Submit runs as far as the queue has room; the others stay as they are, and are added again later.

        Raises:
            HarnessError: the cluster refuses, or has not answered for PATIENCE_SECONDS.
        """
        if time.monotonic() - self._full < ASK_SECONDS:
            return
        try:
            done = self._executor.submit(runs, retry=True)
        except HarnessError:
            # The cluster does not answer, as when its controller restarts: try again later, but not for ever.
            self._full = time.monotonic()
            self._silent = self._silent or self._full
            if self._here or self._full - self._silent > PATIENCE_SECONDS:
                raise
            return
        # What was just submitted is unknown to the last answer, so ask again at once.
        self._asked, self._silent = -ASK_SECONDS, None
        if done.left:  # no more until jobs have had time to leave the queue
            self._full = time.monotonic()
        if done.refused:
            raise HarnessError(f"sbatch refused: {done.refused}")

    def drop(self, runs: Mapping[str, Run]) -> None:
        """Stop runs, or remove them from the queue."""
        self._executor.cancel(runs)
        self._asked = -ASK_SECONDS  # ask again at once

    def states(self, runs: Mapping[str, Run]) -> dict[str, Place]:
        """States as a search counts them: done, queued (or at work), failed for good, interrupted (added again)."""
        # New runs are asked for at once, else nothing would be known of them.
        stale = time.monotonic() - self._asked >= ASK_SECONDS or self._here
        if stale or set(runs) - set(self._seen.places):
            self._seen, self._asked = self._executor.states(runs), time.monotonic()
        states = self._store.states(runs)
        return {name: self._judged(name, replace(self._seen.places[name], state=states[name])) for name in runs}

    def _judged(self, name: str, place: Place) -> Place:
        """Place of a run with the word that a search acts on: done, queued, failed or interrupted."""
        live = place.word in ("running", "queued") or bool(place.job) or bool(self._seen.silent)
        state = place.state
        if state.word == "done":
            return replace(place, word="done")
        # The files of a run that was submitted again still tell its earlier failure until it begins.
        if state.word == "failed" and not (live and place.word != "running"):
            deaths = sum(attempt.error.exists() for attempt in self._store.folder(name).attempts())
            # An error of the run itself comes again; a killed process may succeed the next time.
            if not state.error.startswith(DEATH):
                return replace(place, word="failed", detail=last_line(state.error))
            if deaths >= self._begins:
                return replace(place, word="failed", detail=f"{deaths} times {last_line(state.error)}")
        if live:
            return replace(place, word="queued")
        # A job that ended without a word of its run, or was never heard of: submitted again, but not for ever.
        broken = (place.word == "failed" and state.word != "failed") or (place.word == "missing" and place.detail)
        if broken and place.submissions >= self._begins:
            return replace(place, word="failed", detail=f"submitted {place.submissions} times; {place.detail}")
        return replace(place, word="interrupted")
