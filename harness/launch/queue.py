"""Queue of a study's runs for executors that compute them directly: runs that are due, their order, their endings."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from harness.spec import Run, key, snapshot_epoch, upstream, upstreams
from harness.store import StateName, Store
from harness.store.snapshots import ask_for_snapshot, snapshot_of

Ending = Literal["done", "failed", "blocked", "elsewhere", "interrupted"]


@dataclass(frozen=True)
class Event:
    """Message about a run from the process that computes it.

    kind: `started`; `line` (a metrics line was written); or its ending: done, failed (text: last line of the error),
        blocked (a run it starts from failed), elsewhere (another process owns it), interrupted (a checkpoint is saved;
        it can go on later).
    """

    kind: Literal["started", "line"] | Ending
    name: str
    text: str = ""
    line: dict[str, Any] = field(default_factory=dict)


class Queue:
    """Unfinished runs, each given out after the run it starts from.

    A pre-training is computed only while one of its evaluations is unfinished. A finished run whose weights were
    deleted is computed again if an unfinished run starts from it.

    Args:
        retry: also take runs that failed.
        reading: leave the store as it is.
    """

    def __init__(self, runs: Mapping[str, Run], store: Store, *, retry: bool = False, reading: bool = False) -> None:
        self._runs, self._store, self.retry = dict(runs), store, retry
        self.endings: dict[str, Ending] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._taken: set[str] = set()
        self._elsewhere: set[str] = set()
        self._behind: dict[str, list[str]] = {}  # by key of a run, keys of all that ever waited for it
        self._ready: list[tuple[int, int, str]] = []  # a heap, with outdated entries, which `take` skips
        self._ended_badly: dict[str, None] = {}  # failed or interrupted, before `blocked` passed it on
        self._counted = 0
        self._look(runs, reading=reading)
        self._look_before()

    def add(self, runs: Mapping[str, Run]) -> None:
        """Add runs, or add again some that were interrupted or failed; waiting and running ones are not touched.

        Unfinished runs that an added one starts from must be added with it.
        """
        fresh = {name: run for name, run in runs.items() if name not in self._waiting}
        self._runs |= fresh
        for name in fresh:
            self.endings.pop(name, None)
            self._taken.discard(name)
        self._look(fresh)
        self._look_before()

    def _look(self, runs: Mapping[str, Run], *, reading: bool = False) -> None:
        """Split runs into waiting and ended ones by their states in the store."""
        states = self._store.states(runs)
        words, gone = _needed(runs, self._store, {name: state.word for name, state in states.items()})
        if not reading:
            for name in gone:
                self._store.put_result_aside(name)
            _ask_for_snapshots(self._store, (run for name, run in runs.items() if words[name] != "done"))
        for name, run in runs.items():
            if words[name] == "done":
                self._end(name, "done")
            elif words[name] == "failed" and not self.retry:
                self._end(name, "failed")
            else:
                self._wait(name, run)

    def _wait(self, name: str, run: Run) -> None:
        first = _awaited(self._store, run)
        self._counted += 1
        self._waiting[name] = _Waiting(first, len(upstreams(run)), self._counted)
        if first is not None:
            self._behind.setdefault(first, []).append(name)
            if self.endings.get(first, "done") != "done":
                self._ended_badly[first] = None
        self._offer(name)

    def _look_before(self) -> None:
        """Record the state of upstream runs that are not in this queue."""
        for first in {waits.first for waits in self._waiting.values() if waits.first and waits.first not in self._runs}:
            self._end(first, _ending_elsewhere(self._store, first))

    def __len__(self) -> int:
        """Number of runs that have not ended."""
        return len(self._waiting)

    def run(self, name: str) -> Run:
        """The spec of a run."""
        return self._runs[name]

    def take(self) -> str | None:
        """Key of the next run whose upstream is done, None if none is. Evaluations first, so that tables fill early."""
        while self._ready:
            name = heapq.heappop(self._ready)[2]
            if self._can_start(name):
                self._taken.add(name)
                return name
        return None

    def _can_start(self, name: str) -> bool:
        if name in self._taken or (waits := self._waiting.get(name)) is None:
            return False
        return waits.first is None or self.endings.get(waits.first) == "done"

    def _offer(self, name: str) -> None:
        if self._can_start(name):
            waits = self._waiting[name]
            heapq.heappush(self._ready, (-waits.depth, waits.number, name))

    def end(self, event: Event) -> list[Event]:
        """Record the ending of a taken run; returns the endings that follow for runs that wait for it."""
        if event.kind == "elsewhere":
            self._elsewhere.add(event.name)
            return []
        if event.kind == "started" or event.kind == "line":
            return []
        self._close(event.name, event.kind)
        return self.blocked()

    def blocked(self) -> list[Event]:
        """End all runs that start, directly or not, from one that failed or was interrupted."""
        events = []
        told = [item for first in self._ended_badly for item in self._told(first)]
        self._ended_badly.clear()
        heapq.heapify(told)  # upstream runs first, so that an ending is passed down a whole chain in one call
        while told:
            *_, name, first = heapq.heappop(told)
            if name not in self._waiting:
                continue
            match self.endings.get(first):
                case "failed" | "blocked" as ending:
                    self._close(name, "blocked")
                    what = "failed" if ending == "failed" else "is blocked"
                    events.append(Event("blocked", name, f"waits for {first}, which {what}"))
                case "interrupted":
                    self._close(name, "interrupted")
                    events.append(Event("interrupted", name, f"waits for {first}, which is not done"))
                case _:  # it was added again
                    continue
            for item in self._told(name):
                heapq.heappush(told, item)
        self._ended_badly.clear()
        return events

    def _told(self, first: str) -> Iterator[tuple[int, int, str, str]]:
        """The runs that wait for one: depth, number and key, by which a heap sorts them, and the key of that one."""
        for name in self._behind.get(first, ()):
            waits = self._waiting.get(name)
            if waits is not None and waits.first == first:
                yield waits.depth, waits.number, name, first

    def look_elsewhere(self) -> list[Event]:
        """Check runs that other processes own: they end as they did there, or can be taken again if the owner died."""
        events = []
        for name in sorted(self._elsewhere):
            state = self._store.state(name)
            if state.word in ("done", "failed"):
                self._elsewhere.discard(name)
                ended = Event("done" if state.word == "done" else "failed", name, last_line(state.error))
                events += [ended, *self.end(ended)]
            elif state.word != "running":
                self._elsewhere.discard(name)
                self._taken.discard(name)
                self._offer(name)
        return events

    def interrupt(self, names: Iterable[str]) -> None:
        """End runs as interrupted."""
        for name in names:
            self._close(name, "interrupted")

    def idle(self) -> list[str]:
        """Keys of waiting runs that nobody has taken."""
        return [name for name in self._waiting if name not in self._taken]

    def open(self) -> list[str]:
        """Keys of all runs that have not ended."""
        return list(self._waiting)

    def _close(self, name: str, ending: Ending) -> None:
        self._waiting.pop(name, None)
        self._end(name, ending)

    def _end(self, name: str, ending: Ending) -> None:
        self.endings[name] = ending
        if ending == "done":
            for behind in self._behind.get(name, ()):
                self._offer(behind)
        else:
            self._ended_badly[name] = None


class _Waiting(NamedTuple):
    """A run that has not ended.

    first: key of the run that must end before it, None if there is none. depth: number of runs that it starts from,
    directly or not. number: place in the order in which runs were added.
    """

    first: str | None
    depth: int
    number: int


def _needed(
    runs: Mapping[str, Run], store: Store, words: dict[str, StateName]
) -> tuple[dict[str, StateName], list[str]]:
    """States as this queue counts them, and keys of done runs whose deleted weights are needed again (now `missing`).

    An unfinished pre-training counts as done if every run that starts from it is done.
    """
    words, gone = dict(words), []
    serving: set[str | None] = set()
    needed: set[str | None] = set()
    lacking: set[str | None] = set()
    held: dict[tuple[str | None, int | None], bool] = {}
    for name in sorted(runs, key=lambda name: -len(upstreams(runs[name]))):  # what starts from a run before the run
        run = runs[name]
        if words[name] == "done" and name in lacking:
            words[name] = "missing"
            gone.append(name)
        elif run.kind == "pretrain" and name in serving and name not in needed:
            words[name] = "done"
        first = upstream_key(run)
        serving.add(first)
        if words[name] != "done":
            needed.add(first)
            place = (first, snapshot_epoch(run))
            if place not in held:
                held[place] = has_start(store, run)
            if not held[place]:
                lacking.add(first)
    return words, gone


def has_start(store: Store, run: Run) -> bool:
    """True if the store holds the weights that a run starts from, or if it starts from none."""
    first, epoch = upstream(run), snapshot_epoch(run)
    if first is None:
        return True
    return (store.weights(key(first)) if epoch is None else snapshot_of(store, key(first), epoch)) is not None


def _ask_for_snapshots(store: Store, runs: Iterable[Run]) -> None:
    for run in runs:
        first, epoch = upstream(run), snapshot_epoch(run)
        if first is not None and epoch is not None:
            ask_for_snapshot(store, store.register(first), epoch)


def _awaited(store: Store, run: Run) -> str | None:
    """Key of the run that must end before a run can start, None if there is none or its snapshot is in the store."""
    return None if snapshot_epoch(run) is not None and has_start(store, run) else upstream_key(run)


def _ending_elsewhere(store: Store, name: str) -> Ending:
    """Ending of an upstream run outside this queue, as it counts for the runs that start from it."""
    if store.weights(name) is not None:
        return "done"
    return "failed" if store.state(name).word == "failed" else "interrupted"


def last_line(text: str) -> str:
    """The last line of a traceback that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def upstream_key(run: Run) -> str | None:
    """Key of the run that a run starts from, None if there is none."""
    first = upstream(run)
    return None if first is None else key(first)
