"""Processes that are killed, or stopped past a takeover: what comes out is equal bit for bit to an undisturbed run."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_runs import compute, detection, finetuning, outcome, pretraining

from harness.spec import Pretrain, Run, key
from harness.store import Store

KILLS = 20
PATIENCE = 60.0
# Long enough to be at work after all kills on a machine where each comes some epochs late.
FIRST = pretraining(epochs=200)
START = pretraining(epochs=2)
TUNED = finetuning(START, epochs=200)
FOUND = detection(START, epochs=90)
SHORT = pretraining(epochs=40, seed=1)


class Nursery:
    """Starts processes that compute a store's runs."""

    def __init__(self, limit: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("nursery.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "HARNESS_HEARTBEAT_LIMIT": limit},
        )
        assert self._read() == "ready"

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def start(self, store: Store) -> Child:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{store.root}\n")
        self._process.stdin.flush()
        return Child(int(self._read()))

    def end(self) -> None:
        self._process.communicate()


class Child:
    """One of them."""

    def __init__(self, pid: int) -> None:
        self.pid, self._descriptor = pid, os.pidfd_open(pid)

    def send(self, number: signal.Signals) -> None:
        signal.pidfd_send_signal(self._descriptor, number)

    def ended(self, seconds: float = PATIENCE) -> bool:
        return bool(select.select([self._descriptor], [], [], seconds)[0])


@pytest.fixture
def nursery(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nursery]:
    limit = getattr(request, "param", "120")
    monkeypatch.setenv("HARNESS_HEARTBEAT_LIMIT", limit)
    found = Nursery(limit)
    yield found
    found.end()


def undisturbed(folder: Path, run: Run) -> Store:
    """A store in which nothing killed a run."""
    store = Store(folder / "undisturbed")
    runs = (run,) if isinstance(run, Pretrain) else (START, run)
    assert {event.kind for event in compute(store, *runs)} == {"done"}
    return store


def wait_for_lines(store: Store, run: Run, attempts: int, lines: int, child: Child) -> None:
    """Until the attempt of this number has logged so many lines."""
    path = store.folder(key(run)).attempt(attempts).metrics
    deadline = time.monotonic() + PATIENCE
    while not path.exists() or path.read_bytes().count(b"\n") < lines:
        assert time.monotonic() < deadline
        assert not child.ended(0.001), "ended too early"


@pytest.mark.slow
@pytest.mark.parametrize("run", [FIRST, TUNED, FOUND], ids=["pretrain", "finetune", "detect"])
def test_many_kills_change_nothing(tmp_path: Path, nursery: Nursery, run: Run) -> None:
    draw, store = random.Random(run.kind), Store(tmp_path / "runs")
    if run is not FIRST:
        compute(store, START)
    name = store.register(run)
    logged = begun = 0
    for _kill in range(KILLS):
        attempts = len(store.folder(name).attempts())
        child = nursery.start(store)
        if more := draw.randrange(4):  # 0: somewhere between the start and the first lines
            wait_for_lines(store, run, attempts + 1, logged + more, child)
            begun += 1
            time.sleep(draw.uniform(0.0, 0.02))  # an epoch of four steps and its checkpoint take about as long
        else:
            time.sleep(draw.uniform(0.0, 0.2))
        child.send(signal.SIGKILL)
        assert child.ended()
        assert store.state(name).word in ("interrupted", "missing")
        logged = len(store.metrics(name))
    last = nursery.start(store)
    assert last.ended()
    assert outcome(store, name) == outcome(undisturbed(tmp_path, run), name)
    result = store.result(name)
    assert result is not None
    assert begun < result.attempt <= KILLS + 1
    assert begun > KILLS / 2
    assert list(store.folder(name).path.rglob("*.pt")) == []


@pytest.mark.slow
@pytest.mark.parametrize("nursery", ["1"], indirect=True)
def test_an_owner_that_wakes_up_after_a_takeover_writes_nothing(tmp_path: Path, nursery: Nursery) -> None:
    draw = random.Random(0)
    name = key(SHORT)
    whole = undisturbed(tmp_path, SHORT)
    for attempt in range(3):
        store = Store(tmp_path / str(attempt))
        store.register(SHORT)
        loser = nursery.start(store)
        wait_for_lines(store, SHORT, 1, draw.randrange(1, 10), loser)
        loser.send(signal.SIGSTOP)
        successor = nursery.start(store)
        if attempt == 0:  # the loser wakes up while its successor works
            wait_for_lines(store, SHORT, 2, 15, successor)
            successor.send(signal.SIGSTOP)
        else:
            assert successor.ended()
        before = contents(store, name)
        loser.send(signal.SIGCONT)
        if attempt == 0:
            deadline = time.monotonic() + PATIENCE
            while store.folder(name).attempt(1).heartbeat.exists():
                assert time.monotonic() < deadline
            assert contents(store, name) == before
            successor.send(signal.SIGCONT)
            assert successor.ended()
        assert loser.ended()
        if attempt:
            assert contents(store, name) == before
        assert outcome(store, name) == outcome(whole, name)
        result = store.result(name)
        assert result is not None
        assert result.attempt == 2
        assert len(store.folder(name).attempts()) == 2


def contents(store: Store, name: str) -> dict[str, bytes]:
    """All files of a run but for heartbeats, and the half-written ones of a process that stands still."""
    return {
        str(path.relative_to(store.root)): path.read_bytes()
        for path in store.folder(name).path.rglob("*")
        if path.is_file() and path.name != "heartbeat" and path.suffix != ".tmp"
    }


def test_two_processes_on_one_study_compute_nothing_twice(tmp_path: Path, nursery: Nursery) -> None:
    store = Store(tmp_path / "runs")
    firsts = [pretraining(epochs=2, seed=seed) for seed in range(3)]
    runs: list[Run] = [*firsts, *(finetuning(first, epochs=2) for first in firsts)]
    for run in runs:
        store.register(run)
    children = [nursery.start(store) for _ in range(2)]
    for child in children:
        assert child.ended()
    for run in runs:
        assert store.state(key(run)).word == "done"
        assert [attempt.number for attempt in store.folder(key(run)).attempts()] == [1]
    alone = Store(tmp_path / "alone")
    compute(alone, *runs)
    for run in runs:
        assert outcome(store, key(run)) == outcome(alone, key(run))
