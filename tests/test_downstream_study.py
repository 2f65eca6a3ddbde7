"""The study of segmentation and detection: its cells, what it compares, and the published numbers beside them."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import pytest

from harness.papers import a2mim_detect, a2mim_segment, ade20k, coco, dense_probe, protocol_of
from harness.report.tables.paper_values import column_beside
from harness.spec import Detect, Garments, Pretrain, Scratch, Segment, key
from harness.study import Plan, Row, expand, load
from harness.study.claims import selections, selector

STUDY = Path(__file__).resolve().parent.parent / "studies" / "downstream_dense.py"
SCALES = ("tiny", "small", "paper", "cpu")
COLUMNS = ["probe_miou", "miou", "box_ap", "mask_ap"]


@functools.cache
def plan(scale: str) -> Plan:
    with pytest.MonkeyPatch.context() as patch:  # loading a study changes both
        patch.syspath_prepend(str(STUDY.parent.parent))
        patch.setenv("HARNESS_PROJECT", "")
        return expand(load(STUDY), scale=scale, seeds=1)


@pytest.mark.parametrize("scale", SCALES)
def test_every_cell_has_all_evaluations_of_one_start(scale: str) -> None:
    rows = [row for row in plan(scale).rows if not row.excluded]
    assert len(rows) == 7
    assert [tuple(row.axes.values()) for row in plan(scale).rows if row.excluded] == [("ResNet-50", "SymMIM")]
    for row in rows:
        assert list(row.evaluations) == (["box_ap", *COLUMNS[:2]] if scale == "cpu" else COLUMNS)
        assert len(starts(row)) == 1
        probe, head, boxes = (row.evaluations[column] for column in COLUMNS[:3])
        assert isinstance(probe, Segment)
        assert isinstance(head, Segment)
        assert isinstance(boxes, Detect)
        assert (probe.frozen, head.frozen, boxes.frozen) == (True, False, False)
        assert boxes.shown_metric == "box_ap"
        if "mask_ap" in row.evaluations:
            masks = row.evaluations["mask_ap"]
            assert key(boxes) == key(masks)
            assert masks.shown_metric == "mask_ap"
        assert isinstance(probe.start, Scratch if row.axes["method"] == "scratch" else Pretrain)


def test_a_scale_with_fewer_labels_keeps_its_starts() -> None:
    study = plan("small").study
    (small,) = [scale for scale in study.scales if scale.name == "small"]
    assert isinstance(small.labelled, Garments)
    fewer = small.replace(labelled=small.labelled.replace(train_images=500))
    found = expand(replace(study, scales=(fewer,)), seeds=1)
    assert [starts(row) for row in found.rows] == [starts(row) for row in plan("small").rows]


def starts(row: Row) -> set[str]:
    return {run.start.digest for run in row.evaluations.values()}


def test_at_scale_paper_the_trainings_are_the_presets() -> None:
    for row in plan("paper").rows:
        if row.excluded:
            continue
        model = {"ViT-B": "vit-b", "ResNet-50": "r50"}[str(row.axes["backbone"])]
        start = row.evaluations["miou"].start
        assert not isinstance(start, str)
        assert row.evaluations["probe_miou"] == dense_probe(start)  # type: ignore[arg-type]
        assert row.evaluations["miou"] == a2mim_segment(model, start=start)  # type: ignore[arg-type]
        assert row.evaluations["box_ap"] == a2mim_detect(model, start=start)  # type: ignore[arg-type]
        assert (row.evaluations["miou"].data, row.evaluations["box_ap"].data) == (ade20k(), coco())


def test_published_numbers_stand_beside_their_columns_and_are_not_subtracted() -> None:
    """A2MIM's, of two backbones: its files are not those that gave them."""
    study = plan("paper").study
    tables = {table.metric: table for table in study.papers}
    assert list(tables) == ["box_ap", "miou", "mask_ap"]
    found = {}
    for row in plan("paper").rows:
        for column, run in row.evaluations.items():
            told = tables[column].lookup(row.axes) if column in tables else None
            if told is not None:
                found[(*row.axes.values(), column)] = told.value
                assert told.protocol.differing(protocol_of(run))
    assert found == {
        ("ViT-B", "A2MIM", "miou"): 49.0,
        ("ViT-B", "A2MIM", "box_ap"): 49.4,
        ("ViT-B", "A2MIM", "mask_ap"): 43.5,
        ("ResNet-50", "A2MIM", "miou"): 38.3,
        ("ResNet-50", "A2MIM", "box_ap"): 39.8,
        ("ResNet-50", "A2MIM", "mask_ap"): 34.9,
    }


def test_claims_are_judged_by_box_ap_as_planned() -> None:
    for scale in SCALES:
        assert column_beside(plan(scale), list(plan(scale).columns())) == "box_ap"


@pytest.mark.parametrize("scale", SCALES)
def test_every_claim_compares_cells_that_are_there(scale: str) -> None:
    there = [dict(row.axes) for row in plan(scale).rows if not row.excluded]
    for claim in plan(scale).study.claims:
        for where in selections(claim):
            assert any(map(selector(where), there)), claim.sentence
