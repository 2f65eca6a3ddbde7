"""What runs need is asked for before any of them begins."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from tiny_runs import by_key, detection, pretraining

from harness.cli.launch.run import _counts
from harness.launch.ready import check_runs
from harness.spec import HarnessError, key
from harness.store import Attempt, Store


def test_a_detection_is_refused_before_its_pretraining(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, start, find = Store(tmp_path), pretraining(), importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pycocotools" else find(name))
    with pytest.raises(HarnessError, match="average precision needs pycocotools: pip install"):
        check_runs(by_key(start, detection(start)), store)
    assert not list(store.keys())


def test_runs_that_a_stop_kept_from_beginning_are_told_from_those_that_saved(tmp_path: Path) -> None:
    store, runs = Store(tmp_path), [pretraining(seed=seed) for seed in range(3)]
    attempt = store.acquire(runs[0])
    assert isinstance(attempt, Attempt)
    attempt.release()
    store.register(runs[1])
    assert _counts({key(run): "interrupted" for run in runs}, store) == "1 interrupted, 2 not begun"
