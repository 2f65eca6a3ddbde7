"""What is computed, in which order, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_runs import by_key, finetuning, pretraining

from harness.launch import Event, Queue
from harness.spec import Run, key
from harness.store import Attempt, Store

FIRST, OTHER = pretraining(seed=0), pretraining(seed=1)
TUNED, AGAIN = finetuning(FIRST, seed=0), finetuning(FIRST, seed=1)
RUNS = by_key(FIRST, OTHER, TUNED, AGAIN)
F, P, T, A = RUNS


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def owned(store: Store, run: Run) -> Attempt:
    attempt = store.acquire(run, retry=True)
    assert isinstance(attempt, Attempt)
    return attempt


def finish(store: Store, run: Run) -> None:
    attempt = owned(store, run)
    attempt.finish({"loss": 1.0}, 1.0, b"weights")
    attempt.release()


def fail(store: Store, run: Run) -> None:
    attempt = owned(store, run)
    attempt.fail("Traceback\n  line\nValueError: no\n")
    attempt.release()


def test_evaluations_wait_and_then_go_first(store: Store) -> None:
    queue = Queue(RUNS, store)
    assert len(queue) == 4
    assert queue.take() == F
    assert queue.end(Event("started", F)) == queue.end(Event("line", F)) == []
    assert queue.end(Event("done", F)) == []
    assert [queue.take(), queue.take(), queue.take(), queue.take()] == [T, A, P, None]
    for name in (T, A, P):
        assert len(queue)
        queue.end(Event("done", name))
    assert len(queue) == 0
    assert queue.endings == dict.fromkeys(RUNS, "done")


def test_what_is_done_is_not_computed(store: Store) -> None:
    for run in (FIRST, TUNED):
        finish(store, run)
    queue = Queue(RUNS, store)
    assert queue.endings == {F: "done", T: "done"}
    assert sorted([queue.take() or "", queue.take() or ""]) == sorted([P, A])


@pytest.mark.parametrize("already", [False, True])
def test_what_waits_for_a_failure_is_blocked(store: Store, already: bool) -> None:
    if already:
        fail(store, FIRST)
    queue = Queue(RUNS, store)
    events = queue.blocked() if already else queue.end(Event("failed", queue.take() or ""))
    assert [(event.kind, event.name) for event in events] == [("blocked", T), ("blocked", A)]
    assert all(F in event.text for event in events)
    assert queue.endings == {F: "failed", T: "blocked", A: "blocked"}
    assert queue.open() == [P]
    assert queue.blocked() == []


def test_retry_takes_what_failed(store: Store) -> None:
    fail(store, FIRST)
    assert Queue(RUNS, store).take() == P
    queue = Queue(RUNS, store, retry=True)
    assert queue.take() == F
    assert len(queue) == 4


def test_weights_that_were_cleaned_away_are_made_again_if_needed(store: Store) -> None:
    for run in (FIRST, OTHER, TUNED):
        finish(store, run)
    for name in (F, P):
        weights = store.weights(name)
        assert weights is not None
        weights.unlink()
    queue = Queue(RUNS, store)
    assert queue.endings == {P: "done", T: "done"}
    assert queue.take() == F
    assert queue.take() is None
    assert store.result(F) is None


def test_a_pretraining_that_no_evaluation_waits_for_is_not_computed(store: Store) -> None:
    for run in (TUNED, AGAIN):
        finish(store, run)
    queue = Queue(RUNS, store)
    assert queue.take() == P  # nothing evaluates this one, so it is wanted for itself
    assert queue.take() is None
    assert queue.open() == [P]


def test_runs_of_other_processes_are_looked_after(store: Store) -> None:
    first, other = owned(store, FIRST), owned(store, OTHER)
    queue = Queue(RUNS, store)
    assert [queue.take(), queue.take()] == [F, P]
    assert queue.end(Event("elsewhere", F)) == queue.end(Event("elsewhere", P)) == []
    assert queue.look_elsewhere() == []
    assert queue.take() is None
    first.finish({"loss": 1.0}, 1.0, b"weights")
    first.release()
    assert queue.look_elsewhere() == [Event("done", F)]
    assert queue.take() == T
    other.release()  # gone without a result
    assert queue.look_elsewhere() == []
    assert [queue.take(), queue.take()] == [A, P]
    assert len(queue) == 3


def test_failures_of_other_processes_block(store: Store) -> None:
    attempt = owned(store, FIRST)
    queue = Queue(RUNS, store)
    queue.take()
    queue.end(Event("elsewhere", F))
    attempt.fail("Traceback\n  line\nValueError: no\n")
    attempt.release()
    events = queue.look_elsewhere()
    assert [(event.kind, event.name) for event in events] == [("failed", F), ("blocked", T), ("blocked", A)]
    assert events[0].text == "ValueError: no"


def test_what_waits_for_an_interrupted_run_does_not_wait_for_ever(store: Store) -> None:
    queue = Queue(RUNS, store)
    events = queue.end(Event("interrupted", queue.take() or ""))
    assert [(event.kind, event.name) for event in events] == [("interrupted", T), ("interrupted", A)]
    assert queue.open() == [P]


def test_interrupting_ends_what_is_open(store: Store) -> None:
    finish(store, FIRST)
    queue = Queue(RUNS, store)
    queue.interrupt(queue.open())
    assert len(queue) == 0
    assert queue.endings == {F: "done", P: "interrupted", T: "interrupted", A: "interrupted"}


def test_keys_are_as_the_tests_name_them() -> None:
    assert [key(run) for run in (FIRST, OTHER, TUNED, AGAIN)] == [F, P, T, A]
