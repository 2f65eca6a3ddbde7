"""A network, an error, an optimiser and an augmentation of one's own: nothing of the harness is changed or imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Mixer(nn.Module):
    """Two convolutions around a GELU, added to the input: one in space for each channel, one over channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.space = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.GroupNorm(1, width)
        self.channels = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.channels(F.gelu(self.norm(self.space(x))))
        return x + added


def mixer(channels: int, image_size: int, *, width: int = 32, depth: int = 2, patch: int = 4) -> nn.Module:
    """CustomBackbone: a stem of patches, `depth` blocks, then half the resolution and one block more."""
    stem = nn.Conv2d(channels, width, patch, stride=patch)
    deep = nn.Sequential(nn.Conv2d(width, 2 * width, 2, stride=2), Mixer(2 * width))
    return nn.Sequential(stem, *(Mixer(width) for _ in range(depth)), deep)


def charbonnier(prediction: Tensor, target: Tensor, hidden: Tensor, *, eps: float = 0.01) -> Tensor:
    """CustomLoss: l1 that is rounded off at zero; one error for each channel and place."""
    return ((prediction - target).square() + eps**2).sqrt()


class Sign(torch.optim.Optimizer):
    """Steps of the learning rate in the direction of an averaged gradient's sign (Lion without its second average)."""

    def __init__(self, groups: list[dict[str, Any]], momentum: float) -> None:
        super().__init__(groups, {"momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # a step is computed once
        for group in self.param_groups:
            for weight in (found for found in group["params"] if found.grad is not None):
                state = self.state[weight]
                mean = state.setdefault("mean", torch.zeros_like(weight))
                mean.lerp_(weight.grad, 1 - group["momentum"])
                weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * mean.sign())


def sign(groups: list[dict[str, Any]], *, momentum: float = 0.9) -> torch.optim.Optimizer:
    """CustomOptimiser: the groups come with `lr`, `weight_decay` and `scale`."""
    return Sign(groups, momentum)


def dim(images: Tensor, random: Callable[..., Tensor], step: Tensor, steps: int, *, least: float = 0.6) -> Tensor:
    """CustomAugment: each image is darkened by a factor of its own, less and less as training goes on."""
    lightest = least + (1 - least) * step / steps
    return images * (lightest + (1 - lightest) * random(1, 1, 1))
