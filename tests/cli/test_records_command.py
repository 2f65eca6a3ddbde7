"""`harness records`, as a user calls it."""

from __future__ import annotations

from pathlib import Path

from conftest import Command

from harness.spec import Run
from harness.store import Attempt, Store
from harness.study import expand, load


def finish(store: Store, run: Run) -> None:
    """Have a run done."""
    attempt = store.acquire(run)
    assert isinstance(attempt, Attempt)
    attempt.finish({"top1": 50.0, "loss": 0.5}, 1.5)
    attempt.release()


def test_results_travel_from_one_store_to_another(harness: Command, project: Path, tmp_path: Path) -> None:
    study, file = project / "studies" / "ratios.py", tmp_path / "all.records"
    plan = expand(load(study))
    store = Store(tmp_path / "a")
    names = list(plan.runs())
    for run in plan.runs().values():
        finish(store, run)
    exported = harness("records", "export", study, file, "--store", store.root)
    assert (exported.code, exported.err) == (0, "")
    assert exported.out == f"wrote {len(names)} of {len(names)} runs to {file}\n"
    imported = harness("records", "import", file, "--store", tmp_path / "b")
    assert imported.out == f"{len(names)} runs are new in {tmp_path / 'b'}, 0 were there already\n"
    again = harness("records", "import", file, file, "--store", tmp_path / "b")
    assert again.out == f"0 runs are new in {tmp_path / 'b'}, {len(names)} were there already\n"


def test_unfinished_runs_are_counted(harness: Command, project: Path, tmp_path: Path) -> None:
    study = project / "studies" / "ratios.py"
    exported = harness("records", "export", study, tmp_path / "file", "--store", tmp_path / "empty")
    assert exported.code == 0
    assert exported.out.startswith("wrote 0 of ")
    assert exported.out.endswith(": the others are not finished\n")


def test_a_mistake_is_one_line(harness: Command, project: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{}")
    refused = harness("records", "import", tmp_path / "file", "--store", tmp_path / "b")
    assert refused.code == 2
    assert refused.err == f"harness: {tmp_path / 'file'} is damaged, or `harness records export` did not write it\n"
    assert not (tmp_path / "b").exists()
