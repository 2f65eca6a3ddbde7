"""Stochastic depth and dropout whose draws are a function of (seed, layer, step, place in the global batch)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

from harness.core.runtime.ahead import Ahead
from harness.core.runtime.randomness import uniform
from harness.spec import seed_stream


class Place:
    """Current position of the training: optimisation step, and places of the current images in the global batch.

    One object is shared by all layers of a model that draw random numbers; the recipe moves it before a forward pass.

    Attributes:
        step: int64, a scalar, on the device of the positions. positions: int64 [B].
        kept: float32 [layers, B], what each drop path multiplies each image's branch by: 0, or 1 / (1 - rate). The
            same memory as long as B is the same.

    Args:
        streams: random stream of each drop path. rates: its probability of dropping a branch, in [0, 1).
        batch_size: images in the global batch.
    """

    def __init__(self, streams: Sequence[int] = (), rates: Sequence[float] = (), batch_size: int = 0) -> None:
        self.streams, self.rates, self.batch_size = streams, rates, batch_size
        self.step, self.positions = torch.zeros((), dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
        self.kept = torch.zeros(len(streams), 0)
        self._number = 0
        self._ahead: Ahead | None = None

    def move(self, step: int, positions: Tensor) -> Self:
        """Go to a step, counted from 0, and to these images of its batch: int64 [B]."""
        # The same tensor, not equal values: the host would wait for a GPU to compare them.
        if step == self._number and positions is self.positions:
            return self
        self._number, self.positions = step, positions
        self.step = self.step.to(positions.device).fill_(step)
        if self.streams:
            self._keep(step, positions)
        return self

    def _keep(self, step: int, positions: Tensor) -> None:
        device, shape = positions.device, (len(self.streams), len(positions))
        if self._ahead is None:
            self._ahead = _kept_ahead(self.streams, self.rates, torch.arange(self.batch_size, device=device))
        if self.kept.shape != shape or self.kept.device != device:
            self.kept = torch.empty(shape, device=device)
        # Drawn for the whole batch, of which these images take their columns; written to memory that stays, where a
        # recorded step reads it.
        torch.index_select(self._ahead.at(step)[0].mT, 1, positions, out=self.kept)


def _kept_ahead(streams: Sequence[int], rates: Sequence[float], positions: Tensor) -> Ahead:
    """For each step float32 [batch, layers]; see `Place.kept`."""
    keys, layers = torch.tensor(streams, device=positions.device), len(streams)
    dropped = torch.tensor(rates, device=positions.device)
    scale = torch.tensor([1.0 - rate for rate in rates], device=positions.device)

    def draw(steps: Tensor, positions: Tensor) -> tuple[Tensor]:
        rows = (keys.repeat(len(steps)), steps.repeat_interleave(layers), positions.repeat_interleave(layers))
        return (((uniform(*rows, 1).view(-1, layers) >= dropped) / scale),)

    return Ahead(draw, positions)


class KeyedDropPath(nn.Module):
    """Stochastic depth: drops a residual branch of a sample with probability `rate`, scales others by 1 / (1 - rate).

    Equal to timm's DropPath except that its draws are keyed by seed, layer, step and position. The first axis of the
    input is the batch, or the masked views of each image one after another.

    Args:
        layer: row of `place.kept`.
    """

    def __init__(self, layer: int, place: Place) -> None:
        super().__init__()
        self.layer, self.place = layer, place

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = self.place.kept[self.layer].to(x.dtype)
        views = len(x) // len(kept)  # the views of an image keep or drop together
        return x * kept[:, None].expand(-1, views).reshape(-1, *(1,) * (x.ndim - 1))


class KeyedChannelDropout(nn.Module):
    """Dropout of whole channels of a map [B, C, h, w], as torch's Dropout2d, drawn from stream, step and position."""

    def __init__(self, stream: int, rate: float, place: Place) -> None:
        super().__init__()
        self.stream, self.rate, self.place = stream, rate, place

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = uniform(self.stream, self.place.step, self.place.positions, x.shape[1]) >= self.rate
        return x * (kept / (1 - self.rate)).to(x.dtype)[:, :, None, None]


def key_drop_paths(model: nn.Module, seed: int, batch_size: int) -> Place:
    """Replace every DropPath of a timm model; move the returned place before each training step.

    Each new layer takes over the training mode of the old one: a momentum encoder stays in evaluation mode while its
    model trains.

    Args:
        batch_size: images in the global batch.
    """
    # Collected before anything is replaced: the number of a layer, and so its stream, is its place in the model.
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, DropPath)
    ]
    streams = [seed_stream(seed, f"drop path {layer}") for layer in range(len(found))]
    place = Place(streams, [child.drop_prob for *_, child in found], batch_size)
    for layer, (parent, name, child) in enumerate(found):
        setattr(parent, name, KeyedDropPath(layer, place).train(child.training))
    return place
