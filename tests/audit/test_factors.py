"""What axes change, and what would declare it: one finding an axis, and pasting the remedy ends it."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from harness.audit import Finding
from harness.audit.factors import check_factors, check_recipe
from harness.papers import a2mim, simmim
from harness.spec import Backbone, FineTune, Knn, Pretrain, RandomMask, Recipe, Scale, Scratch, Shapes
from harness.study import Grid, Study, axes, expand

BACKBONES = {
    "vit": Backbone(name="vit_tiny_patch16_224", args={"embed_dim": 24, "depth": 3, "num_heads": 3}, patch_size=8),
    "resnet": Backbone(name="resnet18", patch_size=4, stride=32),
}
RECIPE = Recipe(epochs=2, batch_size=16, lr=1e-3, lr_batch=None)
SCALE = Scale(
    name="small",
    data=Shapes(image_size=64, train=64, test=16),
    image_size=64,
    backbone=BACKBONES["vit"],
    pretrain=RECIPE,
    finetune=RECIPE,
)
BOTH = axes(backbone=tuple(BACKBONES), ratio=(0.5, 0.75)) | axes(backbone=tuple(BACKBONES))
EVERY_PRESET = (
    lambda scale, ratio, seed: simmim(scale, mask=RandomMask(size=16, ratio=ratio), seed=seed),
    lambda scale, ratio, seed: a2mim(scale, mask=RandomMask(size=16, ratio=ratio), seed=seed),
    lambda scale, ratio, seed: a2mim(scale, variant="released", mask=RandomMask(size=16, ratio=ratio), seed=seed),
)


def found(
    start: Callable[[Scale, float, int], Pretrain] = EVERY_PRESET[0],
    grid: Grid = BOTH,
    recipe: Callable[[str], Recipe] = lambda backbone: RECIPE,
    **settings: Any,
) -> dict[str, list[Finding]]:
    """Findings by verdict of a study of backbones and ratios, with a control from scratch."""

    def cell(scale: Scale, backbone: str, ratio: float | None, seed: int) -> dict[str, FineTune | Knn]:
        ours = scale.replace(backbone=BACKBONES[backbone], pretrain=recipe(backbone))
        if ratio is None:
            first = Scratch(backbone=ours.backbone, image_size=scale.image_size)
            return {"top1": FineTune(start=first, data=scale.data, recipe=RECIPE, seed=seed)}
        trained = start(ours, ratio, seed)
        return {"top1": FineTune(start=trained, recipe=RECIPE, seed=seed), "knn": Knn(start=trained)}

    reference = {"backbone": "vit", "ratio": 0.5}
    study = Study(cell=cell, grid=grid, scales=(SCALE,), **{"reference": reference, **settings})
    named: dict[str, list[Finding]] = {}
    assert list(check_factors(expand(replace(study, first_seed=10), seeds=1))) == list(check_factors(expand(study)))
    for finding in check_factors(expand(study, seeds=1)):
        named.setdefault(finding.verdict, []).append(finding)
    return named


def remedy(findings: list[Finding]) -> dict[str, tuple[str, ...]]:
    """The factors that failed findings ask for, as the reader would paste them."""
    factors: dict[str, tuple[str, ...]] = {}
    for text in {finding.text for finding in findings}:
        factors |= ast.literal_eval(text.rpartition("factors=")[2])
    return factors


@pytest.mark.parametrize("start", EVERY_PRESET, ids=["simmim", "a2mim", "released a2mim"])
def test_a_backbone_axis_is_one_finding_and_its_remedy_holds(start: Any) -> None:
    failed = found(start)["failed"]
    assert len({finding.text for finding in failed}) == 1
    assert {finding.arm for finding in failed} == {"resnet 0.5", "resnet 0.75"}
    assert "start.backbone.name: 'resnet18' instead of 'vit_tiny_patch16_224'" in failed[0].text
    assert remedy(failed) == {"backbone": ("start.backbone",)}
    assert "failed" not in found(start, factors=remedy(failed))


def test_what_goes_with_the_backbone_but_is_set_by_no_preset_is_named() -> None:
    def start(scale: Scale, ratio: float, seed: int) -> Pretrain:
        size = 32 if scale.backbone.name == "resnet18" else 16
        return simmim(scale, mask=RandomMask(size=size, ratio=ratio), seed=seed)

    failed = found(start)["failed"]
    assert remedy(failed) == {"backbone": ("start.backbone", "start.mask")}
    named = found(start, factors={"backbone": ("start.backbone",)}, grid=axes(backbone=tuple(BACKBONES), ratio=0.5))
    assert "start.mask.size: 32 instead of 16" in named["failed"][0].text
    assert remedy(named["failed"]) == {"backbone": ("start.backbone", "start.mask")}


def test_a_slip_beside_a_declared_axis_is_laid_to_that_axis() -> None:
    factors = {"backbone": ("start.backbone",)}
    slipped = lambda backbone: RECIPE.replace(lr=2e-3) if backbone == "resnet" else RECIPE  # noqa: E731
    failed = found(recipe=slipped, factors=factors)["failed"]
    assert {finding.arm for finding in failed} == {"resnet 0.5", "resnet 0.75"}
    assert "start.recipe.lr: 0.002 instead of 0.001 (in top1, knn)" in failed[0].text
    assert remedy(failed) == {"backbone": ("start.backbone", "start.recipe.lr")}
    assert "failed" not in found(recipe=slipped, factors=remedy(failed))


def test_what_an_axis_changes_as_declared_is_no_remark() -> None:
    seen = found(factors={"backbone": ("start.backbone",)})
    assert "remark" not in seen
    assert any(finding.text.startswith("ratio changes start") for finding in seen["passed"])


def test_an_evaluation_that_the_reference_lacks_is_no_fault() -> None:
    seen = found(reference={"backbone": "vit"}, factors={"backbone": ("start.backbone",)})
    assert "failed" not in seen
    assert seen["remark"][0].text == "not compared, as the reference lacks it: knn"


def test_where_seeds_begin_is_no_difference_from_the_published_run() -> None:
    def cell(scale: Scale, ratio: float, seed: int) -> dict[str, FineTune]:
        start = simmim(scale, mask=RandomMask(size=16, ratio=ratio), seed=seed)
        return {"top1": FineTune(start=start, recipe=scale.finetune, seed=seed)}

    scales = (SCALE.replace(first_seed=10), SCALE.replace(name="paper", pretrain=RECIPE.replace(epochs=8)))
    study = Study(cell=cell, grid=axes(ratio=(0.5, 0.75)), scales=scales, reference={"ratio": 0.5})
    (only,) = check_recipe(expand(study, seeds=1))
    assert only.text == "top1: start.recipe.epochs is 2 here and 8 in the published run"
