"""The folder that a report leaves behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fake_study import finish_all, half_finished, scope_plan

from harness.report import write
from harness.report.figures import drawing, pictures
from harness.spec import HarnessError
from harness.store import Store
from harness.store.exchange import export_records, import_records


def test_a_finished_study_leaves_every_file(tmp_path: Path) -> None:
    store, plan, folder = Store(tmp_path / "runs"), scope_plan(), tmp_path / "results" / "fake"
    finish_all(store, plan)
    report = write(plan, store, folder)
    assert report.complete
    assert sorted(path.name for path in folder.iterdir()) == sorted(report.files)
    assert set(report.files) == {
        "runs.csv", "table.csv", "table.md", "table.tex", "report.html",
        "figure-top1-mask_ratio.png", "figure-top1-mask_ratio.pdf", "figure-top1-mask_ratio.svg",
        "figure-curves.png", "figure-curves.pdf", "figure-curves.svg", "reconstructions.png",
        "figure-top1-paper.png", "figure-top1-paper.pdf", "figure-top1-paper.svg",
    }  # fmt: skip
    assert all(len(row) == len(report.header) for row in report.rows)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write(plan, store, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_stale_pictures_go_and_other_files_stay(tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "runs"), scope_plan()
    half_finished(store, plan)
    folder = tmp_path / "results"
    folder.mkdir()
    for name in ("figure-old-axis.png", "reconstructions-7.png", "claims.md", "notes.md"):
        (folder / name).write_text("old")
    report = write(plan, store, folder)  # of a study that claims nothing, or no longer
    assert not report.complete
    assert {path.name for path in folder.iterdir()} == {*report.files, "notes.md"}


def test_an_empty_store(tmp_path: Path) -> None:
    report = write(scope_plan(), Store(tmp_path / "runs"), tmp_path / "results")
    assert not report.complete
    assert len(report.rows) == 7
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HarnessError, match="cannot write"):
        write(scope_plan(), Store(tmp_path / "runs"), tmp_path / "file" / "results")


def test_importing_the_report_loads_neither_torch_nor_matplotlib() -> None:
    code = "import sys, harness.report; print([m for m in ('torch', 'timm', 'matplotlib') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"


def test_a_report_from_records_equals_the_report_from_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "FORMATS", {"svg": drawing.svg})
    plan, store, other = scope_plan(), Store(tmp_path / "runs"), Store(tmp_path / "other")
    finish_all(store, plan)
    written = write(plan, store, tmp_path / "report")
    export_records(store, plan.runs(), tmp_path / "file")
    import_records(other, [tmp_path / "file"])
    again = write(plan, other, tmp_path / "again")
    assert again.files == written.files
    assert {name: (again.folder / name).read_bytes() for name in again.files} == {
        name: (written.folder / name).read_bytes() for name in written.files
    }


def test_seeds_are_labels_to_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "FORMATS", {})
    texts = []
    for first in (0, 10):
        store, plan, folder = Store(tmp_path / f"runs-{first}"), scope_plan(first_seed=first), tmp_path / str(first)
        finish_all(store, plan)
        write(plan, store, folder)
        export_records(store, plan.runs(), folder / "records")
        import_records(again := Store(tmp_path / f"again-{first}"), [folder / "records"])
        assert set(again.keys()) == set(plan.runs())
        texts.append([(folder / name).read_text() for name in ("table.csv", "table.md", "table.tex")])
    assert texts[0] == texts[1]
