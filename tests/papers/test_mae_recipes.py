"""MAE's published recipes, value by value, and the presets of MAE and SymMIM at a scale."""

from __future__ import annotations

from typing import Any

import pytest

from harness.core.train.optimiser import learning_rate, parameter_groups
from harness.papers import mae, mae_finetune, mae_pretrain, mae_probe, symmim
from harness.spec import (
    Backbone,
    CheckerboardMask,
    Contrastive,
    Corruption,
    DecoderHead,
    HarnessError,
    MomentumEncoder,
    NormPixelTarget,
    PixelTarget,
    Recipe,
    Scale,
    Shapes,
    TokenMask,
)

STAGE = Recipe(epochs=2, batch_size=8, lr=1e-3)
SCALE = Scale(
    name="some",
    data=Shapes(),
    image_size=32,
    backbone=Backbone(name="vit_tiny_patch16_224", patch_size=4, variant="mae"),
    pretrain=STAGE,
    finetune=STAGE,
)


def test_the_pretraining_is_the_published_one() -> None:
    """facebookresearch/mae PRETRAIN.md and main_pretrain.py @efb2a80."""
    run = mae_pretrain("vit-l", epochs=800)
    assert run.mask == TokenMask(size=16, ratio=0.75)
    assert run.mask.hidden_units(224) == 147
    assert run.corruption == Corruption(token="drop")
    assert run.head == DecoderHead(depth=8, width=512, heads=16, positions="sincos")
    assert run.target == NormPixelTarget(size=16, area="patch")
    assert (run.loss.kind, run.loss.scope) == ("l2", "masked")
    recipe = run.recipe
    assert (recipe.epochs, recipe.batch_size, recipe.warmup_epochs, recipe.betas) == (800, 4096, 40, (0.9, 0.95))
    assert (recipe.weight_decay, recipe.clip, recipe.optimizer) == (0.05, None, "adamw")
    assert recipe.scaled(recipe.lr) == pytest.approx(1.5e-4 * 4096 / 256)
    assert (recipe.augment.crop_scale, recipe.augment.interpolation) == ((0.2, 1.0), "bicubic")
    assert run.assumed == ()


def test_rates_are_those_of_the_released_schedule() -> None:
    """lr * epoch / warmup, then half a cosine over what is left of the epochs (util/lr_sched.py)."""
    recipe = mae_pretrain(epochs=800).recipe
    assert learning_rate(recipe, 200, 10) == pytest.approx(2.4e-3 * 20 / 40)
    assert learning_rate(recipe, 400, 10) == pytest.approx(2.4e-3)
    assert learning_rate(recipe, 4200, 10) == pytest.approx(1.2e-3)  # half of the way from 40 to 800
    tuned = mae_finetune("vit-b").recipe
    assert learning_rate(tuned, 50, 10) == pytest.approx(5e-4 * 1024 / 256)
    assert learning_rate(tuned, 1000, 10) == pytest.approx(1e-6)


@pytest.mark.parametrize(
    ("model", "epochs", "peak", "layer_decay", "drop_path"),
    [("vit-b", 100, 2e-3, 0.65, 0.1), ("vit-l", 50, 4e-3, 0.75, 0.2), ("vit-h", 50, 4e-3, 0.75, 0.3)],
)
def test_the_finetunings_are_the_published_ones(
    model: Any, epochs: int, peak: float, layer_decay: float, drop_path: float
) -> None:
    run = mae_finetune(model)
    recipe, augment = run.recipe, run.recipe.augment
    assert (recipe.epochs, recipe.batch_size, recipe.warmup_epochs) == (epochs, 1024, 5)
    assert recipe.scaled(recipe.lr) == pytest.approx(peak)
    assert (recipe.layer_decay, recipe.drop_path, recipe.weight_decay, recipe.clip) == (
        layer_decay,
        drop_path,
        0.05,
        None,
    )
    assert (augment.mixup, augment.cutmix, augment.erasing, augment.smoothing) == (0.8, 1.0, 0.25, 0.1)
    assert (augment.rand_augment, augment.color_jitter) == ("rand-m9-mstd0.5-inc1", 0.0)
    assert (run.pool, run.classifier_std) == ("mean", 2e-5)
    assert run.start == mae_pretrain(model, epochs=1600)


def test_the_probe_is_the_published_one() -> None:
    run = mae_probe("vit-b")
    recipe = run.recipe
    assert (recipe.optimizer, recipe.momentum, recipe.weight_decay, recipe.epochs) == ("lars", 0.9, 0.0, 90)
    assert (recipe.batch_size, recipe.warmup_epochs) == (16384, 10)
    assert recipe.scaled(recipe.lr) == pytest.approx(6.4)
    assert (run.batch_norm, run.pool, run.block) == (True, "token", None)
    assert mae_probe("vit-l").recipe.epochs == 50


def test_vectors_and_biases_alone_are_spared_from_weight_decay() -> None:
    import torch

    recipe = mae_pretrain().recipe
    named = {
        name: torch.nn.Parameter(torch.zeros(shape))
        for name, shape in (
            ("encoder.model.cls_token", (1, 1, 4)),
            ("head.mask_token", (4,)),
            ("encoder.model.norm.weight", (4,)),
            ("head.embed.weight", (4, 4)),
            ("head.embed.bias", (4,)),
        )
    }
    groups = parameter_groups(named.items(), recipe)
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert {name for name, p in named.items() if id(p) in decayed} == {
        "encoder.model.cls_token", "head.mask_token", "head.embed.weight",
    }  # fmt: skip


def test_what_is_not_published_is_refused() -> None:
    with pytest.raises(HarnessError, match="for 300 epochs; valid: 800, 1600"):
        mae_pretrain(epochs=300)
    with pytest.raises(HarnessError, match="MAE has no model 'swin-b'; valid: vit-b, vit-l, vit-h"):
        mae_pretrain("swin-b")  # type: ignore[arg-type]


def test_presets_at_a_scale() -> None:
    run = mae(SCALE)
    assert (run.mask, run.target, run.head) == (
        TokenMask(size=4, ratio=0.75),
        NormPixelTarget(size=4),
        DecoderHead(),
    )
    found = symmim(SCALE)
    assert found.mask == CheckerboardMask(size=4, square=1)
    assert found.contrastive == Contrastive(mask=CheckerboardMask(size=4, square=2))
    assert found.momentum == MomentumEncoder(start=0.99, end=1.0, schedule="cosine")
    assert found.target == PixelTarget()
    assert not any("not half" in note for note in found.assumed)  # 8 x 8 patches
    alone = symmim(SCALE, contrastive=None)
    assert (alone.contrastive, alone.momentum) == (None, None)


def test_a_board_that_is_not_half_is_said_or_refused() -> None:
    wide = SCALE.replace(image_size=56)  # 14 x 14 patches
    assert any("hides 96 of 196 (48.98%), not half" in note for note in symmim(wide).assumed)
    with pytest.raises(ValueError, match="not half"):
        symmim(wide, strict=True)
