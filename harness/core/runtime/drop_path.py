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
    """Where training stands: what all layers of one model need to know for their draws."""

    step: int = 0
    positions: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))


class KeyedDropPath(nn.Module):
    """Drops a whole residual branch for a sample with probability `rate`, and scales the kept ones by 1 / (1 - rate).

    As timm's DropPath, but for where the draws come from. The first axis of the input is the batch,
    or the views of each of its images after one another.
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
    """Replace every DropPath of a timm model; the returned place is to be set before each training step.

    Each is in training or not as what it replaces is: a momentum encoder stays in evaluation while its model trains.
    """
    place = Place()
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
