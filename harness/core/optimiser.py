"""AdamW: which parameter gets which learning rate and weight decay, and the schedule of rates."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, assert_never

import torch
from torch import Tensor, nn

from harness.core.encoder import Family, depth, layer_id
from harness.spec import Cosine, MultiStep, Recipe

NEVER_DECAYED = ("pos_embed", "cls_token", "reg_token", "mask_token", "relative_position_bias_table")


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies: not to vectors, biases, tokens, positions and relative position biases."""
    return parameter.ndim > 1 and not name.endswith((".bias", *NEVER_DECAYED))


def layer_scales(model: Family, layer_decay: float | None) -> dict[str, float]:
    """Factor on the learning rate of every parameter: layer_decay ** (depth + 1 - layer id)."""
    last = depth(model) + 1
    rate = 1.0 if layer_decay is None else layer_decay
    return {name: rate ** (last - layer_id(model, name)) for name, _ in model.named_parameters()}


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], recipe: Recipe, scales: dict[str, float] | None = None
) -> list[dict[str, Any]]:
    """Parameters by learning rate factor (`scale`) and weight decay, in a fixed order; frozen ones are left out."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            scale = scales[name] if scales else 1.0
            decay = recipe.weight_decay if decays(name, parameter) else 0.0
            groups.setdefault((scale, decay), []).append(parameter)
    return [{"params": members, "scale": scale, "weight_decay": decay} for (scale, decay), members in groups.items()]


def adamw(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.AdamW:
    """torch's fused AdamW."""
    return torch.optim.AdamW(groups, lr=0.0, betas=recipe.betas, eps=recipe.eps, fused=True)


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int, scale: float = 1.0) -> float:
    """The learning rate at a step counted from 0.

    Only the peak is multiplied by a layer's `scale`; floor and warm-up start are absolute, as in the released SimMIM.
    """
    peak = recipe.scaled(recipe.lr) * scale
    warmup, total = recipe.warmup_epochs * steps_per_epoch, recipe.epochs * steps_per_epoch
    if step < warmup:
        start = recipe.scaled(recipe.warmup_lr)
        return start + (peak - start) * step / warmup
    match recipe.schedule:
        case Cosine(min_lr=floor, counted_from=origin):
            low = recipe.scaled(floor)
            skipped = warmup if origin == "warm-up" else 0
            return low + 0.5 * (peak - low) * (1 + math.cos(math.pi * (step - skipped) / (total - skipped)))
        case MultiStep(milestones=milestones, gamma=gamma):
            return peak * gamma ** sum(step >= epoch * steps_per_epoch for epoch in milestones)
        case _:
            assert_never(recipe.schedule)
