"""The study of all masks: equal ratios, the same units at every scale, published values, cells that learn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from overfit import LEARNT, overfit

from harness import audit
from harness.audit.masks import check_masks
from harness.core.masks.masking import make_views
from harness.core.pretrain.mim import MaskedImageModel
from harness.papers import PaperTable
from harness.spec import FrequencyMask, LocalMask, Mask, Pretrain, pretraining
from harness.study import Plan, Row, expand, load

STUDIES = Path(__file__).resolve().parent.parent / "studies"


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    with pytest.MonkeyPatch.context() as patch:  # loading a study changes both
        patch.syspath_prepend(str(STUDIES.parent))
        patch.setenv("HARNESS_PROJECT", "")
        study = load(STUDIES / "masks_zoo.py")
    return {scale: expand(study, scale=scale, seeds=1) for scale in ("small", "tiny", "paper")}


def start_of(row: Row) -> Pretrain:
    start = pretraining(row.evaluations["finetune_top1"])
    assert start is not None
    return start


def in_patches(start: Pretrain) -> Mask:
    """The mask at a patch of one pixel, where it is 14 px."""
    if isinstance(start.mask, FrequencyMask):
        return start.mask.replace(radius=start.mask.radius * 14 / start.image_size)
    return start.mask.replace(size=start.mask.size // start.backbone.patch_size)


def test_nothing_is_left_out_and_scales_have_the_same_units(plans: dict[str, Plan]) -> None:
    found: list[list[Mask]] = []
    for plan in plans.values():
        assert not any(row.excluded for row in plan.rows)
        starts = [start_of(row) for row in plan.rows]
        assert {start.image_size // start.backbone.patch_size for start in starts} == {14}
        found.append([in_patches(start) for start in starts])
    assert found[0] == found[1] == found[2]
    assert len({mask.digest for mask in found[0]}) == len(found[0]) == 40


def test_cells_of_one_ratio_hide_as_much(plans: dict[str, Plan]) -> None:
    """Within the rounding of a square's side, BEiT's short counts and the ragged board: 3 % of the image."""
    for row in plans["paper"].rows:
        mask = start_of(row).mask
        if mask.scored_by is not None:
            assert mask.hidden_units(224) == 147
            continue
        if isinstance(mask, FrequencyMask | LocalMask):
            assert row.axes["mask_ratio"] is None
            assert isinstance(mask, LocalMask) or mask.radius == 16
            continue
        units = make_views(mask, image_size=224, seed=0, step=0, steps=1, positions=torch.arange(500))
        assert float(units.double().mean()) == pytest.approx(row.axes["mask_ratio"], abs=0.03), row.axes


def test_published_values_stand_beside_their_cells(plans: dict[str, Plan]) -> None:
    paper = plans["paper"].study.paper
    assert isinstance(paper, PaperTable)
    shown = {tuple(cell.values()): v for cell in plans["paper"].study.cells if (v := paper.lookup(cell)) is not None}
    assert {cell: value.value for cell, value in shown.items()} == {
        ("random", 0.75): 84.9,
        ("block-wise", 0.75): 82.8,
        ("block-wise", 0.5): 83.9,
        ("grid", 0.75): 84.0,
    }
    assert {value.trust for value in shown.values()} == {"text"}


def test_arms_differ_in_their_mask_alone(plans: dict[str, Plan]) -> None:
    for plan in plans.values():
        for arm in audit.arms(plan):
            paths = {item.path for found in arm.differences.values() for item in found}
            allowed: tuple[str, ...] = ("start.mask", "start.assumed")
            if arm.row.axes["mask"] in ("hard patches", "hardest patches"):
                allowed = ("start.mask", "start.momentum", "start.loss_predictor")
            if arm.row.axes["mask"] == "frequencies":
                assert {"start.loss.kind", "start.loss.gamma"} & paths
                allowed = ("start.mask", "start.loss")
            assert all(path.startswith(allowed) for path in paths)


def test_the_audit_finds_no_defective_mask_and_names_the_ragged_board(plans: dict[str, Plan]) -> None:
    for row in plans["tiny"].rows:
        run = start_of(row)
        verdicts = {found.text: found.verdict for found in check_masks(run.mask, run.image_size, seed=run.seed)}
        assert "failed" not in verdicts.values(), verdicts
        if row.axes["mask"] == "checkerboard 2":
            assert any("96 of 196 units hidden (48.98%), but ratio 0.5" in text for text in verdicts)


@pytest.mark.slow
def test_every_cell_at_scale_tiny_hides_learns_and_differs(plans: dict[str, Plan]) -> None:
    steps: list[audit.Step] = []
    for row in plans["tiny"].rows:
        run = start_of(row)
        batch = audit.fixed_batch(run)
        assert audit.is_masked(run, batch, MaskedImageModel(run, batch.images.shape[1])), row.axes
        share, first = overfit(run, batch)
        assert share <= LEARNT, row.axes
        assert not any(first.same_as(other) for other in steps), row.axes
        steps.append(first)
