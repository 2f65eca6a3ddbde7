"""Specs, results and states: what is torn counts as absent, and looking changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_runs import finetuning, finish, owned, pretraining, save, snapshot, steps

from harness.spec import HarnessError, key
from harness.store import Result, State, Store
from harness.store.cleaning import left_by_kills, removable, remove
from harness.store.files import read_lines, size_below

RUN = pretraining()
NAME = key(RUN)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def test_a_registered_spec_reads_back(store: Store) -> None:
    evaluation = finetuning(RUN)
    for run in (RUN, evaluation):
        assert store.register(run) == key(run)
        assert store.register(run) == key(run)
        assert store.spec(key(run)) == run
    assert store.keys() == sorted([NAME, key(evaluation)])


def test_registering_twice_writes_once(store: Store) -> None:
    store.register(RUN)
    before = store.folder(NAME).spec.stat()
    store.register(RUN)
    after = store.folder(NAME).spec.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_many_are_registered_as_one_is(store: Store, tmp_path: Path) -> None:
    runs = [pretraining(seed=seed) for seed in range(100)]
    store.register(runs[7])
    store.register_all(runs)
    store.register_all(runs)
    assert store.keys() == sorted(map(key, runs))
    assert [store.spec(key(run)) for run in runs] == runs
    assert not [path for path in store.root.iterdir() if path.name.startswith(".")]
    store.folder(key(runs[50])).spec.write_text(store.folder(key(runs[51])).spec.read_text())
    with pytest.raises(HarnessError, match="another spec"):
        store.register_all(runs)


def test_a_folder_that_holds_another_spec_is_refused(store: Store) -> None:
    store.register(RUN)
    store.register(pretraining(seed=1))
    other = store.folder(key(pretraining(seed=1))).spec.read_text()
    store.folder(NAME).spec.write_text(other)
    for refused in (lambda: store.register(RUN), lambda: store.acquire(RUN), lambda: store.spec(NAME)):
        with pytest.raises(HarnessError, match="another spec") as raised:
            refused()
        assert "\n" not in str(raised.value)
    assert store.folder(NAME).spec.read_text() == other
    assert store.folder(NAME).attempts() == []


def test_a_run_whose_meaning_was_corrected_since_is_refused_with_the_reason(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.register(RUN)
    before = store.folder(NAME).spec.read_bytes()
    monkeypatch.setattr(type(RUN.mask), "revision", 9)
    with pytest.raises(HarnessError, match="a later version of harness corrected what it means") as told:
        store.spec(NAME)
    assert "move" not in str(told.value)
    assert store.folder(NAME).spec.read_bytes() == before


def test_a_torn_spec_is_written_again(store: Store) -> None:
    store.register(RUN)
    whole = store.folder(NAME).spec.read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole) - 3):
        store.folder(NAME).spec.write_bytes(whole[:length])
        with pytest.raises(HarnessError, match="missing or damaged"):
            store.spec(NAME)
        store.register(RUN)
        assert store.folder(NAME).spec.read_bytes() == whole


def test_a_result_cut_at_any_byte_is_absent(store: Store) -> None:
    finish(store, RUN)
    path = store.folder(NAME).result
    whole = path.read_bytes()

    assert store.result(NAME) == Result({"loss": 0.5}, 1, 1.5, hashlib.sha256(b"weights").hexdigest())
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert store.result(NAME) is None, length
        assert store.state(NAME).word == "interrupted"
    path.write_bytes(whole)
    assert store.state(NAME).word == "done"


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record | {"schema": 0},
        lambda record: record | {"key": "pretrain-of-somebody-else"},
        lambda record: record | {"metrics": {"loss": "low"}},
        lambda record: record | {"metrics": None},
        lambda record: {name: value for name, value in record.items() if name != "seconds"},
        lambda record: [record],
        lambda record: None,
    ],
)
def test_a_result_of_another_form_is_absent(store: Store, change: Callable[[Any], object]) -> None:
    finish(store, RUN)
    path = store.folder(NAME).result
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    assert store.result(NAME) is None


def test_a_damaged_result_is_put_aside_and_the_run_computed_again(store: Store) -> None:
    finish(store, RUN)
    store.folder(NAME).result.write_text("{")
    attempt = owned(store, RUN)
    assert attempt.files.number == 2
    attempt.finish({"loss": 0.25}, 1.0)
    attempt.release()
    assert store.state(NAME) == State("done", Result({"loss": 0.25}, 2, 1.0, ""), 2)
    assert [path.read_text() for path in store.folder(NAME).path.glob("result-put-aside-*")] == ["{"]


def test_putting_a_result_aside(store: Store) -> None:
    finish(store, RUN)
    store.put_result_aside(NAME)
    store.put_result_aside(NAME)
    assert store.state(NAME).word == "interrupted"
    assert len(list(store.folder(NAME).path.glob("result-put-aside-*"))) == 1


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = b'{"step": 1}\n{"step": 2}\n{"step": 33}\n'
    for length in range(24, len(whole) - 2):
        path.write_bytes(whole[:length])
        assert read_lines(path) == [{"step": 1}, {"step": 2}], length
    path.write_bytes(whole[:24] + b"\0\0\xff\xfe\n[1]\n7")
    assert read_lines(path) == [{"step": 1}, {"step": 2}]


def test_metrics_go_on_at_the_checkpoint(store: Store) -> None:
    first = owned(store, RUN)
    first.begin_metrics()
    save(first, 10)
    save(first, 20)
    held = first.lines()
    first.log({"step": 30})
    with first.files.metrics.open("a") as file:
        file.write('{"step": 4')
    first.release()
    second = owned(store, RUN)
    assert second.lines_before(next(second.checkpoints())) == held == [{"step": 10}, {"step": 20}]
    second.begin_metrics(held)
    second.log({"step": 30, "again": True})
    assert second.lines() == [{"step": 10}, {"step": 20}, {"step": 30, "again": True}]
    assert store.metrics(NAME) == second.lines()
    second.release()


def test_what_a_result_vouches_for_reaches_the_disk_before_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def record(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real(descriptor)

    attempt = owned(store, RUN)
    attempt.begin_metrics()
    attempt.log({"step": 1})
    attempt.artefact("curve.npz").write_bytes(b"curve")
    monkeypatch.setattr(os, "fsync", record)
    attempt.finish({"loss": 1.0}, 1.0)
    attempt.release()
    assert synced[:2] == ["curve.npz", "metrics.jsonl"]
    assert synced[2].startswith(".result.json.")
    assert synced[3] == NAME


def test_only_the_latest_two_checkpoints_are_kept(store: Store) -> None:
    first = owned(store, RUN)
    for step in (10, 20, 30, 40):
        save(first, step)
    assert steps(first) == [40, 30]
    first.release()
    second = owned(store, RUN)
    assert steps(second) == [40, 30]
    save(second, 50)
    assert steps(second) == [50, 40]
    assert len(list(store.folder(NAME).path.rglob("*.pt"))) == 2
    second.finish({"loss": 1.0}, 1.0)
    second.release()
    assert list(store.folder(NAME).path.rglob("*.pt")) == []


def test_a_damaged_checkpoint_gives_way_to_the_one_before(store: Store) -> None:
    draw = random.Random(0)
    attempt = owned(store, RUN)
    save(attempt, 10)
    data = save(attempt, 20)
    path = next(attempt.checkpoints()).path
    assert path.read_bytes() == data
    for _ in range(20):
        place = draw.randrange(len(data))
        path.write_bytes(data[:place])
        assert steps(attempt) == [10]
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :])
        assert steps(attempt) == [10]
    path.write_bytes(data)
    assert steps(attempt) == [20, 10]
    attempt.release()


def test_going_on_before_a_damaged_checkpoint_replaces_it(store: Store) -> None:
    first = owned(store, RUN)
    save(first, 10)
    save(first, 20)
    next(first.checkpoints()).path.write_bytes(b"torn")
    first.release()
    second = owned(store, RUN)
    save(second, 15)
    assert steps(second) == [15, 10]
    assert len(list(store.folder(NAME).path.rglob("*.pt"))) == 2
    second.release()


@pytest.mark.parametrize("name", ["checkpoint-best.pt", "checkpoint-a-b.pt", "checkpoint-000000050-.pt"])
def test_files_with_other_names_are_no_checkpoints(store: Store, name: str) -> None:
    attempt = owned(store, RUN)
    (attempt.files.path / name).write_bytes(b"mine")
    save(attempt, 10)
    assert steps(attempt) == [10]
    assert (attempt.files.path / name).exists()
    attempt.release()


def test_states_of_what_is_there_and_what_is_not(store: Store) -> None:
    missing, begun = pretraining(seed=1), pretraining(seed=2)
    assert store.states([NAME]) == {NAME: State("missing")}
    store.register(RUN)
    attempt = owned(store, begun)
    attempt.log({"step": 7})
    states = store.states([NAME, key(missing), key(begun)])
    assert {name: state.word for name, state in states.items()} == {
        NAME: "missing",
        key(missing): "missing",
        key(begun): "running",
    }
    assert states[key(begun)].progress == {"step": 7}
    attempt.release()
    assert (store.state(key(begun)).word, store.state(key(begun)).saved) == ("interrupted", 0)
    second = owned(store, begun)
    second.write_checkpoint(5, lambda file: file.write(b"state"))
    second.release()
    owned(store, begun).release()  # it stopped before it had saved anything of its own
    assert store.state(key(begun)).saved == 5


def test_reading_writes_nothing(store: Store) -> None:
    finish(store, RUN)
    attempts = [owned(store, pretraining(seed=seed)) for seed in (1, 2, 3)]
    attempts[0].fail("ValueError: no")
    attempts[0].release()
    attempts[1].release()
    before = snapshot(store.root)
    names = store.keys()
    words = [state.word for state in store.states([*names, "pretrain-none"]).values()]
    for name in names:
        store.spec(name), store.metrics(name), store.environment(name), store.size(name), store.weights(name)
    assert snapshot(store.root) == before
    assert sorted(words) == ["done", "failed", "interrupted", "missing", "running"]
    attempts[2].release()


def test_a_running_run_is_seen_on_a_read_only_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = owned(store, RUN)

    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "touch", refuse)
    assert store.state(NAME).word == "running"
    old = attempt.files.heartbeat.stat().st_mtime - 1000
    os.utime(attempt.files.heartbeat, (old, old))
    monkeypatch.setenv("HARNESS_HEARTBEAT_LIMIT", "999")
    assert store.state(NAME).word == "interrupted"
    attempt.release()


def test_a_read_only_mount_is_read_like_any_other(store: Store, tmp_path: Path) -> None:
    finish(store, RUN)
    attempt = owned(store, pretraining(seed=1))
    target = tmp_path / "mounted"
    target.mkdir()
    mounts = (["mount", "--bind", str(store.root), str(target)], ["mount", "-o", "remount,bind,ro", str(target)])
    for command in mounts:
        try:
            done = subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            done = False
        if not done:
            subprocess.run(["umount", str(target)], capture_output=True, check=False)
            attempt.release()
            pytest.skip("mounting is not permitted here")
    try:
        there = Store(target)
        words = {name: state.word for name, state in there.states(there.keys()).items()}
        assert words == {NAME: "done", attempt.key: "running"}
        with pytest.raises(HarnessError, match="Read-only file system"):
            there.acquire(pretraining(seed=2))
    finally:
        subprocess.run(["umount", str(target)], check=True)
        attempt.release()


def test_a_store_that_is_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    store = Store(tmp_path / "runs")
    with pytest.raises(HarnessError, match="Not a directory"):
        store.keys()
    with pytest.raises(HarnessError, match="cannot write"):
        store.register(RUN)


def test_weights_are_checked_before_they_are_used(store: Store) -> None:
    finish(store, RUN, weights=b"good")
    attempt = owned(store, finetuning(RUN))
    path = store.upstream_weights(NAME)
    assert path.read_bytes() == b"good"
    path.write_bytes(b"goob")
    with pytest.raises(HarnessError, match="damaged"):
        store.upstream_weights(NAME)
    path.unlink()
    with pytest.raises(HarnessError, match="has no weights"):
        store.upstream_weights(NAME)
    attempt.release()


def test_a_metric_that_is_not_finite_is_no_result(store: Store) -> None:
    attempt = owned(store, RUN)
    with pytest.raises(HarnessError, match="top1 is not a finite number"):
        attempt.finish({"loss": 1.0, "top1": float("nan")}, 1.0, b"weights")
    assert not store.folder(NAME).result.exists()
    assert not attempt.files.weights.exists()
    attempt.release()


@pytest.mark.parametrize("word", ["missing", "running", "failed", "interrupted", "done"])
def test_weights_go_only_when_all_that_starts_from_them_is_done(store: Store, word: str) -> None:
    evaluation = finetuning(RUN)
    finish(store, RUN)
    if word == "done":
        finish(store, evaluation)
    elif word != "missing":
        attempt = owned(store, evaluation)
        if word == "failed":
            attempt.fail("ValueError: no")
        if word != "running":
            attempt.release()
    assert store.state(key(evaluation)).word == word
    found = {item.path for item in removable(store, {NAME: RUN, key(evaluation): evaluation}, weights=True)}
    assert (store.weights(NAME) in found) == (word == "done")
    if word == "running":
        attempt.release()


def test_cleaning_spares_what_is_needed(store: Store) -> None:
    pending, unneeded, alone = pretraining(0), pretraining(1), pretraining(2)
    runs = {key(run): run for run in (pending, unneeded, alone, finetuning(pending), finetuning(unneeded))}
    first = owned(store, pending)
    first.release()
    for run in (pending, unneeded, finetuning(unneeded)):
        finish(store, run)
    failed = owned(store, finetuning(pending))
    failed.fail("ValueError: no")
    failed.release()
    running = owned(store, alone)
    leftover = store.folder(key(unneeded)).attempt(1).path / "checkpoint-000000008-0123456789abcdef.pt"
    leftover.write_bytes(b"left by a kill")

    plain = {item.path for item in removable(store, runs)}
    assert plain == {first.files.path, leftover}
    weights = {item.path for item in removable(store, runs, weights=True)} - plain
    assert weights == {store.weights(key(unneeded)), store.weights(key(finetuning(unneeded)))}
    unfinished = {item.path for item in removable(store, runs, unfinished=True)} - plain
    assert unfinished == {store.folder(key(finetuning(pending))).path}

    everything = removable(store, runs, weights=True, unfinished=True)
    assert sum(item.size for item in everything) == sum(size_below(item.path) for item in everything) > 0
    remove(everything)
    assert store.state(key(pending)).word == store.state(key(unneeded)).word == "done"
    assert store.weights(key(pending)) is not None
    assert store.state(key(alone)).word == "running"
    assert running.files.owner.exists()
    running.release()


def test_weights_that_another_study_waits_for_are_spared(store: Store) -> None:
    finish(store, RUN)
    shared = {NAME: RUN}
    assert [item.what for item in removable(store, shared, weights=True)] == ["weights"]
    store.register(finetuning(RUN))  # by another study, whose job waits in a queue
    assert removable(store, shared, weights=True) == []
    finish(store, finetuning(RUN))
    assert [item.what for item in removable(store, shared, weights=True)] == ["weights"]


def test_a_run_that_went_on_after_it_was_listed_is_spared(store: Store) -> None:
    first = owned(store, RUN)
    first.release()
    found = removable(store, {NAME: RUN}, unfinished=True)
    assert [item.what for item in found] == ["interrupted runs"]
    again = owned(store, RUN)
    remove(found)
    assert again.files.owner.exists()
    again.release()
    remove(found)
    assert not store.folder(NAME).path.exists()


def test_a_temporary_file_that_gets_its_name_meanwhile_is_none(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store.root / ".spec.json.0123abcd.tmp"
    store.root.mkdir()
    path.touch()
    os.utime(path, (1, 1))
    assert [item.path for item in left_by_kills(store)] == [path]

    def late(root: Path) -> float:
        path.rename(root / "spec.json")
        return 1e12

    monkeypatch.setattr("harness.store.cleaning.clock", late)
    assert left_by_kills(store) == []


def test_what_kills_left_is_cleaned_once_it_is_old(store: Store) -> None:
    finish(store, RUN)
    attempt = owned(store, pretraining(seed=1))
    left = [
        store.root / f".{NAME}.0123abcd.tmp" / "spec.json",
        store.root / ".clock-0123abcd",
        store.root / ".group-0123abcd",
        store.root / ".exclusive-0123abcd.tmp",
        store.root / ".submissions" / ".000001.0123abcd.tmp" / "entry.json",
        store.folder(NAME).path / ".result.json.0123abcd.tmp",
        store.folder(NAME).path / "attempts" / ".0002.0123abcd.tmp" / "owner.json",
        attempt.files.path / ".new.0123abcd.tmp",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    assert left_by_kills(store) == []
    for path in (*left, *(path.parent for path in left if path.parent.name.endswith(".tmp"))):
        os.utime(path, (1, 1))
    found = left_by_kills(store)
    assert (len(found), sum(item.size for item in found)) == (8, 32)
    before = {name for name in snapshot(store.root) if ".tmp" not in name and not name.startswith((".clock", ".group"))}
    remove(found)
    assert set(snapshot(store.root)) == before
    assert left_by_kills(store) == []
    attempt.release()
