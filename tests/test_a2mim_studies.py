"""The A2MIM studies: the paper's rows and recipes, what is left out and why, and what every cell at scale tiny does."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from overfit import LEARNT, overfit

from harness import audit, claims
from harness.core.model.corruption import declared_leaks
from harness.core.pretrain.mim import MaskedImageModel
from harness.papers import PaperTable, a2mim_finetune, a2mim_pretrain, simmim_cnn_pretrain
from harness.spec import FineTune, Pretrain, Scalar, upstream
from harness.study import Plan, Study, expand, load

STUDIES = Path(__file__).resolve().parent.parent / "studies"
NAMES = ("a2mim_components", "a2mim_site", "a2mim_backbones", "a2mim_head_target")
HIDES_NOTHING = "a token that is added to what nothing fills hides nothing"
COVERED = "a token that replaces a ViT's patches leaves nothing of what fills their pixels"
NO_OTHER = "the released SimMIM of ViTs hides what it says it hides"
NO_TEACHER = "DINO's features need the weights of its teacher: name their files as DINO in this study"
MIXED = "positions of 32 px mix hidden and visible units of 16 px"
VITS = ("ViT-S", "ViT-B", "ViT-L")


@functools.cache
def study(name: str) -> Study:
    with pytest.MonkeyPatch.context() as patch:  # loading a study changes both
        patch.syspath_prepend(str(STUDIES.parent))
        patch.setenv("HARNESS_PROJECT", "")
        return load(STUDIES / f"{name}.py")


@functools.cache
def plan(name: str, scale: str) -> Plan:
    return expand(study(name), scale=scale, seeds=1)


def excluded(name: str, scale: str) -> dict[tuple[Scalar, ...], str]:
    return {tuple(row.axes.values()): row.excluded for row in plan(name, scale).rows if row.excluded}


@pytest.mark.parametrize("scale", ["small", "tiny", "paper"])
def test_what_is_left_out_and_why(scale: str) -> None:
    assert list(excluded("a2mim_components", scale).values()) == [HIDES_NOTHING]
    assert excluded("a2mim_site", scale) == {("ViT-S", "stem", "replace"): COVERED}
    left_out: dict[tuple[Scalar, ...], str] = {(vit, "released SimMIM"): NO_OTHER for vit in VITS}
    if scale == "paper":
        other = "the published recipe of supervised on {} is another, which is not expressed here"
        left_out |= {(vit, "supervised"): other.format(vit) for vit in VITS}
    assert excluded("a2mim_backbones", scale) == left_out
    left_out = {("target", "DINO feature", name): NO_TEACHER for name in ("ResNet-50", "ViT-B")}
    if scale != "paper":
        left_out["target", "momentum feature", "ResNet-50"] = MIXED
    if scale == "tiny":  # patches of 2 px
        small = "cells of 1 px: a histogram of one pixel is its direction alone"
        left_out["target", "HoG", "ViT-B"] = left_out["A2MIM+", "HoG, 2-layer MLP with DW", "ViT-B"] = small
    assert excluded("a2mim_head_target", scale) == left_out


def test_values_from_memory_stand_beside_their_cells_as_unverified() -> None:
    found = study("a2mim_components")
    assert isinstance(found.paper, PaperTable)
    shown = {cell["arm"]: value for cell in found.cells if (value := found.paper.lookup(cell)) is not None}
    assert [value.value for value in shown.values()] == [78.2, 78.5, 78.6, 78.8]
    assert not any(value.verified for value in shown.values())
    assert study("a2mim_site").paper is None
    found = study("a2mim_head_target")
    assert isinstance(found.paper, PaperTable)
    values = {tuple(cell.values()): value for cell in found.cells if (value := found.paper.lookup(cell)) is not None}
    assert len(values) == 16
    assert not any(value.verified for value in values.values())
    assert values["decoder", "2-layer Transformer with DW", "ViT-B"].value == 84.3
    assert values["target", "HoG", "ResNet-50"].value == 78.9


def test_the_main_table_stands_beside_its_cells() -> None:
    found = study("a2mim_backbones")
    assert isinstance(found.paper, PaperTable)
    values = {tuple(cell.values()): found.paper.lookup(cell) for cell in found.cells}
    assert all(value is not None and value.verified for value in values.values())
    wanted = {("ResNet-50", "supervised"): 79.8, ("ResNet-50", "SimMIM"): 79.9, ("ConvNeXt-B", "A2MIM"): 84.1}
    wanted |= {("ViT-S", "released A2MIM"): 82.1, ("ResNet-200", "released SimMIM"): 82.2}
    assert {cell: value.value for cell, value in values.items() if value is not None and cell in wanted} == wanted


@pytest.mark.parametrize("name", NAMES)
def test_every_claim_compares_cells_that_are_there(name: str) -> None:
    """Two sides that are no single best cells have to meet in all other axes."""
    found = study(name)
    for claim in found.claims:
        assert isinstance(claim, claims.Comparison)
        if isinstance(claim.left, claims.Best) and isinstance(claim.right, claims.Best):
            for side in (claim.left, claim.right):
                assert sum(map(claims.selector({**claim.at, **side.where}), found.cells)) == 1
            continue
        assert not isinstance(claim.left, claims.Best)
        assert not isinstance(claim.right, claims.Best)
        named = {*claim.left, *claim.right}
        sides = [
            {tuple(value for axis, value in cell.items() if axis not in named) for cell in found.cells if matches(cell)}
            for matches in (claims.selector({**claim.at, **claim.left}), claims.selector({**claim.at, **claim.right}))
        ]
        assert sides[0] & sides[1], claim.sentence


def run_of(name: str, **axes: Scalar) -> FineTune:
    (row,) = (row for row in plan(name, "paper").rows if all(row.axes[axis] == value for axis, value in axes.items()))
    run = row.evaluations["top1"]
    assert isinstance(run, FineTune)
    return run


def test_published_runs() -> None:
    a2mim = run_of("a2mim_components", arm="A2MIM")
    assert a2mim.start == a2mim_pretrain("r50", epochs=100, variant="paper").replace(assumed=a2mim.start.assumed)  # type: ignore[union-attr]
    assert a2mim.recipe == a2mim_finetune("r50", protocol="rsb-a3").recipe
    for model, backbone in (("r50", "ResNet-50"), ("convnext-b", "ConvNeXt-B"), ("vit-l", "ViT-L")):
        found = run_of("a2mim_backbones", backbone=backbone, method="released A2MIM")
        assert found == a2mim_finetune(model)  # type: ignore[arg-type]
    released = run_of("a2mim_backbones", backbone="ResNet-101", method="released SimMIM")
    assert released.start == simmim_cnn_pretrain("r101", released=True)
    simmim = run_of("a2mim_backbones", backbone="ViT-S", method="SimMIM")
    assert (simmim.recipe.epochs, simmim.start.recipe.epochs) == (100, 800)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["a2mim_components", "a2mim_site"])
@pytest.mark.parametrize("scale", ["small", "tiny", "paper"])
def test_arms_differ_in_what_they_are_about(name: str, scale: str) -> None:
    for arm in audit.arms(plan(name, scale)):
        if arm.row.axes.get("backbone") == "ViT-S":
            continue
        for found in arm.differences.values():
            paths = [item.path for item in found if not item.path.endswith("assumed")]
            assert all(path.startswith(("start.corruption", "start.fourier")) for path in paths)


def pretrainings(found: Plan) -> list[Pretrain]:
    """The pre-trainings of a plan, one of those that differ in their recipe only."""
    recipe = found.scale.pretrain
    starts = (upstream(run) for row in found.rows for run in row.evaluations.values())
    return list(
        {(one := start.replace(recipe=recipe)).digest: one for start in starts if isinstance(start, Pretrain)}.values()
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_cell_at_scale_tiny_hides_learns_and_differs(name: str) -> None:
    steps: list[audit.Step] = []
    for run in pretrainings(plan(name, "tiny")):
        batch = audit.fixed_batch(run, 2)
        about = f"{run.backbone} {run.corruption} {run.fourier}"
        model = MaskedImageModel(run, batch.images.shape[1])
        assert audit.is_masked(run, batch, model), f"{about} leaks beside {declared_leaks(run)}"
        assert audit.is_clean(run, batch, model), about
        share, first = overfit(run, batch)
        assert share <= LEARNT, f"{about}: {share:.2f}"
        assert not any(first.same_as(other) for other in steps), about
        steps.append(first)
