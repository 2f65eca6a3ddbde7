"""The example of a study whose network, error, optimiser and augmentation are its own: planned, audited and run."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from conftest import Command

from harness.core.runtime.custom import load_function
from harness.store import Store

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_pieces"
CELLS = ("--scale", "tiny", "--seeds", "1")


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Path]:
    """The example's study in a project of its own."""
    shutil.copytree(EXAMPLE, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__", "runs", "results"))
    load_function.cache_clear()
    yield tmp_path / "project" / "study.py"
    for name in ("pieces", "study", "test_pieces"):
        sys.modules.pop(name, None)


def test_it_is_planned_and_run_and_runs_nothing_twice(harness: Command, study: Path) -> None:
    assert harness("plan", study, *CELLS).code == 0
    ended = harness("run", study, *CELLS, "--on", "inline")
    assert ended.code == 0, ended.err
    store = Store(study.parent / "runs")
    kinds = sorted(name.split("-")[0] for name in store.keys())  # noqa: SIM118
    assert kinds == ["finetune", "finetune", "knn", "knn", "pretrain", "pretrain"]
    assert all(store.result(name) is not None for name in store.keys())  # noqa: SIM118
    assert "to do 0" in harness("plan", study, *CELLS).out
    pieces = study.parent / "pieces.py"
    pieces.write_text(pieces.read_text() + "\n# another version\n")
    assert "to do 6" in harness("plan", study, *CELLS).out


def test_its_own_tests_pass(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(study.parent)
    tests = {name: test for name, test in vars(import_module("test_pieces")).items() if name.startswith("test_")}
    assert len(tests) == 4
    for test in tests.values():
        test()


def test_its_pieces_are_audited(harness: Command, study: Path) -> None:
    ended = harness("audit", study, "--scale", "tiny")
    assert ended.code == 0, ended.out
    found = json.loads((study.parent / "results" / study.stem / "tiny" / "audit.json").read_text())
    sound = {item["text"].split()[0] for item in found if item["check"] == "pieces" and item["verdict"] == "passed"}
    assert sound == {"pieces:mixer", "pieces:sign", "pieces:dim", "pieces:charbonnier"}
    assert any(item["check"] == "factors" and "loss" in item["text"] for item in found)


def test_an_audit_names_a_piece_that_breaks_its_contract(harness: Command, study: Path) -> None:
    pieces = study.parent / "pieces.py"
    sound = "return images * (lightest"
    assert sound in pieces.read_text()
    pieces.write_text(pieces.read_text().replace(sound, "return images.flip(0) * (lightest"))
    ended = harness("audit", study, "--scale", "tiny")
    assert ended.code == 1
    assert "other images alone than in a batch of 12" in " ".join(ended.out.split())
