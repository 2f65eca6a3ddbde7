"""Stochastic depth whose draws are a function of (seed, layer, step, place in the global batch)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

from harness.core.runtime.randomness import uniform
from harness.spec import seed_stream


@dataclass
class Place:
    """Current position of the training: optimisation step, and places of the current images in the global batch.

    One object is shared by all layers of a model that draw random numbers; the recipe sets it before a forward pass.
    positions: int64 [B]."""

    step: int = 0
    positions: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))


class KeyedDropPath(nn.Module):
    """Stochastic depth: drops a residual branch of a sample with probability `rate`, scales others by 1 / (1 - rate).

    Equal to timm's DropPath except that its draws are keyed by seed, layer, step and position. The first axis of the
    input is the batch, or the masked views of each image one after another.
    """

    def __init__(self, rate: float, stream: int, place: Place) -> None:
        super().__init__()
        self.rate, self.stream, self.place = rate, stream, place

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        draws = uniform(self.stream, self.place.step, self.place.positions, 1)
        draws = draws.repeat_interleave(len(x) // len(draws), dim=0)  # the views of an image keep or drop together
        kept = (draws >= self.rate).to(x.dtype) / (1.0 - self.rate)
        return x * kept.view(-1, *(1,) * (x.ndim - 1))


def key_drop_paths(model: nn.Module, seed: int) -> Place:
    """Replace every DropPath of a timm model; set the returned place before each training step.

    Each new layer takes over the training mode of the old one: a momentum encoder stays in evaluation mode while its
    model trains.
    """
    place = Place()
    # Collected before anything is replaced: the number of a layer, and so its stream, is its place in the model.
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, DropPath)
    ]
    for layer, (parent, name, child) in enumerate(found):
        stream = seed_stream(seed, f"drop path {layer}")
        setattr(parent, name, KeyedDropPath(child.drop_prob, stream, place).train(child.training))
    return place
