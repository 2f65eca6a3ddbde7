"""Test pictures of segmentations and detections in a report: which runs they are of, and what is drawn where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.overlay import TINT, colours
from harness.report import write
from harness.report.figures.examples import COLUMNS, Examples, draw, examples_of
from harness.report.labels import Words
from harness.spec import Backbone, Detect, LinearMap, Recipe, Scale, Scratch, Segment, Shapes, SimplePyramid
from harness.store import Attempt, Store
from harness.study import Plan, Study, axes, expand

RECIPE = Recipe(epochs=1, batch_size=8, lr=1e-3)
VIT = Backbone(name="vit_tiny_patch16_224", args={"depth": 4}, patch_size=4)
DATA = Shapes(image_size=16)
SCALE = Scale(name="tiny", data=DATA, image_size=16, backbone=VIT, pretrain=RECIPE, finetune=RECIPE)
NAMES = ("background", "disc", "cross")


def cell(scale: Scale, lr: float, seed: int) -> dict[str, Any]:
    common: dict[str, Any] = {"start": Scratch(backbone=scale.backbone, image_size=16), "data": DATA, "seed": seed}
    recipe = RECIPE.replace(lr=lr)
    detect = Detect(recipe=recipe, pyramid=SimplePyramid(width=16), **common)
    return {
        "miou": Segment(recipe=recipe, head=LinearMap(), **common),
        "box_ap": detect,
        "mask_ap": detect.replace(metric="mask_ap"),
    }


def planned(seeds: int = 2, rates: tuple[float, ...] = (0.1, 0.2)) -> Plan:
    study = Study(cell=cell, grid=axes(lr=rates), scales=(SCALE,), reference={"lr": 0.1}, name="s")
    return expand(study, seeds=seeds)


def finish(store: Store, run: Any, arrays: dict[str, Any] | bytes) -> None:
    attempt = store.acquire(run)
    assert isinstance(attempt, Attempt)
    path = attempt.artefact("examples.npz")
    if isinstance(arrays, bytes):
        path.write_bytes(arrays)
    else:
        np.savez_compressed(path, **arrays)
    attempt.finish(dict.fromkeys(run.metrics, 1.0), 1.0)
    attempt.release()


def segmented(predicted: int) -> dict[str, Any]:
    """One black picture whose upper half is a disc; everything is predicted to be one class."""
    truth = np.zeros((8, 8), dtype=np.uint8)
    truth[:4] = 1
    picture = np.zeros((8, 8, 1), dtype=np.uint8)
    told = {"truth_0": truth, "predicted_0": np.full_like(truth, predicted)}
    return {"names": np.array(NAMES), "picture_0": picture, **told}


def detected() -> dict[str, Any]:
    box, mask = np.array([[1.0, 1.0, 5.0, 5.0]]), np.zeros((1, 8, 8), dtype=bool)
    picture = np.zeros((8, 8, 3), dtype=np.uint8)
    return {
        "names": np.array(NAMES[1:]), "picture_0": picture, "truth_classes_0": np.array([1]),
        "truth_boxes_0": box, "truth_masks_0": mask, "predicted_classes_0": np.array([0]), "predicted_boxes_0": box,
        "predicted_scores_0": np.array([0.75]),
    }  # fmt: skip


def found(plan: Plan, store: Store) -> tuple[list[Examples], list[str]]:
    return examples_of(plan, store, Words({"lr": "learning rate"}))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def test_a_cell_shows_its_first_seed_that_has_pictures(store: Store) -> None:
    plan = planned()
    rows = {(row.axes["lr"], row.seed): row.evaluations for row in plan.rows}
    finish(store, rows[0.1, 0]["miou"], b"no archive")
    finish(store, rows[0.1, 1]["miou"], segmented(2))
    finish(store, rows[0.2, 1]["miou"], segmented(0))
    (shown,), remarks = found(plan, store)
    assert len(remarks) == 1
    assert "do not read" in remarks[0]
    assert (shown.evaluation, shown.title, shown.names) == ("miou", "learning rate", NAMES)
    assert [column.label for column in shown.columns] == ["0.1", "0.2"]
    assert [sorted(column.kinds) for column in shown.columns] == [[0, 1, 2], [0, 1]]
    disc, cross = (np.round(TINT * np.array(colours(NAMES)[kind])) for kind in (1, 2))
    truth, ours, others = shown.columns[0].truth[0], shown.columns[0].predicted[0], shown.columns[1].predicted[0]
    assert (truth[0, 0] == disc).all()
    assert (truth[7, 7] == 0).all()
    assert (ours == cross).all()
    assert (others == 0).all()


def test_columns_of_the_same_runs_are_shown_once(store: Store) -> None:
    plan = planned(seeds=1)
    for row in plan.rows:
        finish(store, row.evaluations["box_ap"], detected())
    (shown,), remarks = found(plan, store)
    assert (shown.evaluation, remarks) == ("box_ap", [])
    assert shown.columns[0].kinds == {0, 1}
    assert draw(shown).get_suptitle() == "predictions by learning rate\npredicted objects: of a score of 0.5 or more"


def test_a_figure_has_a_row_a_picture_and_a_column_a_cell(store: Store) -> None:
    plan = planned(seeds=1, rates=(0.1, 0.2, 0.3, 0.4, 0.5))
    for row in plan.rows:
        finish(store, row.evaluations["miou"], segmented(1))
    (shown,), _ = found(plan, store)
    first, second = shown.pages()
    assert [len(page.columns) for page in (first, second)] == [COLUMNS, 1]
    figure = draw(second)
    assert [axes.get_title() for axes in figure.axes] == ["picture", "truth", "0.5"]
    assert [text.get_text() for text in figure.legends[0].texts] == ["background", "disc"]
    assert figure.get_suptitle() == "predictions by learning rate"


def test_a_report_shows_them_and_one_from_records_lacks_them(store: Store, tmp_path: Path) -> None:
    plan = planned(seeds=1)
    assert not [name for name in write(plan, store, tmp_path / "none").files if "pictures" in name]
    for row in plan.rows:
        finish(store, row.evaluations["box_ap"], detected())
    files = write(plan, store, tmp_path / "report").files
    assert "figure-pictures-box_ap.png" in files
    assert "Test pictures, their truth, and predictions" in (tmp_path / "report" / "report.html").read_text()
