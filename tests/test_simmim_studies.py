"""The SimMIM studies: the paper's rows and recipes at scale paper, and what reduced scales leave out and why."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from overfit import LEARNT, overfit

from harness import audit
from harness.core.pretrain.mim import MaskedImageModel
from harness.papers import PaperTable, simmim_finetune, simmim_pretrain
from harness.papers.tables import published_records
from harness.spec import FineTune, Pretrain, RandomMask, Scalar, SquareMask, upstream
from harness.study import Plan, Study, expand, load

STUDIES = Path(__file__).resolve().parent.parent / "studies"
TABLES = {
    "simmim_masking": "simmim_table1_masking",
    "simmim_head": "simmim_table2_head",
    "simmim_resolution": "simmim_table3_resolution",
    "simmim_scope": "simmim_table4_scope",
    "simmim_target": "simmim_table5_target",
    "simmim_vit": "simmim_table6_vit_b",
    "simmim_scaling": "simmim_table7_scaling",
}
SMALLER_THAN_A_PATCH = "4 px is 1 px at 48 px, smaller than one 2-px patch of swin_tiny_patch4_window7_224"
NOT_APPLICABLE = "the paper prints N/A"
TOO_FINE = "a target of 96 x 96 is no coarsening of 96 px by whole pixels"
OTHER_RECIPE = "the published recipe of {} is another, which is not expressed here"
NO_MIM = {"DINO": "DINO is no masked image modelling", "MoCo v3": "MoCo v3 is no masked image modelling"}
NO_TOKENIZER = "BEiT's tokens need the weights of DALL-E's encoder: name their file as DALLE in this study"
NO_RECIPE = "the recipe of SwinV2-H is not published"


@functools.cache
def study(name: str) -> Study:
    with pytest.MonkeyPatch.context() as patch:  # loading a study changes both
        patch.syspath_prepend(str(STUDIES.parent))
        patch.setenv("HARNESS_PROJECT", "")
        return load(STUDIES / f"{name}.py")


def plan(name: str, scale: str) -> Plan:
    return expand(study(name), scale=scale, seeds=1)


@pytest.mark.parametrize("name", TABLES)
def test_the_cells_are_the_rows_of_the_published_table(name: str) -> None:
    axes = study(name).grid.axes
    printed = [tuple(record[axis] for axis in axes) for record in published_records(TABLES[name])]
    for scale in ("paper", "small", "tiny"):
        cells = [tuple("" if v is None else f"{v}" for v in row.axes.values()) for row in plan(name, scale).rows]
        assert sorted(cells) == sorted(printed)
        assert len(set(cells)) == len(cells)


@pytest.mark.parametrize("name", TABLES)
def test_every_printed_value_stands_beside_its_cell(name: str) -> None:
    found = study(name)
    assert isinstance(found.paper, PaperTable)
    shown = [value for cell in found.cells if (value := found.paper.lookup(cell)) is not None]
    assert len(shown) == len(found.paper.rows) == len(found.cells) - (2 if name == "simmim_target" else 0)
    assert all(found.paper.metric in row.evaluations for row in plan(name, "small").rows if not row.excluded)


Excluded = dict[tuple[Scalar, ...], str]
AT_ALL_SCALES: Excluded = {
    ("classification", "256-bin", 192): NOT_APPLICABLE,
    ("classification", "iGPT cluster", 192): NOT_APPLICABLE,
}
CONTRASTIVE: Excluded = {(method, 224): reason for method, reason in NO_MIM.items()}


@pytest.mark.parametrize(
    ("name", "scale", "excluded"),
    [
        ("simmim_masking", "tiny", {("random", 4, ratio): SMALLER_THAN_A_PATCH for ratio in (0.4, 0.6, 0.8)}),
        ("simmim_resolution", "small", {(96,): TOO_FINE}),
        ("simmim_resolution", "tiny", {(96,): TOO_FINE}),
        ("simmim_target", "small", AT_ALL_SCALES),
        ("simmim_target", "tiny", AT_ALL_SCALES),
        ("simmim_target", "paper", {**AT_ALL_SCALES, ("classification", "BEiT", None): NO_TOKENIZER}),
        ("simmim_vit", "small", CONTRASTIVE),
        ("simmim_vit", "tiny", CONTRASTIVE),
        (
            "simmim_vit",
            "paper",
            {
                **CONTRASTIVE,
                ("supervised baseline", 224): OTHER_RECIPE.format("supervised baseline"),
                ("ViT", 384): OTHER_RECIPE.format("ViT"),
                ("BEiT", 224): OTHER_RECIPE.format("BEiT"),
            },
        ),
        ("simmim_scaling", "paper", {("SwinV2-H", 800, 192, size): NO_RECIPE for size in (224, 512)}),
        *((name, "small", {}) for name in ("simmim_masking", "simmim_head", "simmim_scope", "simmim_scaling")),
        *((name, "tiny", {}) for name in ("simmim_head", "simmim_scope", "simmim_scaling")),
        *((name, "paper", {}) for name in ("simmim_masking", "simmim_head", "simmim_resolution", "simmim_scope")),
    ],
)
def test_what_is_left_out_and_why(name: str, scale: str, excluded: Excluded) -> None:
    rows = plan(name, scale).rows
    assert {tuple(row.axes.values()): row.excluded for row in rows if row.excluded} == excluded


@pytest.mark.parametrize("name", [name for name in TABLES if name not in ("simmim_vit", "simmim_scaling")])
def test_the_reference_is_the_published_run(name: str) -> None:
    assert reference(plan(name, "paper")) == simmim_finetune("swin-b", epochs=100, image_size=192)


def test_the_vit_is_the_published_run() -> None:
    assert reference(plan("simmim_vit", "paper")) == simmim_finetune("vit-b", epochs=800, image_size=224)
    (row,) = (row for row in plan("simmim_vit", "paper").rows if not row.excluded)
    assert row.evaluations["linear_top1"].start == simmim_pretrain("vit-b", epochs=800)


def reference(found: Plan) -> Any:
    wanted = found.study.complete(found.study.reference)
    (row,) = (row for row in found.rows if row.axes == wanted)
    return next(iter(row.evaluations.values()))


@pytest.mark.parametrize(
    ("model", "epochs", "size", "peak", "layer_decay"),
    [
        ("Swin-B", 100, 192, 8e-4, 0.9),
        ("Swin-B", 100, 224, 8e-4, 0.9),
        ("Swin-B", 800, 224, 4e-4, 0.8),
        ("Swin-L", 800, 224, 4e-4, 0.7),
        ("ViT-B", 800, 224, 4e-4, 0.65),
    ],
)
def test_scaling_has_the_published_recipes(model: str, epochs: int, size: int, peak: float, layer_decay: float) -> None:
    (row,) = (
        row
        for row in plan("simmim_scaling", "paper").rows
        if (row.axes["model"], row.axes["pretrain_epochs"], row.axes["finetune_size"]) == (model, epochs, size)
    )
    run = row.evaluations["simmim_top1"]
    assert isinstance(run, FineTune)
    assert isinstance(run.start, Pretrain)
    assert run.start.mask == RandomMask(size=32, ratio=0.6)
    assert (run.start.recipe.epochs, run.recipe.epochs, run.image_size) == (epochs, 100, size)
    assert run.start.recipe.scaled(run.start.recipe.lr) == pytest.approx(peak)
    assert run.recipe.scaled(run.recipe.lr) == pytest.approx(5e-3)
    assert run.recipe.layer_decay == layer_decay


def test_masks_at_scale_paper_hide_the_printed_shares() -> None:
    """Units of 6 x 6 (32 px) and 3 x 3 (64 px), as the table prints or the released generator counts."""
    hidden = {}
    for row in plan("simmim_masking", "paper").rows:
        start = row.evaluations["top1"].start
        assert isinstance(start, Pretrain)
        assert start.mask.size == row.axes["masked_patch_size"]
        if isinstance(start.mask, RandomMask | SquareMask):
            hidden[tuple(row.axes.values())] = start.mask.hidden_units(192)
    ratios = [round(0.1 * n, 1) for n in range(1, 10)]
    assert [hidden["random", 32, ratio] for ratio in ratios] == [4, 8, 11, 15, 18, 22, 26, 29, 33]
    assert [hidden["random", 64, ratio] for ratio in (0.1, 0.2)] == [1, 2]
    assert [hidden["random", 4, ratio] for ratio in (0.4, 0.6, 0.8)] == [922, 1383, 1844]
    assert [hidden["square", 32, ratio] for ratio in (0.11, 0.25, 0.44)] == [4, 9, 16]


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("scale", ["small", "tiny", "paper"])
def test_arms_differ_in_what_they_are_about(name: str, scale: str) -> None:
    about = {
        "simmim_masking": ("start.mask",),
        "simmim_head": ("start.head",),
        "simmim_resolution": ("start.target",),
        "simmim_scope": ("start.loss.scope",),
        "simmim_target": ("start.target", "start.loss"),
        "simmim_vit": ("start",),
        "simmim_scaling": ("start", "image_size", "backbone", "recipe.layer_decay", "recipe.drop_path",
                           "recipe.no_decay"),
    }[name]  # fmt: skip
    for arm in audit.arms(plan(name, scale)):
        for found in arm.differences.values():
            paths = [item.path for item in found if not item.path.endswith("assumed")]
            if name == "simmim_vit" and scale != "paper":  # a start from scratch is given its image size
                paths = [path for path in paths if path != "image_size"]
            assert all(path.startswith(about) for path in paths)


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_every_cell_at_scale_tiny_hides_learns_and_differs(name: str) -> None:
    steps: list[audit.Step] = []
    for run in pretrainings(plan(name, "tiny")):
        batch = audit.fixed_batch(run, 2)
        model = MaskedImageModel(run, batch.images.shape[1])
        assert audit.is_masked(run, batch, model)
        share, first = overfit(run, batch)
        assert share <= LEARNT, f"{run.mask} {run.head} {run.target} {run.loss}"
        assert not any(first.same_as(other) for other in steps), f"{run.mask} {run.head} {run.target} {run.loss}"
        steps.append(first)


def pretrainings(found: Plan) -> list[Pretrain]:
    """The pre-trainings of a plan, one of those that differ in their recipe only."""
    recipe = found.scale.pretrain
    starts = (upstream(run) for row in found.rows for run in row.evaluations.values())
    return list(
        {(one := start.replace(recipe=recipe)).digest: one for start in starts if isinstance(start, Pretrain)}.values()
    )
