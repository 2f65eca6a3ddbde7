"""Reports that follow one another into one folder."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from fake_study import finish_all, scope_study

from harness import claims
from harness.report import report_cache
from harness.report.report_cache import current
from harness.store import Store
from harness.study import Plan, Row, expand

CLAIM = claims.better("masked beats full", {"scope": "masked"}, {"scope": "full"})


def _plan(seeds: int, looks: tuple[int, ...] = ()) -> Plan:
    return expand(scope_study(claims=(CLAIM,), looks=looks), seeds=seeds)


def _value(row: Row) -> float:
    return 80.0 + (row.seed * len(str(row.axes)) % 5) / 4


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "runs")
    finish_all(found, _plan(3), _value)
    return found


def test_fewer_seeds_leave_a_fuller_report_alone(tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "results" / "fake"
    assert current(_plan(2), store, folder).folder == folder
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    fewer = current(_plan(1), store, folder)
    assert (fewer.folder, fewer.written) == (tmp_path / "results" / "fake-1-seeds", True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert not current(_plan(1), store, folder).written
    assert current(_plan(3), store, folder).folder == folder


def test_judging_again_with_more_seeds_voids_the_error_and_says_so(tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "results"
    first = current(_plan(2), store, folder)
    assert not any("voids" in note for note in first.notes)
    for always in (False, True, True):  # it is said as long as the folder is there
        again = current(_plan(3), store, folder, always=always)
        assert any("judged with 2, 3 seeds, and no looks are declared" in note for note in again.notes)
        for name in ("claims.md", "report.html"):
            assert "voids the 5%" in (folder / name).read_text()
    assert "at most 5%" not in (folder / "claims.md").read_text()


def test_declared_looks_void_nothing(tmp_path: Path, store: Store) -> None:
    for seeds in (2, 3):
        found = current(_plan(seeds, looks=(2, 3)), store, tmp_path / "results")
    assert not any("voids" in note for note in found.notes)


def test_a_checkout_that_is_not_installed_writes_reports(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(report_cache, "version", absent)
    folder = tmp_path / "results" / "fake"
    assert current(_plan(2), store, folder).written
    assert not current(_plan(2), store, folder).written
