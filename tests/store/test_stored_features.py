"""Features that a store keeps: whole or not read, computed once, and deletable at any time."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.store import Store, features, files
from harness.store.cleaning import kept_features as removable_features
from harness.store.cleaning import left_by_kills, remove
from harness.store.features import is_taken, keep_features, kept_features
from harness.store.layout import FeaturesFolder

DATA = bytes(range(256)) * 40
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def folder(tmp_path: Path) -> FeaturesFolder:
    return FeaturesFolder(tmp_path / "runs", hashlib.sha256(b"an encoder").hexdigest())


def once(folder: FeaturesFolder, compute: Callable[[], bytes] = lambda: DATA) -> tuple[bytes, bool]:
    """Features as an evaluation gets them, and whether it had to compute them."""
    with kept_features(folder) as kept:
        if kept is not None:
            return bytes(kept), False
        found = compute()
        keep_features(folder, memoryview(found))
        return found, True


def test_they_are_computed_once(folder: FeaturesFolder) -> None:
    assert once(folder) == (DATA, True)
    assert once(folder) == (DATA, False)
    other = FeaturesFolder(folder.root, "0" * 64)
    assert once(other) == (DATA, True)
    assert Store(folder.root).keys() == [], "features are no runs"


def test_a_flipped_bit_and_a_cut_are_noticed(folder: FeaturesFolder) -> None:
    once(folder)
    (path,) = folder.files()
    for damaged in (*(flipped(DATA, bit) for bit in (0, 12345, 8 * len(DATA) - 1)), DATA[:-1], b"", DATA + b"\0"):
        path.write_bytes(damaged)
        assert once(folder) == (DATA, True)
        assert once(folder) == (DATA, False)
    assert folder.files() == [path]


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_a_disk_that_refuses_costs_the_cache_and_not_the_run(
    folder: FeaturesFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(files, "_write_through", full)
        assert once(folder) == (DATA, True)
    assert folder.files() == []
    folder.path.parent.rename(folder.root / "away")
    folder.path.parent.write_text("a file where the folder should be")
    assert once(folder) == (DATA, True)


def _compute_slowly(folder: FeaturesFolder, begun: Any, counted: Any) -> None:
    def compute() -> bytes:
        with counted.get_lock():
            counted.value += 1
        begun.set()
        time.sleep(0.5)
        return DATA

    assert once(folder, compute)[0] == DATA


def test_of_several_processes_one_computes_and_the_others_wait(
    folder: FeaturesFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "POLL_SECONDS", 0.02)
    begun, counted = FORK.Event(), FORK.Value("i", 0)
    processes = [FORK.Process(target=_compute_slowly, args=(folder, begun, counted)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert counted.value == 1
    assert len(folder.files()) == 1


def _stop_while_writing(folder: FeaturesFolder, stopped: Any) -> None:
    def half(path: Path, write: Callable[[Any], object]) -> None:
        path.write_bytes(DATA[: len(DATA) // 2])
        stopped.set()
        time.sleep(600)

    files._write_through = half
    once(folder)


def test_a_kill_while_it_writes_leaves_nothing_that_is_read(
    folder: FeaturesFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for it takes its place at once; `clean` deletes what it left."""
    monkeypatch.setattr(features, "POLL_SECONDS", 0.02)
    stopped = FORK.Event()
    process = FORK.Process(target=_stop_while_writing, args=(folder, stopped))
    process.start()
    assert stopped.wait(60)
    assert is_taken(folder)
    assert removable_features(Store(folder.root)) == [], "a living process is about to write there"
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert folder.files() == []
    assert not is_taken(folder)
    (left,) = left_by_kills(Store(folder.root), seconds=-1.0)
    assert left.size == len(DATA) // 2
    assert once(folder) == (DATA, True)
    assert once(folder) == (DATA, False)


def test_nobody_waits_for_ever_or_after_being_told_to_stop(
    folder: FeaturesFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        pass

    def stop() -> None:
        raise Stop

    monkeypatch.setattr(features, "POLL_SECONDS", 0.02)
    with kept_features(folder) as kept:
        assert kept is None
        with pytest.raises(Stop), kept_features(folder, stop):
            pass
        monkeypatch.setattr(features, "LONGEST_WAIT", 0.1)
        assert once(folder) == (DATA, True)
    assert once(folder) == (DATA, False)


def test_clean_counts_and_deletes_what_nobody_is_computing(folder: FeaturesFolder) -> None:
    store, other = Store(folder.root), FeaturesFolder(folder.root, "1" * 64)
    once(folder)
    once(other)
    found = removable_features(store)
    assert {item.path for item in found} == {folder.path, other.path}
    assert all(len(DATA) <= item.size < len(DATA) + 1000 for item in found)
    for path in other.files():
        path.unlink()
    with kept_features(other) as kept:  # between the question and its answer somebody begins
        assert kept is None
        remove(found)
        assert not folder.path.exists()
        assert is_taken(other)
        keep_features(other, memoryview(DATA))
    assert once(other) == (DATA, False)
    remove(removable_features(store))
    assert removable_features(store) == []
    assert once(folder) == (DATA, True)


def test_a_deletion_by_hand_while_they_are_computed_does_no_harm(folder: FeaturesFolder) -> None:
    def compute() -> bytes:
        for path in sorted(folder.root.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        return DATA

    assert once(folder, compute) == (DATA, True)
    assert once(folder) == (DATA, False)


def test_the_oldest_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "KEPT_BYTES", 3.5 * len(DATA))
    folders = [FeaturesFolder(tmp_path, str(number) * 64) for number in range(5)]
    for number, folder in enumerate(folders):
        once(folder)
        os.utime(folder.path, (number, number))
    assert [bool(folder.files()) for folder in folders] == [False, False, True, True, True]
    monkeypatch.setattr(features, "KEPT_BYTES", len(DATA) - 1)
    large = FeaturesFolder(tmp_path, "f" * 64)
    assert once(large) == once(large) == (DATA, True)
    assert [bool(folder.files()) for folder in (*folders, large)] == [False, False, True, True, True, False]
