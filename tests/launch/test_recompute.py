"""tools/recompute.py draws, computes and compares what it says."""

from __future__ import annotations

import csv
import importlib.util
import json
import random
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import compute, finetuning, pretraining

from harness.spec import Pretrain, key
from harness.store import Attempt, Store
from harness.store.exchange import export_records
from harness.store.records import sealed

FILE = Path(__file__).resolve().parents[2] / "tools" / "recompute.py"
found = importlib.util.spec_from_file_location("recompute", FILE)
assert found is not None
assert found.loader is not None
recompute: Any = importlib.util.module_from_spec(found)
found.loader.exec_module(recompute)


def done(store: Store, run: Pretrain, loss: float, weights: bytes, logged: dict[str, float]) -> None:
    attempt = store.acquire(run)
    assert isinstance(attempt, Attempt)
    attempt.log(logged)
    attempt.finish({"loss": loss}, 1.0, weights)
    attempt.release()


def test_what_is_drawn_depends_on_the_keys_alone() -> None:
    names = [f"run-{number}" for number in range(9)]
    assert recompute.drawn(names[::-1], 3) == recompute.drawn(names, 3) == random.Random(18).sample(names, 3)


def test_differences_are_named_and_times_are_none(tmp_path: Path) -> None:
    one, two, other = (Store(tmp_path / name) for name in ("one", "two", "other"))
    run = pretraining()
    done(one, run, 0.5, b"weights", {"step": 1, "seconds": 1.0})
    done(two, run, 0.5, b"weights", {"step": 1, "seconds": 2.0})
    done(other, run, 0.5 + 2**-50, b"others", {"step": 2, "seconds": 1.0})
    assert list(recompute.differences(one, two, key(run))) == []
    metrics, weights, log = recompute.differences(one, other, key(run))
    assert metrics == "loss 0.5, here 0.5000000000000009"
    assert weights.startswith("weights ")
    assert log == "what was logged, from line 1 of 1"


def test_a_result_that_was_tampered_with_is_told_from_one_that_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = pretraining(epochs=1)
    run, store, file = finetuning(start, epochs=1), Store(tmp_path / "runs"), tmp_path / "all.records"
    compute(store, start, run)
    export_records(store, [key(start), key(run)], file)
    assert recompute.main([str(file), "--runs", "1"]) == 0
    assert capsys.readouterr().out.count("equal") in (1, 2)  # of the run that was drawn and of what it starts from
    result = store.folder(key(run)).result
    changed = json.loads(result.read_text())
    changed = {name: value for name, value in changed.items() if name not in ("schema", "digest")}
    changed["metrics"]["loss"] += 1e-9
    result.write_bytes(sealed(changed))
    export_records(store, [key(start), key(run)], file)
    assert recompute.main([str(file), "--runs", "2", "--table", str(tmp_path / "again.csv")]) == 1
    told = capsys.readouterr().out
    with (tmp_path / "again.csv").open(newline="") as table:
        outcomes = {row["run"]: (row["outcome"], row["differences"][:5]) for row in csv.DictReader(table)}
    assert recompute.main([str(file), "--processor", "of no such maker"]) == 0
    assert capsys.readouterr().out.startswith("0 of 0 runs")
    assert outcomes == {key(start): ("equal", ""), key(run): ("differs", "loss ")}
    assert f"equal  {key(start)}" in told
    assert f"differs  {key(run)}  loss " in told
