"""Procedural data set: filled shapes on a textured ground, every object with its class, mask and box.

A scene is drawn in coordinates of the unit square and rendered at the wanted side, so an index shows the same scene at
any resolution. An image does not depend on the number of images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from harness.core.data.objects import Objects, objects_of
from harness.core.runtime.randomness import uniform
from harness.spec import Shapes, seed_stream

CLASSES = ("circle", "square", "triangle", "diamond", "cross", "ring")
MOST = 3
"""Largest number of objects in an image."""

COLOURS = (0.5, 0.5, 0.5), (0.29, 0.29, 0.29)
"""Mean and standard deviation that the set is normalised with, per channel, of values in [0, 1]."""

_CHUNK = 256
_GROUND = 9
_OBJECT = 8


def objects(spec: Shapes, part: Literal["train", "test"]) -> Objects:
    """Class, mask and box of every object of every image, in MOST slots in the order in which they are painted."""
    return Objects(*(torch.cat(fields) for fields in zip(*(found for _, found in scenes(spec, part)), strict=True)))


def scenes(spec: Shapes, part: Literal["train", "test"]) -> Iterator[tuple[Tensor, Objects]]:
    """Images uint8 [n, 3, S, S] and their objects, in order, some hundred at a time."""
    for indices in torch.split(torch.arange(spec.train if part == "train" else spec.test), _CHUNK):
        yield _render(spec, part, indices)


def _render(spec: Shapes, part: str, indices: Tensor) -> tuple[Tensor, Objects]:
    """Images uint8 [n, 3, S, S] of the given indices, and their objects."""
    stream = seed_stream(spec.seed, f"shapes-{part}")
    drawn = uniform(stream, 0, indices, 1 + _GROUND + MOST * _OBJECT)
    count = (drawn[:, 0] * MOST).long() + 1
    ground, colour = _ground(drawn[:, 1 : 1 + _GROUND], spec.image_size)
    each = drawn[:, 1 + _GROUND :].view(len(indices), MOST, _OBJECT)
    kinds = (each[..., 0] * len(CLASSES)).long()
    outlines = _outlines(each, kinds, spec.image_size)
    outlines &= (torch.arange(MOST) < count[:, None])[:, :, None, None]
    images = ground
    for slot in range(MOST):
        # Every channel differs from the ground's by 0.3 to 0.7, round the circle [0, 1): always visible.
        paint = (colour + 0.3 + 0.4 * each[:, slot, 5:8]).remainder(1.0)
        images = torch.where(outlines[:, slot, None], paint[:, :, None, None], images)
    # A later object covers earlier ones, so an object's visible mask excludes the outlines of all later ones.
    masks = outlines.clone()
    for slot in range(MOST - 1):
        masks[:, slot] &= ~outlines[:, slot + 1 :].any(1)
    return (images.clamp(0, 1) * 255).round().to(torch.uint8), objects_of(masks, kinds)


def _grid(side: int) -> tuple[Tensor, Tensor]:
    """The pixel centres' x and y in [0, 1], each [S, S]."""
    centres = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return x, y


def _ground(drawn: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Backgrounds of two crossing waves over a plain colour: images [n, 3, S, S], and the colours [n, 3]."""
    x, y = _grid(side)
    colour = drawn[:, :3]
    waves = torch.zeros(len(drawn), side, side)
    for turn, pace, phase in (drawn[:, 3:6].unbind(1), drawn[:, 6:9].unbind(1)):
        angle = (turn * math.pi)[:, None, None]
        along = x * angle.cos() + y * angle.sin()
        waves = waves + (2 * math.pi * ((2 + 6 * pace)[:, None, None] * along + phase[:, None, None])).sin()
    return colour[:, :, None, None] + 0.06 * waves[:, None], colour


def _outlines(each: Tensor, kinds: Tensor, side: int) -> Tensor:
    """Full area of each object, covered or not: bool [n, MOST, S, S].

    Args:
        each: [n, MOST, _OBJECT] random numbers in [0, 1): class, size, x, y, tilt, and three for the colour.
        kinds: int64 [n, MOST], index into CLASSES. side: of the image in pixels.
    """
    x, y = _grid(side)
    radius = 0.14 + 0.16 * each[..., 1]
    centre_x = radius + (1 - 2 * radius) * each[..., 2]
    centre_y = radius + (1 - 2 * radius) * each[..., 3]
    tilt = ((each[..., 4] - 0.5) * 0.4)[..., None, None]  # too little to take a square for a diamond
    across = (x - centre_x[..., None, None]) / radius[..., None, None]
    down = (y - centre_y[..., None, None]) / radius[..., None, None]
    u, v = across * tilt.cos() + down * tilt.sin(), down * tilt.cos() - across * tilt.sin()
    # All shapes are computed for each object and one is selected: no loop over objects of different classes.
    every = torch.stack(_inside(u, v), dim=2)
    choice = kinds[:, :, None, None, None].expand(-1, -1, 1, side, side)
    return every.gather(2, choice)[:, :, 0]


def _inside(u: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """Interiors of the shapes of CLASSES: a bool tensor each, like u and v, in units of the radius; v points down."""
    distance = (u * u + v * v).sqrt()
    a, b = u.abs(), v.abs()
    return (
        distance < 1,
        torch.maximum(a, b) < 0.75,
        (v < 0.6) & (v > 1.8 * a - 0.95),
        a + b < 1,
        (torch.minimum(a, b) < 0.28) & (torch.maximum(a, b) < 0.9),
        (distance < 1) & (distance > 0.55),
    )
