"""Optimisers, parameter groups with their learning rate factors and weight decay, and the learning rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, assert_never

import torch
from torch import Tensor, nn

from harness.core.model.encoder import Family, depth, layer_id
from harness.core.runtime.custom import call, load_function
from harness.core.train.skipping import SkippingLamb, SkippingLars
from harness.spec import Cosine, CustomOptimiser, HarnessError, MultiStep, Poly, Recipe
from harness.spec.recipe import NoDecay

TABLES = ("relative_position_bias_table",)
SWIN_V2 = (".logit_scale", ".cpb_mlp.0.weight", ".cpb_mlp.2.weight")
"""Temperatures of Swin V2's attention, and the network that gives its relative positions."""
TOKENS = ("cls_token", "reg_token")
POSITIONS = ("pos_embed",)
MASK_TOKEN, MASK_GATE = "mask_token", "mask_gate"


def decays(name: str, parameter: Tensor, no_decay: NoDecay = "usual") -> bool:
    """True if weight decay applies to a parameter of this name; `no_decay` as in `Recipe`."""
    exempt: tuple[str, ...]
    match no_decay:
        case "usual" | "usual-but-gate":
            if no_decay == "usual-but-gate" and name.endswith(MASK_GATE):
                return True
            exempt = (*POSITIONS, *TOKENS, MASK_TOKEN, *TABLES, *SWIN_V2)
        case "simmim-swin":
            exempt = (*POSITIONS, *TOKENS, MASK_TOKEN)
        case "simmim-vit":
            exempt = (*POSITIONS, *TOKENS)
        case "mae":
            exempt = ()
        case "mmpretrain":
            return not any(part in name for part in ("norm", "bias", *POSITIONS))
        case _:
            assert_never(no_decay)
    vector = parameter.ndim < 2 and not name.endswith(MASK_TOKEN)  # a vector here, [1, 1, C] in the released code
    return not vector and not name.endswith((".bias", *exempt))


def layer_scales(model: Family, layer_decay: float | None) -> dict[str, float]:
    """Factor on the learning rate of every parameter, by name: layer_decay ** (depth + 1 - layer id).

    layer_decay: factor from a layer to the one below it; None gives 1 everywhere.
    """
    last = depth(model) + 1
    rate = 1.0 if layer_decay is None else layer_decay
    return {name: rate ** (last - layer_id(model, name)) for name, _ in model.named_parameters()}


def scales_with_heads(model: nn.Module, encoder: Family, layer_decay: float | None) -> dict[str, float]:
    """`layer_scales` of a model that holds an encoder: 1 for what is not the encoder's."""
    scales, names = layer_scales(encoder, layer_decay), {own: name for name, own in encoder.named_parameters()}
    return {name: scales[names[own]] if own in names else 1.0 for name, own in model.named_parameters()}


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], recipe: Recipe, scales: dict[str, float] | None = None
) -> list[dict[str, Any]]:
    """Parameter groups of equal learning rate factor (`scale`) and weight decay; frozen parameters are left out.

    The order is fixed, as checkpoints of optimisers number the parameters.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            scale = scales[name] if scales else {MASK_TOKEN: recipe.token_lr, MASK_GATE: recipe.gate_lr}.get(name, 1.0)
            decay = recipe.weight_decay if decays(name, parameter, recipe.no_decay) else 0.0
            groups.setdefault((scale, decay), []).append(parameter)
    return [{"params": members, "scale": scale, "weight_decay": decay} for (scale, decay), members in groups.items()]


def make_optimiser(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    """Optimiser of a recipe; `Training` sets the learning rate of each group before each step."""
    match recipe.optimizer:
        case "adamw":
            return torch.optim.AdamW(groups, lr=0.0, betas=recipe.betas, eps=recipe.eps, fused=True)
        case "lamb":
            # Without timm's own clipping of the global gradient norm, which is on by default: `Recipe.clip` says it.
            return SkippingLamb(groups, lr=0.0, betas=recipe.betas, eps=recipe.eps, max_grad_norm=None)
        case "lars":
            return SkippingLars(_by_shape(groups), lr=0.0, momentum=recipe.momentum or 0.0)
        case "sgd":
            nesterov = recipe.nesterov and bool(recipe.momentum)  # torch refuses Nesterov's rule without momentum
            fused = True if any(parameter.is_cuda for group in groups for parameter in group["params"]) else None
            return torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum or 0.0, nesterov=nesterov, fused=fused)
        case CustomOptimiser():
            return _custom(recipe.optimizer, groups, recipe)
        case _:
            assert_never(recipe.optimizer)


def _custom(spec: CustomOptimiser, groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    """Optimiser of a user's own function."""
    peak = recipe.scaled(recipe.lr)  # some optimisers refuse a rate of 0, and others look at the first one
    given = [{**group, "lr": peak * group["scale"]} for group in groups]
    made = call(load_function(spec.function, spec.source), spec.function, given, **dict(spec.params))
    if not isinstance(made, torch.optim.Optimizer):
        raise HarnessError(f"{spec.function} should return a torch.optim.Optimizer, not {type(made).__name__}")
    if any("scale" not in group for group in made.param_groups):
        raise HarnessError(f"{spec.function} should keep each group's `scale`, the factor on its learning rate")
    wanted = [id(parameter) for group in groups for parameter in group["params"]]
    found = [id(parameter) for group in made.param_groups for parameter in group["params"]]
    if sorted(wanted) != sorted(found):
        raise HarnessError(
            f"{spec.function} should return an optimiser of the {len(wanted)} parameters that it gets, each once; "
            f"it has {len(found)}, {len(set(found) & set(wanted))} of them"
        )
    return made


def takes_tensors(recipe: Recipe) -> bool:
    """True if a recipe's optimiser on a GPU reads its learning rate there, so that the host need not wait."""
    return recipe.optimizer in ("adamw", "sgd")


def _by_shape(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups split into matrices, whose rate LARS adapts even without weight decay, and vectors, which it does not."""
    return [
        {**group, "params": members, "always_adapt": adapted}
        for group in groups
        for adapted in (True, False)
        if (members := [parameter for parameter in group["params"] if (parameter.ndim > 1) == adapted])
    ]


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int, scale: float = 1.0) -> float:
    """Learning rate at a step, counted from 0, of a parameter group whose factor is `scale`.

    Only the peak is multiplied by it; minimum and warm-up start are absolute, as in the released SimMIM.
    """
    peak = recipe.scaled(recipe.lr) * scale
    warmup, total = recipe.steps_of_warmup(steps_per_epoch), recipe.total_steps(steps_per_epoch)
    if step < warmup:
        start = recipe.scaled(recipe.warmup_lr)
        return start + (peak - start) * step / warmup
    match recipe.schedule:
        case Cosine(min_lr=floor, counted_from=origin, epochs=epochs):
            low = recipe.scaled(floor)
            skipped = warmup if origin == "warm-up" else 0
            length = total - skipped if epochs is None else epochs * steps_per_epoch
            done = min((step - skipped) / length, 1.0)
            return low + 0.5 * (peak - low) * (1 + math.cos(math.pi * done))
        case MultiStep(milestones=milestones, gamma=gamma, unit=unit):
            length = steps_per_epoch if unit == "epochs" else 1
            return peak * gamma ** sum(step >= milestone * length for milestone in milestones)
        case Poly(power=power, min_lr=floor, counted_from=origin):
            low, skipped = recipe.scaled(floor), warmup if origin == "warm-up" else 0
            left = 1 - min((step - skipped) / (total - skipped), 1.0)
            return low + (peak - low) * math.pow(left, power)
        case _:
            assert_never(recipe.schedule)
