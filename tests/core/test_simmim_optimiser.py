"""SimMIM's optimiser groups against those of the released code, and its learning rates at every step."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from tiny import DATA, SWIN, SWIN_V2, pretrain
from torch import nn

from harness.core.model.encoder import build
from harness.core.pretrain.mim import MaskedImageModel
from harness.core.train.optimiser import decays, layer_scales, learning_rate, parameter_groups
from harness.papers import simmim_finetune, simmim_pretrain
from harness.spec import Backbone, Cosine, FineTune, Garments, Pretrain, Recipe, Scratch, Segment

GOLDEN = Path(__file__).resolve().parent / "golden"
STEPS = 1_281_167 // 2048
"""Steps of an epoch of ImageNet-1K; the last incomplete batch is dropped."""


class Group(NamedTuple):
    shape: tuple[int, ...]
    lr_scale: float
    decayed: bool


def golden(name: str) -> dict[str, Group]:
    """Groups of the released code, under our names for the same parameters."""
    with (GOLDEN / f"simmim_{name}.csv").open(newline="", encoding="utf-8") as file:
        return {
            ours(row["name"]): Group(
                tuple(map(int, row["shape"].split("x"))),
                float(row["lr_scale"]),
                {"yes": True, "no": False}[row["decayed"]],
            )
            for row in csv.DictReader(file)
        }


def ours(name: str) -> str:
    """Patch merging begins a stage here and ends the one before it there; Swin's classifier is head.fc."""
    name = re.sub(r"layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) + 1}.downsample", name)
    name = name.replace("encoder.mask_token", "mask_token").replace("encoder.", "encoder.model.")
    return name.replace("decoder.", "head.")


def groups(model: nn.Module, recipe: Recipe, scales: dict[str, float] | None) -> dict[str, Group]:
    """What `parameter_groups` made of every parameter."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: Group(tuple(parameter.shape), group["scale"], group["weight_decay"] > 0)
        for group in parameter_groups(model.named_parameters(), recipe, scales)
        for parameter in group["params"]
    }


def pretraining(run: Pretrain) -> dict[str, Group]:
    with torch.device("meta"):
        model = MaskedImageModel(run, 3)
    return groups(model, run.recipe, None)


def finetuning(run: FineTune) -> dict[str, Group]:
    with torch.device("meta"):
        model = build(run.built, image_size=run.image_size, channels=3, num_classes=1000, pool=run.pool)
    return groups(model, run.recipe, layer_scales(model, run.recipe.layer_decay))


SWIN_B, VIT_B = simmim_pretrain("swin-b", epochs=100), simmim_pretrain("vit-b", epochs=800)
SWIN_B_TUNED = simmim_finetune("swin-b", epochs=100, image_size=192)
VIT_B_TUNED = simmim_finetune("vit-b", epochs=800, image_size=224)


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("swin_b_pretrain", SWIN_B),
        ("swin_b_finetune", SWIN_B_TUNED),
        ("vit_b_pretrain", VIT_B),
        ("vit_b_finetune", VIT_B_TUNED),
    ],
)
def test_every_parameter_is_in_the_released_group(name: str, run: Pretrain | FineTune) -> None:
    theirs, made = golden(name), pretraining(run) if isinstance(run, Pretrain) else finetuning(run)
    made = {name.replace("head.fc.", "head."): group for name, group in made.items()}
    assert set(made) == set(theirs)
    for parameter, wanted in theirs.items():
        group = made[parameter]
        token = parameter.endswith("mask_token")  # [C] here, [1, 1, C] there
        assert (group.shape if not token else (1, 1, *group.shape)) == wanted.shape, parameter
        assert group.decayed == wanted.decayed, parameter
        assert group.lr_scale == pytest.approx(wanted.lr_scale, rel=1e-12), parameter


def test_the_golden_files_say_what_is_known_of_the_released_code() -> None:
    """All 24 tables decay in Swin's pre-training and none in its fine-tuning; ViT's decay in both."""
    tables = {
        name: [group.decayed for parameter, group in golden(name).items() if "bias_table" in parameter]
        for name in ("swin_b_pretrain", "swin_b_finetune", "vit_b_pretrain", "vit_b_finetune")
    }
    assert tables == {
        "swin_b_pretrain": [True] * 24,
        "swin_b_finetune": [False] * 24,
        "vit_b_pretrain": [True],
        "vit_b_finetune": [True] * 12,
    }
    assert not golden("swin_b_pretrain")["mask_token"].decayed
    assert golden("vit_b_pretrain")["mask_token"].decayed


@pytest.mark.parametrize(
    ("stage", "published"), [("swin_b_finetune", 0.0718), ("vit_b_finetune", 0.0037)]
)  # SimMIM, released code
def test_patch_embedding_factor(stage: str, published: float) -> None:
    assert golden(stage)["patch_embed.proj.weight"].lr_scale == pytest.approx(published, abs=5e-5)


def test_patch_embedding_factor_of_the_longer_recipes() -> None:
    for run, published in (
        (simmim_finetune("swin-b", epochs=800, image_size=224), 0.00378),
        (simmim_finetune("swin-l", epochs=800, image_size=224), 0.000134),
    ):
        assert finetuning(run)["patch_embed.proj.weight"].lr_scale == pytest.approx(published, rel=2e-3)


def test_mmpretrain_decays_the_mask_token_and_spares_the_tables() -> None:
    """custom_keys norm, bias, absolute_pos_embed and relative_position_bias_table (configs/simmim)."""
    official, found = golden("swin_b_pretrain"), pretraining(simmim_pretrain("swin-b", variant="mmpretrain"))
    changed = {name for name in official if official[name].decayed != found[name].decayed}
    assert changed == {name for name in official if "bias_table" in name} | {"mask_token"}
    assert found["mask_token"].decayed
    assert not any(group.decayed for name, group in found.items() if "norm" in name or "bias" in name)


def test_the_usual_set_is_the_default() -> None:
    for name, parameter, decayed in (
        ("mask_token", torch.zeros(8), False),
        ("layers.0.blocks.0.attn.relative_position_bias_table", torch.zeros(4, 2), False),
        ("pos_embed", torch.zeros(1, 2, 2), False),
        ("blocks.0.gamma_1", torch.zeros(8), False),
        ("blocks.0.attn.qkv.weight", torch.zeros(2, 2), True),
    ):
        assert decays(name, parameter) is decayed
        assert decays(name, parameter, "usual") is decayed


@pytest.mark.parametrize("backbone", [SWIN_V2, SWIN], ids=["swinv2", "swin"])
def test_the_usual_set_spares_what_timm_spares_of_swins(backbone: Backbone) -> None:
    model: Any = build(backbone, image_size=32, channels=3)
    spared = model.no_weight_decay()  # names, or parts of them
    for name, parameter in model.named_parameters():
        matrix = parameter.ndim > 1 and not any(part in name for part in spared)
        assert decays(name, parameter) is matrix, name


def test_runs_whose_decay_changed_have_another_revision() -> None:
    run = pretrain(backbone=SWIN_V2)
    gated = run.replace(recipe=run.recipe.replace(no_decay="usual-but-gate"))
    assert gated.current_revision() == 3
    others = [
        pretrain(backbone=SWIN),
        run.replace(recipe=run.recipe.replace(no_decay="simmim-swin")),
        run.replace(recipe=run.recipe.replace(weight_decay=0.0)),
    ]
    assert [one.current_revision() for one in (run, *others)] == [3, 1, 1, 1]
    start = Scratch(backbone=SWIN_V2, image_size=32)
    dense = Segment(start=start, data=Garments(image_size=32), recipe=run.recipe)
    tuned = FineTune(start=start, data=DATA, recipe=run.recipe)
    assert [one.current_revision() for one in (tuned, dense, dense.replace(frozen=True))] == [2, 2, 1]


# ------------------------------------------------------------------------------------------------- schedules


def cosine(
    step: np.ndarray, *, peak: float, low: float, first: int, warmup: int, origin: int, length: int
) -> np.ndarray:
    """Linear from `first` over the warm-up, then half a cosine of `length` steps counted from `origin`; at 2048."""
    rising = first + (peak - first) * step / warmup
    falling = low + (peak - low) * (1 + np.cos(np.pi * (step - origin) / length)) / 2
    return np.where(step < warmup, rising, falling)


def multistep(step: np.ndarray, *, peak: float, first: float, warmup: int, at: int) -> np.ndarray:
    return np.where(step < warmup, first + (peak - first) * step / warmup, np.where(step < at, peak, peak / 10))


N = STEPS
ABLATION: dict[str, Any] = {"peak": 8e-4, "low": 4e-5, "first": 4e-6}
TUNING: dict[str, Any] = {"peak": 5e-3, "low": 1e-6, "first": 1e-6, "warmup": 20 * N}


@pytest.mark.parametrize(
    ("recipe", "wanted"),
    [
        (SWIN_B.recipe, lambda t: cosine(t, **ABLATION, warmup=10 * N, origin=0, length=100 * N)),
        (
            simmim_pretrain("swin-b", variant="mmpretrain").recipe,
            lambda t: cosine(t, **ABLATION, warmup=10 * N, origin=10 * N, length=90 * N),
        ),
        (
            simmim_pretrain("vit-b", epochs=800, schedule="paper").recipe,
            lambda t: cosine(t, **ABLATION, warmup=20 * N, origin=0, length=800 * N),
        ),
        (VIT_B.recipe, lambda t: multistep(t, peak=4e-4, first=2e-6, warmup=10 * N, at=700 * N)),
        (
            simmim_pretrain("swin-b", epochs=800, variant="mmpretrain").recipe,
            lambda t: multistep(t, peak=4e-4, first=2e-6, warmup=10 * N, at=700 * N),
        ),
        (
            simmim_pretrain("swin-l", epochs=800).recipe,
            lambda t: multistep(t, peak=4e-4, first=2e-6, warmup=10 * N, at=700 * N),
        ),
        (SWIN_B_TUNED.recipe, lambda t: cosine(t, **TUNING, origin=0, length=100 * N)),
        (VIT_B_TUNED.recipe, lambda t: cosine(t, **TUNING, origin=0, length=100 * N)),
        (
            simmim_finetune("swin-b", variant="mmpretrain").recipe,
            lambda t: cosine(t, **TUNING, origin=20 * N, length=80 * N),
        ),
        (
            simmim_finetune("swin-l", epochs=800, image_size=224, variant="mmpretrain").recipe,
            lambda t: cosine(t, **TUNING, origin=20 * N, length=100 * N),
        ),
    ],
    ids=lambda case: f"{case.epochs} {case.schedule.kind}" if isinstance(case, Recipe) else "",
)
def test_learning_rate_at_every_step(recipe: Recipe, wanted: Callable[[np.ndarray], np.ndarray]) -> None:
    steps = np.arange(0, recipe.epochs * STEPS, 1 if recipe.epochs == 100 else 7)
    found = np.array([learning_rate(recipe, int(step), STEPS) for step in steps])
    np.testing.assert_allclose(found, wanted(steps), rtol=1e-9)


def test_first_rate_after_warm_up() -> None:
    """x 0.9755 and x 0.9045 of the way from floor to peak, for 10 and 20 of 100 epochs; mmpretrain: at the peak."""
    for recipe, published in (
        (SWIN_B.recipe, 0.9755),
        (SWIN_B_TUNED.recipe, 0.9045),
        (simmim_pretrain("swin-b", variant="mmpretrain").recipe, 1.0),
    ):
        assert isinstance(recipe.schedule, Cosine)
        peak, low = recipe.scaled(recipe.lr), recipe.scaled(recipe.schedule.min_lr)
        found = learning_rate(recipe, recipe.warmup_epochs * STEPS, STEPS)
        assert (found - low) / (peak - low) == pytest.approx(published, abs=5e-5)


def test_a_shorter_cosine_stays_at_its_floor() -> None:
    recipe = SWIN_B.recipe.replace(schedule=SWIN_B.recipe.schedule.replace(epochs=50))
    assert learning_rate(recipe, 50 * STEPS, STEPS) == pytest.approx(4e-5)
    assert learning_rate(recipe, 99 * STEPS, STEPS) == pytest.approx(4e-5)


@pytest.mark.parametrize("name", ["swin_b_finetune", "vit_b_finetune"])
def test_effective_rate_of_every_parameter(name: str) -> None:
    """Layer decay acts on the peak, once; floor and warm-up start are the same for all layers."""
    run = SWIN_B_TUNED if name.startswith("swin") else VIT_B_TUNED
    step = 60 * STEPS
    for group in set(golden(name).values()):
        peak = 5e-3 * group.lr_scale
        found = learning_rate(run.recipe, step, STEPS, group.lr_scale)
        assert found == pytest.approx(1e-6 + (peak - 1e-6) * (1 + math.cos(0.6 * math.pi)) / 2, rel=1e-12)
        assert learning_rate(run.recipe, 0, STEPS, group.lr_scale) == pytest.approx(1e-6)


def test_token_and_gate_may_learn_at_rates_of_their_own() -> None:
    """The released A2MIM of CNNs: both at a tenth and without decay for 100 epochs; for 300 the gate's option lacks."""
    named = [(name, nn.Parameter(torch.zeros(3))) for name in ("mask_token", "mask_gate", "encoder.model.bn1.weight")]
    named += [("head.0.weight", nn.Parameter(torch.zeros(3, 3)))]
    names = {id(parameter): name for name, parameter in named}

    def found(**changes: Any) -> dict[str, tuple[float, float]]:
        recipe = Recipe(epochs=1, batch_size=1, lr=1.0, weight_decay=0.05, **changes)
        return {
            names[id(parameter)]: (group["scale"], group["weight_decay"])
            for group in parameter_groups(named, recipe)
            for parameter in group["params"]
        }

    short = found(token_lr=0.1, gate_lr=0.1)
    assert short == {
        "mask_token": (0.1, 0.0),
        "mask_gate": (0.1, 0.0),
        "encoder.model.bn1.weight": (1.0, 0.0),
        "head.0.weight": (1.0, 0.05),
    }
    assert found(token_lr=0.1, no_decay="usual-but-gate") == {**short, "mask_gate": (1.0, 0.05)}
