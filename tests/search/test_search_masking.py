"""The shipped search: its space, its scales, and that the default and every axis exist at each of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.search import Search, load_search
from harness.search.session import Opened, open_search
from harness.spec import Knn, pretraining
from harness.store import Store

FILE = Path(__file__).resolve().parent.parent.parent / "studies" / "search_masking.py"


@pytest.fixture
def search() -> Iterator[Search]:
    path, project = list(sys.path), os.environ.get("HARNESS_PROJECT")
    yield load_search(FILE)
    sys.path[:] = path
    os.environ.pop("HARNESS_PROJECT", None)
    if project is not None:
        os.environ["HARNESS_PROJECT"] = project


def at(search: Search, scale: str, tmp_path: Path) -> Opened:
    return open_search(search, Store(tmp_path), scale=scale)


@pytest.mark.parametrize(("scale", "cells"), [("tiny", 240), ("small", 360), ("paper", 360)])
def test_its_cells(search: Search, tmp_path: Path, scale: str, cells: int) -> None:
    opened = at(search, scale, tmp_path)
    points = opened.space.points
    assert points is not None
    assert len(points) == 3 * 2 * 2 * 2 * (4 + 4 * 2 + 3)  # units, scopes, heads, targets; random, block-wise, square
    candidates = [opened.measure.candidate(point.cell, [0]) for point in points]
    assert sum(not found.excluded for found in candidates) == cells
    assert opened.space.params_of(search.reference) is not None
    assert search.budget(opened.scale) <= cells


def test_the_default_is_simmims(search: Search, tmp_path: Path) -> None:
    from harness import simmim

    for scale in search.scales:
        opened = at(search, scale.name, tmp_path)
        found = opened.measure.candidate(search.reference, [0]).rows[0].evaluations["validation"]
        assert pretraining(found) == simmim(scale, seed=0)


def test_labels_that_it_chooses_by_are_never_trained_on(search: Search, tmp_path: Path) -> None:
    for scale in search.scales:
        opened = at(search, scale.name, tmp_path)
        columns = opened.measure.candidate(search.reference, [0]).rows[0].evaluations
        assert columns["validation"].data.split == "validation"
        assert columns["top1"].data.split == "test"
        assert columns["top1"].data.replace(split="validation") == columns["validation"].data
        assert pretraining(columns["validation"]) == pretraining(columns["top1"])


def test_rungs_are_neighbours_of_snapshots_within_the_schedule(search: Search, tmp_path: Path) -> None:
    opened = at(search, "small", tmp_path)
    candidate = opened.measure.candidate(search.reference, [0])
    for epoch in (1, 3):
        [(first, evaluation)] = opened.measure.rung(candidate, epoch)
        assert isinstance(evaluation, Knn)
        assert pretraining(evaluation) == first
        assert epoch < first.recipe.epochs
    assert opened.measure.rung(candidate, 99) == []
    assert at(search, "tiny", tmp_path).measure.rungs == ()


@pytest.mark.slow
def test_cells_at_scale_tiny_hide_and_learn(search: Search, tmp_path: Path) -> None:
    """Every tenth pre-training, which takes in all values of every axis."""
    sys.path.append(str(Path(__file__).resolve().parent.parent))
    from overfit import LEARNT, overfit

    from harness import audit
    from harness.core.pretrain.mim import MaskedImageModel

    opened = at(search, "tiny", tmp_path)
    candidates = [opened.measure.candidate(point.cell, [0]) for point in opened.space.points or ()]
    chosen = [found for found in candidates if not found.excluded][::10]
    for axis in ("mask_type", "mask_ratio", "scope", "head_layers", "target"):
        every = {found.cell[axis] for found in candidates if not found.excluded}
        assert {found.cell[axis] for found in chosen} == every
    for candidate in chosen:
        run = pretraining(candidate.rows[0].evaluations["validation"])
        assert run is not None
        batch = audit.fixed_batch(run, 2)
        assert audit.is_masked(run, batch, MaskedImageModel(run, batch.images.shape[1]))
        share, _ = overfit(run, batch)
        assert share <= LEARNT, candidate.cell
