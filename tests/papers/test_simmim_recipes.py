"""SimMIM's published recipes, value by value as the released configurations and mmpretrain's have them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from harness.papers import simmim_backbone, simmim_finetune, simmim_pretrain, simmim_probe
from harness.papers.simmim.recipes import FINETUNED, PRETRAINED, Variant
from harness.spec import Augment, Cosine, FineTune, HarnessError, MultiStep, Pretrain, RandomMask, Scratch

VARIANTS: tuple[Variant, Variant] = ("official", "mmpretrain")


def effective(run: Pretrain | FineTune) -> dict[str, Any]:
    """The figures that a recipe is published by, rates at the batch of 2048."""
    recipe = run.recipe
    return {
        "image": run.image_size,
        "epochs": recipe.epochs,
        "warm-up": recipe.warmup_epochs,
        "peak": pytest.approx(recipe.scaled(recipe.lr)),
        "first": pytest.approx(recipe.scaled(recipe.warmup_lr)),
        "floor": pytest.approx(recipe.scaled(recipe.schedule.min_lr)) if recipe.schedule.kind == "cosine" else None,
        "drop path": recipe.drop_path,
        "layer decay": recipe.layer_decay,
    }


@pytest.mark.parametrize(
    ("model", "epochs", "peak", "first", "floor", "image"),
    [
        ("swin-b", 100, 8e-4, 4e-6, 4e-5, 192),
        ("swin-b", 800, 4e-4, 2e-6, None, 192),
        ("swin-l", 800, 4e-4, 2e-6, None, 192),
        ("vit-b", 800, 4e-4, 2e-6, None, 224),
    ],
)
def test_pretraining(model: Any, epochs: int, peak: float, first: float, floor: float | None, image: int) -> None:
    run = simmim_pretrain(model, epochs=epochs)
    assert effective(run) == {
        "image": image,
        "epochs": epochs,
        "warm-up": 10,
        "peak": peak,
        "first": first,
        "floor": floor,
        "drop path": 0.1 if model == "vit-b" else 0.0,
        "layer decay": None,
    }
    if floor is None:
        assert run.recipe.schedule == MultiStep(milestones=(700,), gamma=0.1)
    assert run.mask == RandomMask(size=32, ratio=0.6)
    assert run.recipe.augment == Augment(crop_scale=(0.67, 1.0), crop_ratio=(3 / 4, 4 / 3), interpolation="bilinear")


@pytest.mark.parametrize(
    ("model", "epochs", "image", "layer_decay", "drop_path"),
    [
        ("swin-b", 100, 192, 0.9, 0.1),
        ("swin-b", 100, 224, 0.9, 0.1),
        ("swin-b", 800, 224, 0.8, 0.1),
        ("swin-l", 800, 224, 0.7, 0.2),
        ("vit-b", 800, 224, 0.65, 0.1),
    ],
)
def test_finetuning(model: Any, epochs: int, image: int, layer_decay: float, drop_path: float) -> None:
    run = simmim_finetune(model, epochs=epochs, image_size=image)
    assert effective(run) == {
        "image": image,
        "epochs": 100,
        "warm-up": 20,
        "peak": 5e-3,
        "first": 1e-6,
        "floor": 1e-6,
        "drop path": drop_path,
        "layer decay": layer_decay,
    }
    assert run.start == simmim_pretrain(model, epochs=epochs)
    augment = run.recipe.augment
    assert (augment.mixup, augment.cutmix, augment.smoothing, augment.erasing) == (0.8, 1.0, 0.1, 0.25)
    assert (augment.crop_scale, augment.interpolation) == ((0.08, 1.0), "bicubic")
    assert (augment.rand_augment, augment.color_jitter) == ("rand-m9-mstd0.5-inc1", 0.4)
    assert run.pool == "mean"


@pytest.mark.parametrize(
    ("model", "epochs", "image", "before", "after"),
    [
        ("swin-b", 100, 192, 6, 6),
        ("swin-b", 100, 224, 6, 7),
        ("swin-b", 800, 224, 6, 7),
        ("swin-l", 800, 224, 12, 14),
    ],
)
def test_windows(model: Any, epochs: int, image: int, before: int, after: int) -> None:
    run = simmim_finetune(model, epochs=epochs, image_size=image)
    assert dict(run.start.backbone.args)["window_size"] == before
    assert dict(run.built.args)["window_size"] == after
    assert (run.backbone is None) == (before == after)


@pytest.mark.parametrize("variant", ["official", "mmpretrain"])
def test_common_to_all(variant: Any) -> None:
    runs: list[Pretrain | FineTune] = [
        simmim_pretrain(model, epochs=epochs, variant=variant)
        for model, epochs in PRETRAINED
        if not (variant == "mmpretrain" and model == "vit-b")
    ]
    runs += [
        simmim_finetune(model, epochs=epochs, image_size=image, variant=variant)
        for model, epochs, image in FINETUNED
        if not (variant == "mmpretrain" and model == "vit-b")
    ]
    assert len(runs) == (9 if variant == "official" else 7)
    for run in runs:
        recipe = run.recipe
        assert (recipe.batch_size, recipe.lr_batch, recipe.weight_decay, recipe.clip) == (2048, 512, 0.05, 5.0)
        assert (recipe.betas, recipe.eps, recipe.precision) == ((0.9, 0.999), 1e-8, "fp16")
    assert len({run.digest for run in runs}) == len(runs)


def changes(left: Any, right: Any) -> dict[str, tuple[object, object]]:
    """Fields of two recipes that differ."""
    return {name: (old, right.values[name]) for name, old in left.values.items() if old != right.values[name]}


def test_what_mmpretrain_changes_in_pretraining() -> None:
    """Drop path (its class's default), the sets of weight decay, and the cosine's beginning."""
    left, right = (simmim_pretrain("swin-b", variant=variant).recipe for variant in VARIANTS)
    found = changes(left, right)
    assert set(found) == {"drop_path", "no_decay", "schedule"}
    assert found["drop_path"] == (0.0, 0.1)
    assert found["no_decay"] == ("simmim-swin", "mmpretrain")
    assert isinstance(right.schedule, Cosine)
    assert right.schedule.counted_from == "warm-up"
    official, mmpretrain = (simmim_pretrain("swin-l", epochs=800, variant=variant) for variant in VARIANTS)
    assert dict(mmpretrain.backbone.args)["always_partition"] is True
    assert set(changes(official.recipe, mmpretrain.recipe)) == {"drop_path", "no_decay"}


def test_what_mmpretrain_changes_in_finetuning() -> None:
    pair = [simmim_finetune("swin-b", epochs=800, image_size=224, variant=variant) for variant in VARIANTS]
    found = changes(pair[0].recipe, pair[1].recipe)
    assert set(found) == {"layer_decay", "no_decay", "schedule"}
    assert found["layer_decay"] == (0.8, 0.9)
    large = simmim_finetune("swin-l", epochs=800, image_size=224, variant="mmpretrain")
    assert isinstance(large.recipe.schedule, Cosine)
    assert (large.recipe.schedule.epochs, large.recipe.schedule.counted_from) == (100, "warm-up")
    assert large.recipe.layer_decay == 0.7


def test_vit_b_on_the_paper_s_schedule() -> None:
    """Twenty epochs of warm-up and a cosine, where the released configuration has ten and a step at epoch 700."""
    run = simmim_pretrain("vit-b", epochs=800, schedule="paper")
    assert (run.recipe.warmup_epochs, run.recipe.schedule.kind) == (20, "cosine")
    assert run.recipe.scaled(run.recipe.lr) == pytest.approx(8e-4)
    assert "paper's schedule" in run.assumed[0]
    assert simmim_pretrain("vit-b", epochs=800).assumed == ()


def test_vit_b_is_built_as_released() -> None:
    backbone = simmim_pretrain("vit-b", epochs=800).backbone
    assert (backbone.name, backbone.variant, backbone.stride) == ("beit_base_patch16_224", "simmim", 16)
    assert simmim_finetune("vit-b", epochs=800, image_size=224).built == backbone


def test_linear_probe() -> None:
    run = simmim_probe()
    assert (run.block, run.recipe.epochs, run.image_size) == (8, 100, 224)
    assert "assumed" in run.assumed[0]
    assert run.replace(assumed=()).digest == run.digest


def test_seeds_reach_both_stages() -> None:
    run = simmim_finetune(seed=3)
    assert isinstance(run.start, Pretrain)
    assert (run.seed, run.start.seed) == (3, 3)


def test_another_start() -> None:
    start = Scratch(backbone=simmim_backbone("swin-b"), image_size=192)
    data = simmim_pretrain().data
    run = simmim_finetune(start=start, data=data)
    assert run.start == start


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: simmim_pretrain("swin-l", epochs=100), "no pre-training of swin-l for 100 epochs; valid: swin-b 100"),
        (
            lambda: simmim_pretrain("vit-b", epochs=800, variant="mmpretrain"),
            "mmpretrain has no SimMIM recipe of vit-b",
        ),
        (lambda: simmim_pretrain("swin-b", schedule="paper"), "schedule='paper' is a choice of vit-b"),
        (lambda: simmim_pretrain("swin-h"), "no model 'swin-h'; valid: swin-b, swin-l, vit-b"),  # type: ignore[arg-type]
        (
            lambda: simmim_finetune("swin-b", epochs=800, image_size=192),
            "no fine-tuning of swin-b after 800 epochs at 192",
        ),
    ],
)
def test_what_is_not_published_is_refused(make: Any, message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        make()


def test_a_backbone_of_another_patch_is_refused() -> None:
    run = simmim_finetune()
    with pytest.raises(ValueError, match="backbone has patch_size 2, the start 4"):
        run.replace(backbone=run.built.replace(patch_size=2))


def test_all_points_differ() -> None:
    runs = [simmim_pretrain(model, epochs=epochs) for model, epochs in PRETRAINED]
    assert all(left.digest != right.digest for left, right in itertools.combinations(runs, 2))


@pytest.mark.parametrize(
    ("model", "lender", "epochs"), [("swin-t", "swin-b", 800), ("swinv2-b", "swin-b", 100), ("vit-s", "vit-b", 800)]
)
def test_smaller_models_have_a_lent_recipe_and_say_so(model: Any, lender: Any, epochs: int) -> None:
    ours, theirs = (simmim_finetune(name, epochs=epochs, image_size=224) for name in (model, lender))
    assert ours.recipe == theirs.recipe
    assert isinstance(ours.start, Pretrain)
    assert isinstance(theirs.start, Pretrain)
    assert ours.start.recipe == theirs.start.recipe
    assert ours.start.mask == theirs.start.mask
    assert ours.assumed == ours.start.assumed == (f"SimMIM publishes no recipe of {model}: it has that of {lender}",)
    assert theirs.assumed == ()
