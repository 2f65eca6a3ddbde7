"""Which failed run an unfinished one waits for: the nearest, unless a done one lies between. What looking costs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from made_runs import finetuning, finish, owned, pretraining

from harness.spec import Occlusion, key
from harness.store import Store
from harness.store.states import failed_upstream

FIRST = pretraining()
SECOND = finetuning(FIRST)
LAST = Occlusion(start=SECOND, size=4, ratios=(0.0, 0.5, 1.0))


@pytest.mark.parametrize(
    ("first", "second", "last", "expected"),
    [
        ("failed", "missing", "missing", FIRST),
        ("failed", "queued", "interrupted", FIRST),
        ("failed", "failed", "cancelled", SECOND),
        ("failed", "done", "missing", None),  # the weights are there
        ("interrupted", "missing", "missing", None),  # goes on
        ("failed", "missing", "running", None),
        ("failed", "missing", "done", None),
        ("failed", "missing", "failed", None),
    ],
)
def test_the_nearest_failed_run_blocks_those_that_wait(first: Any, second: Any, last: Any, expected: object) -> None:
    states = {key(FIRST): first, key(SECOND): second, key(LAST): last}
    assert failed_upstream(LAST, states.__getitem__) == expected


def test_a_finished_run_is_one_file_to_read_and_a_missing_one_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "runs")
    runs = [pretraining(seed=seed) for seed in range(6)]
    for run in runs[:3]:
        finish(store, run)
    read: list[str] = []
    whole = Path.read_bytes

    def noting(path: Path) -> bytes:
        read.append(path.name)
        return whole(path)

    monkeypatch.setattr(Path, "read_bytes", noting)
    words = Counter(state.word for state in store.states(map(key, runs)).values())
    assert words == {"done": 3, "missing": 3}
    assert read == ["result.json"] * 3


def test_the_clock_of_the_disk_is_asked_once_for_all_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "runs")
    runs = [pretraining(seed=seed) for seed in range(3)]
    attempts = [owned(store, run) for run in runs]
    asked: list[Path] = []

    def clock(root: Path) -> float:
        asked.append(root)
        return attempts[0].files.heartbeat.stat().st_mtime

    monkeypatch.setattr("harness.store.store.clock", clock)
    assert {state.word for state in store.states(map(key, runs)).values()} == {"running"}
    assert len(asked) == 1
    for attempt in attempts:
        attempt.release()
