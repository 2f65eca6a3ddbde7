"""The contract checks find what is planted, and nothing in what is right."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from tiny import BINS, CLASSES, CLUSTERS, INVERSE, SWIN, SWIN_V2, VIT, WORDS, pretrain

from harness import audit
from harness.audit import findings
from harness.core.masks.masking import spread
from harness.core.objective.contrastive import Pairs
from harness.core.pretrain.mim import MaskedImageModel
from harness.spec import (
    Backbone,
    BlockMask,
    CheckerboardMask,
    Corruption,
    FineTune,
    HarnessError,
    Loss,
    Mask,
    MlpHead,
    PixelTarget,
    RandomMask,
    Recipe,
    Scale,
    SquareMask,
    Target,
)
from harness.study import Study, axes, expand


@pytest.mark.parametrize("backbone", [VIT, SWIN, SWIN_V2], ids=["vit", "swin", "swinv2"])
@pytest.mark.parametrize(
    "corruption",
    [Corruption(), Corruption(fill="mean", token="none"), Corruption(fill="mean", token="replace")],
    ids=["token", "fill", "both"],
)
def test_hidden_pixels_do_not_reach_the_encoder(backbone: Backbone, corruption: Corruption) -> None:
    run = pretrain(backbone=backbone, corruption=corruption)
    batch = audit.fixed_batch(run, 2)
    assert audit.leak(run, batch) == 0.0
    assert audit.reach_of_visible(run, batch) > 0.0
    assert audit.is_masked(run, batch)


@pytest.mark.parametrize("backbone", [VIT, SWIN], ids=["vit", "swin"])
@pytest.mark.parametrize(
    "mask",
    [SquareMask(size=8, ratio=0.25), BlockMask(size=8, ratio=0.5), BlockMask(size=4, ratio=0.9, count="beit")],
    ids=["square", "block-wise", "block-wise, BEiT's count"],
)
def test_other_masks_hide_what_they_say(backbone: Backbone, mask: Mask) -> None:
    run = pretrain(backbone=backbone, mask=mask)
    batch = audit.fixed_batch(run)
    counts = batch.units.flatten(1).sum(1)
    assert (len(set(counts.tolist())) > 1) is (isinstance(mask, BlockMask) and mask.count == "beit")
    assert audit.is_masked(run, batch)
    assert not audit.first_step(run).same_as(audit.first_step(pretrain(backbone=backbone)))


class Inverted(MaskedImageModel):
    """A planted defect: visible tokens are replaced instead of hidden ones."""

    def encode(self, images: torch.Tensor, units: torch.Tensor) -> torch.Tensor:
        return super().encode(images, ~units)


class Additive(MaskedImageModel):
    """A planted defect: the token is added and nothing is removed."""

    def encode(self, images: torch.Tensor, units: torch.Tensor) -> torch.Tensor:
        return super().encode(images, torch.zeros_like(units)) + units.float().mean()


@pytest.mark.parametrize("defect", [Inverted, Additive])
def test_a_mask_that_does_not_hide_is_found(defect: type[MaskedImageModel]) -> None:
    run = pretrain()
    batch = audit.fixed_batch(run, 2)
    assert audit.leak(run, batch, defect(run, 3)) > 0.0
    assert not audit.is_masked(run, batch, defect(run, 3))


class TargetOfTheCorrupted(MaskedImageModel):
    """A planted defect: the target is made of what the encoder sees."""

    def forward(
        self, images: torch.Tensor, units: torch.Tensor, pairs: Pairs | None = None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return super().forward(images.masked_fill(spread(units, images.shape[-1])[:, None], 0.0), units, pairs)


@pytest.mark.parametrize(
    "target", [PixelTarget(), PixelTarget(downsample=4), BINS, CLUSTERS, WORDS], ids=lambda target: target.kind
)
@pytest.mark.parametrize("scope", ["masked", "full"])
def test_targets_show_what_is_hidden_from_the_encoder(target: Target, scope: Any) -> None:
    kind: Any = "l1" if isinstance(target, PixelTarget) else "cross-entropy"
    run = pretrain(target=target, loss=Loss(kind=kind, scope=scope), corruption=Corruption(fill="mean"))
    batch = audit.fixed_batch(run, 2)
    assert audit.is_masked(run, batch)
    assert audit.is_clean(run, batch)
    assert not audit.is_clean(run, batch, TargetOfTheCorrupted(run, 3))
    assert not audit.is_clean(run, batch, Inverted(run, 3))
    assert audit.dead_parameters(run) == []


def test_targets_do_not_see_the_mask() -> None:
    for target in (BINS, CLUSTERS, WORDS):
        run = pretrain(target=target, loss=CLASSES)
        batch = audit.fixed_batch(run, 2)
        made = MaskedImageModel(run, 3).targets(batch.images)
        hidden = spread(batch.units, made.shape[-1])
        changed = audit.noise(batch, spread(batch.units, run.image_size))
        differing = (MaskedImageModel(run, 3).targets(changed) != made).any(1)
        assert differing[hidden].any()
        assert not differing[~hidden].any()


def test_a_mask_that_hides_all_or_nothing_is_no_mask() -> None:
    run = pretrain()
    batch = audit.fixed_batch(run, 2)
    for units in (torch.zeros_like(batch.units), torch.ones_like(batch.units)):
        assert not audit.is_masked(run, audit.Batch(batch.images, units))


def test_differences_name_the_field_and_both_values() -> None:
    left, right = pretrain(), pretrain(mask=RandomMask(size=8, ratio=0.75), loss=Loss(scope="full"), seed=3)
    found = {item.path: (item.left, item.right) for item in audit.differences(left, right)}
    assert found == {"mask.ratio": (0.5, 0.75), "loss.scope": ("masked", "full"), "seed": (0, 3)}


def test_another_piece_is_one_difference() -> None:
    found = audit.differences(pretrain(), pretrain(head=MlpHead()))
    assert [item.path for item in found] == ["head"]


def test_no_difference_and_false_apart_from_zero() -> None:
    assert audit.differences(pretrain(), pretrain()) == []
    left, right = (VIT.replace(args={"qkv_bias": value}) for value in (False, 0))
    assert [item.path for item in audit.differences(left, right)] == ["args"]


SCALE = Scale(
    name="tiny",
    data=pretrain().data,
    image_size=32,
    backbone=VIT,
    pretrain=pretrain().recipe,
    finetune=pretrain().recipe,
)


def cell(scale: Scale, arm: str, seed: int) -> dict[str, FineTune]:
    """`ratio` is another mask, `slip` also another rate, `same` differs in nothing that the first step sees."""
    mask: Mask = RandomMask(size=8, ratio=0.75 if arm in ("ratio", "slip") else 0.5)
    recipe: Recipe = scale.pretrain.replace(lr=5e-3) if arm == "slip" else scale.pretrain
    # 8 of 16 units at every ratio from 0.4376 to 0.5: another number, the same mask
    mask = RandomMask(size=8, ratio=0.45) if arm == "same" else mask
    start = pretrain(mask=mask, recipe=recipe, seed=seed)
    return {"top1": FineTune(start=start, recipe=scale.finetune, seed=seed)}


STUDY = Study(
    cell=cell, grid=axes(arm=("reference", "ratio", "slip", "same")), scales=(SCALE,), reference={"arm": "reference"}
)


def test_a_learning_rate_that_slipped_is_named() -> None:
    found = {arm.row.axes["arm"]: [item.path for item in arm.differences["top1"]] for arm in audit.arms(expand(STUDY))}
    assert found == {
        "reference": [],
        "ratio": ["start.mask.ratio"],
        "slip": ["start.mask.ratio", "start.recipe.lr"],
        "same": ["start.mask.ratio"],
    }


def test_a_selection_without_the_reference_is_refused() -> None:
    with pytest.raises(HarnessError, match=r"the reference .* is not among the cells"):
        audit.arms(expand(STUDY, where={"arm": ["ratio"]}))


def test_dead_parameters() -> None:
    assert audit.dead_parameters(pretrain()) == []
    class_token = "encoder.model.cls_token"
    names = {name for name, _ in MaskedImageModel(pretrain(), 3).named_parameters()}
    assert class_token in names  # it is live: patch tokens attend to it


def test_switches_are_live() -> None:
    """Every shipped choice of loss, scope and head changes loss or gradients."""
    reference = audit.first_step(pretrain())
    assert reference.same_as(audit.first_step(pretrain()))
    changes: tuple[dict[str, Any], ...] = (
        {"loss": Loss(kind="l2")},
        {"loss": Loss(scope="full")},
        {"head": MlpHead()},
        {"head": MlpHead(layers=3)},
        {"head": INVERSE},
        {"seed": 1},
        *(
            {"target": target, "loss": CLASSES}
            for target in (BINS, BINS.replace(bins=4), CLUSTERS, CLUSTERS.replace(seed=1), WORDS)
        ),
    )
    for change in changes:
        assert not reference.same_as(audit.first_step(pretrain(**change)))
    smooth = [audit.first_step(pretrain(loss=Loss(kind="smooth-l1", beta=beta))) for beta in (0.5, 1.0)]
    assert not smooth[0].same_as(smooth[1])


def test_boards_that_agree_on_the_first_images_are_no_dead_switch() -> None:
    """At seed 0 the first two images draw the phase 0, as the fixed board has it; later ones do not."""
    boards = (CheckerboardMask(size=4), CheckerboardMask(size=4, phase="random"))
    fixed, random = (pretrain(mask=board) for board in boards)
    few = [audit.fixed_batch(run, 2).units for run in (fixed, random)]
    assert torch.equal(*few)
    assert not findings._agree_on_more(fixed, random)
    assert findings._agree_on_more(fixed, fixed)
