"""Snapshots of a pre-training: written where they were asked for, and nothing else changes for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_runs import OFTEN, by_key, compute, outcome, pretraining

from harness.core.weights.checkpoint import read_weights
from harness.launch import Event, Inline, Queue, drive
from harness.launch.job import work
from harness.spec import HarnessError, Knn, Snapshot, key, run_from_json, upstream
from harness.store import Attempt, Store
from harness.store.cleaning import removable
from harness.store.snapshots import ask_for_snapshot, snapshot_of, whole_snapshot

FIRST = pretraining(epochs=4)


def knn(epoch: int) -> Knn:
    return Knn(start=Snapshot(pretrain=FIRST, epoch=epoch), k=5)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def test_a_snapshot_is_a_start_with_the_data_and_size_of_its_pretraining() -> None:
    import json

    run = knn(2)
    assert upstream(run) == FIRST
    assert (run.data, run.image_size) == (FIRST.data, FIRST.image_size)
    assert run_from_json(json.dumps(run.to_plain())) == run
    assert len({key(knn(epoch)) for epoch in (1, 2, 3)} | {key(Knn(start=FIRST, k=5))}) == 4
    with pytest.raises(ValueError, match="epoch 5 lies beyond the pre-training; valid: 1 to 4"):
        knn(5)


def test_what_was_asked_for_is_written_and_changes_nothing_else(store: Store, tmp_path: Path) -> None:
    plain = Store(tmp_path / "plain")
    compute(plain, FIRST)
    name = store.register(FIRST)
    for epoch in (2, 4):
        ask_for_snapshot(store, name, epoch)
    compute(store, FIRST)
    assert outcome(store, name) == outcome(plain, name)
    assert [snapshot_of(store, name, epoch) is not None for epoch in (1, 2, 3, 4)] == [False, True, False, True]
    weights = store.weights(name)
    assert weights is not None
    last, end = read_weights(whole_snapshot(store, name, 4)), read_weights(weights)
    assert set(last) == set(end)
    assert all(torch.equal(last[tensor], end[tensor]) for tensor in end)
    middle = read_weights(whole_snapshot(store, name, 2))
    assert not all(torch.equal(middle[tensor], end[tensor]) for tensor in end)
    compute(store, knn(4), Knn(start=FIRST, k=5), knn(2))
    results = [store.result(key(run)) for run in (knn(4), Knn(start=FIRST, k=5), knn(2))]
    assert results[0] is not None
    assert results[1] is not None
    assert results[0].metrics == results[1].metrics
    assert results[2] is not None
    assert {item.what for item in removable(store, by_key(FIRST), weights=True)} >= {"weights"}
    assert sum("snapshot-" in item.path.name for item in removable(store, by_key(FIRST), weights=True)) == 2
    assert not any("snapshot-" in item.path.name for item in removable(store, by_key(FIRST)))


def test_after_an_interruption_the_snapshot_is_that_of_an_undisturbed_run(store: Store, tmp_path: Path) -> None:
    whole = Store(tmp_path / "whole")
    for place in (store, whole):
        ask_for_snapshot(place, place.register(FIRST), 3)
    compute(whole, FIRST)
    seen: list[Event] = []
    ended = work(
        store,
        FIRST,
        torch.device("cpu"),
        OFTEN,
        report=seen.append,
        stopping=lambda: sum(event.kind == "line" for event in seen) >= 2,
    )
    assert ended.kind == "interrupted"
    assert snapshot_of(store, key(FIRST), 3) is None
    compute(store, FIRST)
    left, right = whole_snapshot(store, key(FIRST), 3), whole_snapshot(whole, key(FIRST), 3)
    assert left.name == right.name


def test_a_damaged_snapshot_is_refused(store: Store) -> None:
    ask_for_snapshot(store, store.register(FIRST), 1)
    compute(store, FIRST)
    path = whole_snapshot(store, key(FIRST), 1)
    path.write_bytes(path.read_bytes()[:-1])
    [ended] = compute(store, knn(1))
    assert ended.kind == "failed"
    assert "is damaged; delete it and run again" in ended.text
    with pytest.raises(HarnessError, match="has no snapshot after epoch 2"):
        whole_snapshot(store, key(FIRST), 2)


def test_a_queue_asks_for_snapshots_and_does_not_wait_longer_than_for_them(store: Store) -> None:
    runs = by_key(FIRST, knn(2))
    inline = Inline(store, OFTEN)
    inline.submit(runs)
    drive(inline)
    assert set(inline.queue.endings.values()) == {"done"}

    other = Store(store.root.with_name("other"))
    waiting = Queue(runs, other)
    assert waiting.take() == key(FIRST)
    assert waiting.take() is None
    attempt = other.acquire(FIRST)
    assert isinstance(attempt, Attempt)
    attempt.write_snapshot(2, b"weights")
    early = Queue({}, other)
    early.add(by_key(knn(2)))
    assert early.take() == key(knn(2))  # though the pre-training is still at work


def test_a_done_pretraining_without_the_snapshot_is_computed_again(store: Store) -> None:
    compute(store, FIRST)
    assert Queue(by_key(FIRST, Knn(start=FIRST, k=5)), store).open() == [key(Knn(start=FIRST, k=5))]
    queue = Queue(by_key(FIRST, knn(2)), store)
    assert set(queue.open()) == {key(FIRST), key(knn(2))}


def test_runs_are_added_to_a_queue_at_work(store: Store) -> None:
    second = pretraining(epochs=1, seed=1)
    queue = Queue({}, store)
    assert queue.take() is None
    queue.add(by_key(FIRST))
    assert queue.take() == key(FIRST)
    queue.add(by_key(FIRST, second))
    assert queue.take() == key(second)
    assert queue.take() is None
    queue.end(Event("interrupted", key(FIRST)))
    queue.add(by_key(FIRST, Knn(start=FIRST, k=5)))
    assert queue.take() == key(FIRST)
    assert len(queue) == 3
