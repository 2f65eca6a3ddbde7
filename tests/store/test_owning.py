"""Ownership: one owner at a time, dead owners noticed, and nothing spoilt by one that was superseded."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

import pytest
from made_runs import owned, pretraining, save, snapshot, steps

from harness.spec import HarnessError, key
from harness.store import Attempt, State, Store, Superseded, lease
from harness.store.layout import AttemptFolder
from harness.store.lease import Lease, Owner, is_alive, this_process

RUN = pretraining()
NAME = key(RUN)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def word(store: Store, *, retry: bool = False) -> str:
    found = store.acquire(RUN, retry=retry)
    assert isinstance(found, State)
    return found.word


def claim(attempt: Attempt, **changes: object) -> None:
    """Rewrite who owns an attempt."""
    attempt.files.owner.write_text(json.dumps({**this_process(), **changes}))


def age(attempt: Attempt, seconds: float) -> None:
    """Make the last heartbeat lie in the past."""
    then = attempt.files.heartbeat.stat().st_mtime - seconds
    os.utime(attempt.files.heartbeat, (then, then))


def take_over(store: Store, attempt: Attempt) -> Attempt:
    """Another process owns the run now; the first believes that it still does."""
    claim(attempt, started="another start")
    return owned(store, RUN)


def whole(store: Store) -> dict[str, bytes | None]:
    """Everything in the store but for files that are being written."""
    return {name: data for name, data in snapshot(store.root).items() if not name.endswith(".tmp")}


def test_a_run_is_owned_until_it_ends(store: Store) -> None:
    attempt = owned(store, RUN)
    assert attempt.files.number == 1
    assert word(store) == "running"
    assert word(store, retry=True) == "running"
    attempt.finish({"loss": 1.0}, 1.0)
    attempt.release()
    assert word(store) == "done"
    assert word(store, retry=True) == "done"
    assert len(store.folder(NAME).attempts()) == 1


def test_a_failed_run_is_taken_by_retry_only(store: Store) -> None:
    attempt = owned(store, RUN)
    attempt.fail("Traceback\nValueError: no")
    attempt.release()
    assert word(store) == "failed"
    assert store.state(NAME).error == "Traceback\nValueError: no"
    again = owned(store, RUN, retry=True)
    assert again.files.number == 2
    assert store.state(NAME).word == "running"
    again.release()


def test_a_released_run_is_free_at_once(store: Store) -> None:
    owned(store, RUN).release()
    assert store.state(NAME).word == "interrupted"
    second = owned(store, RUN)
    assert second.files.number == 2
    second.release()


def test_threads_that_race_make_one_owner(store: Store) -> None:
    barrier, found = threading.Barrier(8), []

    def race() -> None:
        barrier.wait()
        found.append(store.acquire(RUN))

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    owners = [item for item in found if isinstance(item, Attempt)]
    assert len(owners) == 1
    assert [item.word for item in found if isinstance(item, State)] == ["running"] * 7
    assert len(store.folder(NAME).attempts()) == 1
    owners[0].release()


def _race(root: Path, start: Connection, answer: Connection) -> None:
    store = Store(root)
    for seed in range(20):
        start.recv()
        found = store.acquire(pretraining(seed))
        answer.send("owner" if isinstance(found, Attempt) else found.word)
    start.recv()


def test_processes_that_race_make_one_owner(store: Store) -> None:
    context = multiprocessing.get_context("fork")
    pipes = [(context.Pipe(duplex=False), context.Pipe(duplex=False)) for _ in range(4)]
    processes = [context.Process(target=_race, args=(store.root, go[0], told[1])) for go, told in pipes]
    for process in processes:
        process.start()
    for _ in range(20):
        for go, _told in pipes:
            go[1].send(None)
        assert sorted(told[0].recv() for _go, told in pipes) == ["owner", "running", "running", "running"]
    for go, _told in pipes:
        go[1].send(None)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert list(store.root.rglob(".*")) == []


def test_a_dead_process_is_succeeded_at_once(store: Store) -> None:
    attempt = owned(store, RUN)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        started = lease._started(other.pid)
        claim(attempt, pid=other.pid, started=started)
        assert word(store) == "running"
        other.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert lease._started(other.pid) == ""  # a zombie
        assert store.state(NAME).word == "interrupted"
    assert store.state(NAME).word == "interrupted"
    second = owned(store, RUN)
    assert second.files.number == 2
    second.release()


@pytest.mark.parametrize(("letter", "started"), [("S", "8123"), ("D", "8123"), ("T", "8123"), ("Z", ""), ("X", "")])
def test_a_process_that_has_ended_has_no_start(monkeypatch: pytest.MonkeyPatch, letter: str, started: str) -> None:
    """States of proc(5): waiting, waiting for a disk, stopped; a zombie, and what the kernel is about to forget."""
    line = f"41 (py) on) {letter} 7 {' '.join(str(field) for field in range(5, 22))} 8123 23 24"
    monkeypatch.setattr(lease, "text_of", lambda path: line if str(path) == "/proc/41/stat" else "")
    assert lease._started(41) == started


def test_a_reused_pid_is_not_mistaken_for_the_owner(store: Store) -> None:
    attempt = owned(store, RUN)
    claim(attempt, started="12345")
    assert store.state(NAME).word == "interrupted"
    attempt.release()


@pytest.mark.parametrize(("limit", "seconds", "alive"), [("100", 90, True), ("100", 110, False), ("200", 110, True)])
@pytest.mark.parametrize("machine", ["another boot/pid:[1]", ""])
def test_another_machine_is_judged_by_its_heartbeat(
    store: Store, monkeypatch: pytest.MonkeyPatch, machine: str, limit: str, seconds: float, alive: bool
) -> None:
    monkeypatch.setenv("HARNESS_HEARTBEAT_LIMIT", limit)
    attempt = owned(store, RUN)
    claim(attempt, machine=machine, pid=2**22 + 1, started="1")
    age(attempt, seconds)
    assert store.state(NAME).word == ("running" if alive else "interrupted")
    assert [path.name for path in store.root.iterdir()] == [NAME]
    attempt.release()


def test_a_machine_that_tells_nothing_has_no_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_machine", lambda: "")
    owner = Owner(host="a", machine="", pid=1, started="1")
    assert is_alive(owner, lambda: 0.0)
    assert not is_alive(owner, lambda: 1e9)


def test_a_silent_process_of_this_machine_is_succeeded(store: Store) -> None:
    attempt = owned(store, RUN)
    age(attempt, 119)
    assert store.state(NAME).word == "running"
    age(attempt, 121)
    assert store.state(NAME).word == "interrupted"
    attempt.release()


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan"])
def test_a_limit_that_is_no_time_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    attempt = owned(store, RUN)
    monkeypatch.setenv("HARNESS_HEARTBEAT_LIMIT", text)
    with pytest.raises(HarnessError, match="should be a positive number of seconds"):
        store.state(NAME)
    attempt.release()


def test_a_short_limit_is_outpaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_HEARTBEAT_LIMIT", "0.2")
    beats, real = threading.Semaphore(0), os.utime

    def beat(*arguments: Any) -> None:
        real(*arguments)
        beats.release()

    monkeypatch.setattr(os, "utime", beat)
    held = Lease(AttemptFolder(tmp_path))
    assert all(beats.acquire(timeout=5) for _ in range(3))
    held.release()
    assert not (tmp_path / "heartbeat").exists()


def test_a_heartbeat_outlives_a_file_server_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_HEARTBEAT_LIMIT", "0.1")
    calls, beats = iter([OSError(116, "Stale file handle"), OSError(5, "Input/output error")]), threading.Event()

    def beat(*_: object) -> None:
        if error := next(calls, None):
            raise error
        beats.set()

    monkeypatch.setattr(os, "utime", beat)
    held = Lease(AttemptFolder(tmp_path))
    assert beats.wait(timeout=5)
    held.release()


def test_a_heartbeat_ends_with_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_HEARTBEAT_LIMIT", "0.1")
    folder = tmp_path / "attempt"
    folder.mkdir()
    held = Lease(AttemptFolder(folder))
    shutil.rmtree(folder)
    held._thread.join(timeout=5)
    assert not held._thread.is_alive()
    held.release()


def test_a_superseded_attempt_writes_nothing(store: Store) -> None:
    first = owned(store, RUN)
    save(first, 10)
    second = take_over(store, first)
    save(second, 20)
    before = snapshot(store.root)
    for act in (
        first.check,
        lambda: first.write_checkpoint(30, lambda file: file.write(b"late")),
        lambda: first.finish({"loss": 2.0}, 1.0, b"late"),
        lambda: first.fail("late"),
    ):
        with pytest.raises(Superseded):
            act()
        assert snapshot(store.root) == before
    first.release()
    second.check()
    second.finish({"loss": 1.0}, 1.0)
    second.release()
    assert store.state(NAME).attempt == 2


def test_a_checkpoint_begun_before_the_takeover_spoils_nothing(store: Store) -> None:
    first = owned(store, RUN)
    save(first, 10)
    second: list[Attempt] = []
    before: list[dict[str, bytes | None]] = []

    def write_while_another_takes_over(file: IO[bytes]) -> None:
        file.write(b"begun before")
        second.append(take_over(store, first))
        save(second[0], 15)
        save(second[0], 20)
        before.append(whole(store))

    with pytest.raises(Superseded):
        first.write_checkpoint(12, write_while_another_takes_over)
    assert whole(store) == before[0]
    assert steps(second[0]) == [20, 15]
    first.release()
    second[0].release()


@pytest.mark.parametrize("stopped_at", ["weights.safetensors", "result.json"])
def test_a_result_begun_before_the_takeover_is_not_published(
    store: Store, monkeypatch: pytest.MonkeyPatch, stopped_at: str
) -> None:
    first = owned(store, RUN)
    second: list[Attempt] = []
    real = os.fsync

    def sync_while_another_takes_over(descriptor: int) -> None:
        real(descriptor)
        if f".{stopped_at}." in os.readlink(f"/proc/self/fd/{descriptor}"):
            monkeypatch.setattr(os, "fsync", real)
            second.append(take_over(store, first))

    monkeypatch.setattr(os, "fsync", sync_while_another_takes_over)
    with pytest.raises(Superseded):
        first.finish({"loss": 2.0}, 1.0, b"late")
    assert not store.folder(NAME).result.exists()
    assert first.files.weights.exists() == (stopped_at == "result.json")
    second[0].finish({"loss": 1.0}, 1.0)
    second[0].release()
    first.release()


def test_pruning_spares_the_checkpoints_of_a_successor(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = owned(store, RUN)
    save(first, 10)
    second = take_over(store, first)
    save(second, 15)
    save(second, 20)
    before = snapshot(second.files.path)
    monkeypatch.setattr(first, "check", lambda: None)  # stopped after its last check
    save(first, 12)
    assert snapshot(second.files.path) == before
    first.release()
    second.release()


def test_a_result_between_check_and_creation_is_created_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = owned(store, RUN)
    second = take_over(store, first)
    second.finish({"loss": 1.0}, 1.0, b"weights")
    second.release()
    before = snapshot(second.files.path), store.folder(NAME).result.read_bytes()
    monkeypatch.setattr(first, "check", lambda: None)
    with pytest.raises(Superseded, match="another attempt has finished it"):
        first.finish({"loss": 2.0}, 1.0, b"late")
    assert (snapshot(second.files.path), store.folder(NAME).result.read_bytes()) == before
    first.release()


def test_an_owner_that_finishes_while_it_is_succeeded_wins(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = owned(store, RUN)
    claim(first, started="looks dead")
    real = Store.result
    looks = iter([None])  # the successor looks before the result is there, takes the run, and looks again
    monkeypatch.setattr(Store, "result", lambda self, name: next(looks, False) or real(self, name))
    folder = store.folder(NAME)
    publish = lease.this_process

    def finish_meanwhile() -> Owner:
        monkeypatch.setattr(Store, "result", real)
        if not folder.result.exists():
            first.finish({"loss": 1.0}, 1.0)
        return publish()

    monkeypatch.setattr("harness.store.lease.this_process", finish_meanwhile)
    found = store.acquire(RUN)
    assert isinstance(found, State)
    assert (found.word, found.attempt) == ("done", 1)
    assert [attempt.number for attempt in folder.attempts()] == [1]
    first.release()


def test_a_run_whose_folder_was_deleted_is_not_written(store: Store) -> None:
    attempt = owned(store, RUN)
    shutil.rmtree(store.folder(NAME).path)
    with pytest.raises(Superseded):
        attempt.write_checkpoint(10, lambda file: file.write(b"data"))
    attempt.release()
    assert not store.folder(NAME).path.exists()


def test_a_snapshot_is_not_written_after_the_run_was_taken_over(store: Store) -> None:
    loser = owned(store, RUN)
    winner = take_over(store, loser)
    before = whole(store)
    with pytest.raises(Superseded):
        loser.write_snapshot(2, b"weights")
    assert whole(store) == before
    winner.write_snapshot(2, b"weights")
    assert len(winner.files.snapshots(2)) == 1
    loser.release()
    winner.release()
