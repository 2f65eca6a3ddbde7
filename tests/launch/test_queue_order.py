"""The queue against the same rules written plainly, in any order of events; its work grows with its runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_runs import by_key, finetuning, occluding, pretraining

from harness.launch import Event, Queue
from harness.spec import Run, key, upstream, upstreams
from harness.store import Store

STARTS = [pretraining(seed=seed) for seed in range(3)]
TUNED = [finetuning(start, seed=seed) for start in STARTS for seed in range(2)]
SEEN = [occluding(run, seed=seed) for run in TUNED[:4] for seed in range(2)]
RUNS = by_key(*SEEN[:3], *STARTS, *TUNED, *SEEN[3:])
NAMES = list(RUNS)


class Plain:
    """What is ready and what is blocked, looked up among all runs each time."""

    def __init__(self, runs: dict[str, Run]) -> None:
        self.waiting: dict[str, Run] = {}
        self.taken: set[str] = set()
        self.endings: dict[str, str] = {}
        self.add(runs)

    def add(self, runs: dict[str, Run]) -> None:
        for name in [name for name in runs if name not in self.waiting]:
            self.waiting[name] = runs[name]
            self.taken.discard(name)
            self.endings.pop(name, None)

    def before(self, name: str) -> str | None:
        first = upstream(self.waiting[name])
        return None if first is None else self.endings.get(key(first), "open")

    def take(self) -> str | None:
        ready = [name for name in self.waiting if name not in self.taken and self.before(name) in (None, "done")]
        ready.sort(key=lambda name: -len(upstreams(self.waiting[name])))
        self.taken.update(ready[:1])
        return ready[0] if ready else None

    def blocked(self) -> list[tuple[str, str]]:
        found = []
        for name in sorted(self.waiting, key=lambda name: len(upstreams(self.waiting[name]))):
            if (before := self.before(name)) in ("failed", "blocked", "interrupted"):
                ending = "interrupted" if before == "interrupted" else "blocked"
                self.close(name, ending)
                found.append((ending, name))
        return found

    def close(self, name: str, ending: str) -> None:
        del self.waiting[name]
        self.endings[name] = ending


def with_starts(name: str) -> dict[str, Run]:
    return by_key(*upstreams(RUNS[name]), RUNS[name])


actions = st.lists(
    st.tuples(st.sampled_from(["take", "done", "failed", "interrupted", "add", "look"]), st.integers(0, 99)),
    max_size=60,
)


@given(actions)
@settings(max_examples=200, deadline=None)
def test_as_the_rules_written_plainly(done: list[tuple[str, int]]) -> None:
    queue, plain = Queue(RUNS, Store(Path("/nowhere"))), Plain(RUNS)
    working: list[str] = []
    for what, number in done:
        if what == "take":
            name = queue.take()
            assert name == plain.take()
            working += [name] if name else []
        elif what == "add":
            again = with_starts(NAMES[number % len(NAMES)])
            finished = {name for name, ending in plain.endings.items() if ending == "done"}
            chosen = {name: run for name, run in again.items() if name not in finished}
            queue.add(chosen)
            plain.add(chosen)
        elif what == "look":
            assert [(event.kind, event.name) for event in queue.blocked()] == plain.blocked()
        elif working:
            name = working.pop(number % len(working))
            told = queue.end(Event(what, name))  # type: ignore[arg-type]
            plain.close(name, what)
            assert [(event.kind, event.name) for event in told] == plain.blocked()
        assert queue.open() == list(plain.waiting)
        assert queue.endings == plain.endings
        assert queue.idle() == [name for name in plain.waiting if name not in plain.taken]


def calls(act: Callable[[], object]) -> int:
    """Number of functions that are called, those written in C included."""
    count = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(None)
    return count


def drained(evaluations: int) -> int:
    stated: list[Run] = []
    for start in STARTS:
        stated += [start, *(finetuning(start, seed=n) for n in range(evaluations))]
    runs = by_key(*stated)

    def act() -> None:
        queue = Queue(runs, Store(Path("/nowhere")))
        while (name := queue.take()) is not None:
            queue.look_elsewhere()
            queue.blocked()
            queue.end(Event("failed" if name == key(STARTS[1]) else "done", name))
        assert not len(queue)

    return calls(act)


def test_four_times_the_runs_are_four_times_the_work() -> None:
    drained(3)
    assert drained(80) < 5 * drained(20)
