"""Runs that take a second or two, and what of them must be equal."""

from __future__ import annotations

from typing import Any

import torch

from harness.launch import Event, Resources
from harness.launch.job import work
from harness.spec import (
    Augment,
    Backbone,
    CustomMask,
    Detect,
    FineTune,
    Mask,
    Occlusion,
    Pretrain,
    RandomMask,
    Recipe,
    Run,
    Shapes,
    SimplePyramid,
    key,
)
from harness.store import Store

OFTEN = Resources(device="cpu", checkpoint_seconds=0.0)
TIMES = ("seconds", "images_per_second")


def pretraining(*, epochs: int = 3, seed: int = 0, lr: float = 1e-3, mask: Mask | None = None) -> Pretrain:
    """A ViT of two blocks, with drop path; four steps an epoch."""
    return Pretrain(
        data=Shapes(image_size=16, train=64, test=32),
        image_size=16,
        backbone=Backbone(
            name="vit_tiny_patch16_224", args={"embed_dim": 16, "depth": 2, "num_heads": 2}, patch_size=4
        ),
        mask=mask or RandomMask(size=4, ratio=0.5),
        recipe=Recipe(epochs=epochs, batch_size=16, lr=lr, lr_batch=None, drop_path=0.2),
        seed=seed,
    )


def finetuning(start: Pretrain, *, epochs: int = 3, seed: int = 0) -> FineTune:
    """With Mixup, CutMix and drop path."""
    recipe = Recipe(
        epochs=epochs,
        batch_size=16,
        lr=1e-3,
        lr_batch=None,
        drop_path=0.2,
        layer_decay=0.8,
        augment=Augment(mixup=0.8, cutmix=1.0, smoothing=0.1),
    )
    return FineTune(start=start, recipe=recipe, seed=seed)


def detection(start: Pretrain, *, epochs: int = 3) -> Detect:
    """With masks and drop path; one step an epoch."""
    recipe = Recipe(epochs=epochs, batch_size=4, lr=1e-3, lr_batch=None, drop_path=0.2, layer_decay=0.8)
    data = Shapes(image_size=16, train=4, test=4)
    return Detect(start=start, data=data, recipe=recipe, pyramid=SimplePyramid(width=8), rois=16)


def occluding(start: FineTune, *, seed: int = 0) -> Occlusion:
    """What starts from a fine-tuning."""
    return Occlusion(start=start, size=8, ratios=(0.0, 0.5, 1.0), draws=2, seed=seed)


def masked_by(function: str, *, seed: int = 0) -> Pretrain:
    """A pre-training with a user's own mask."""
    return pretraining(epochs=1, seed=seed, mask=CustomMask(function=function, size=4))


def by_key(*runs: Run) -> dict[str, Run]:
    """Runs as a queue takes them."""
    return {key(run): run for run in runs}


def compute(store: Store, *runs: Run, resources: Resources = OFTEN) -> list[Event]:
    """Compute runs here, one after the other; returns how they ended."""
    torch.set_num_threads(1)
    return [work(store, run, torch.device("cpu"), resources, report=lambda event: None) for run in runs]


def outcome(store: Store, name: str) -> tuple[dict[str, float], str, list[dict[str, Any]]]:
    """Everything of a finished run that must be equal bit for bit: metrics, digest of the weights, metrics lines."""
    result = store.result(name)
    assert result is not None, store.state(name)
    lines = [{field: value for field, value in line.items() if field not in TIMES} for line in store.metrics(name)]
    return result.metrics, result.weights, lines
