"""Made data set: garments of Fashion-MNIST over a blurred picture of the same, each with its class, mask and box.

A scene is laid out in coordinates of the unit square and rendered at the wanted side, so an index shows the same scene
at any resolution. An image does not depend on the number of images.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.functional import gaussian_blur

from harness.core.data import published
from harness.core.data.objects import Objects, objects_of
from harness.core.runtime.randomness import uniform
from harness.spec import Garments, seed_stream

MOST = 6
"""Largest number of garments in an image."""

COLOURS = (0.38, 0.38, 0.38), (0.18, 0.18, 0.18)
"""Mean and standard deviation that the set is normalised with, per channel, of values in [0, 1]."""

_CHUNK = 256
_GROUND = 8
_PLACES = 4
_OBJECT = 6 + 2 * _PLACES
_SIDES = 0.3, 0.7
"""Range of the side of a picture of a garment, in sides of the image."""


def scenes(spec: Garments, part: Literal["train", "test"]) -> Iterator[tuple[Tensor, Objects]]:
    """Images uint8 [n, 3, S, S] and their objects in MOST slots, in the order in which they are painted.

    Raises:
        HarnessError: the pictures are not on this machine, or are others.
    """
    pictures, labels = published.read(spec.pictures, part)
    for indices in torch.split(torch.arange(spec.train if part == "train" else spec.test), _CHUNK):
        yield _render(spec, part, indices, pictures.float() / 255, labels)


def _render(spec: Garments, part: str, indices: Tensor, pictures: Tensor, labels: Tensor) -> tuple[Tensor, Objects]:
    side, count = spec.image_size, len(indices)
    drawn = uniform(seed_stream(spec.seed, f"garments-{part}"), 0, indices, 1 + _GROUND + MOST * _OBJECT)
    number = (drawn[:, 0] * MOST).long() + 1
    images = _ground(drawn[:, 1 : 1 + _GROUND], pictures, side)
    each = drawn[:, 1 + _GROUND :].view(count, MOST, _OBJECT)
    which = (each[..., 0] * len(pictures)).long()
    centres = _apart(each[..., -2 * _PLACES :].view(count, MOST, _PLACES, 2))
    masks = torch.zeros(count, MOST, side, side, dtype=torch.bool)
    for slot in range(MOST):
        shade, seen = _garment(each[:, slot], centres[:, slot], pictures[which[:, slot]], side)
        seen &= (slot < number)[:, None, None]
        images = torch.where(seen[:, None], shade[:, None] * _tint(each[:, slot, 3:6]), images)
        masks &= ~seen[:, None]  # a later garment covers earlier ones
        masks[:, slot] = seen
    return (images.clamp(0, 1) * 255).round().to(torch.uint8), objects_of(masks, labels[which])


def _apart(places: Tensor) -> Tensor:
    """Of the places that are offered to each object, the one farthest from the objects before it.

    So few are hidden wholly.

    Args:
        places: [n, objects, offered, 2] in [0, 1).

    Returns:
        Centres [n, objects, 2] in sides of the image.
    """
    taken = places[:, 0, :1]
    for offered in places[:, 1:].unbind(1):
        nearest = (offered[:, :, None] - taken[:, None]).square().sum(3).amin(2)
        best = nearest.argmax(1)[:, None, None].expand(-1, 1, 2)
        taken = torch.cat([taken, offered.gather(1, best)], dim=1)
    return 0.15 + 0.7 * taken


def _garment(drawn: Tensor, centres: Tensor, pictures: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Brightness float32 [n, S, S] and full area bool [n, S, S] of a garment in each image.

    Args:
        drawn: [n, ...] random numbers in [0, 1): picture, size, mirrored, three for the tint, and the places.
        centres: [n, 2], x and y. pictures: float32 [n, 1, 28, 28] in [0, 1], 0 where there is no garment.
    """
    low, high = _SIDES
    half = (low + (high - low) * drawn[:, 1]) / 2
    across = torch.where(drawn[:, 2] < 0.5, half, -half)
    grid = (_grid(side)[None] - centres[:, None, None]) / torch.stack([across, half], dim=1)[:, None, None]
    there = (pictures > 0).float()
    # Most of the 3 x 3 pixels around: the pictures have specks of almost black beside the garments.
    inside = (functional.avg_pool2d(there, 3, stride=1, padding=1) > 0.5).float()
    values, known, seen = functional.grid_sample(
        torch.cat([pictures, there, inside], dim=1), grid, align_corners=False
    ).unbind(1)
    # The mean of those of the four neighbours that are not empty, which would darken the edge.
    return values / known.clamp(min=1e-3), seen > 0.5


def _grid(side: int) -> Tensor:
    """x and y of the pixels' centres in [0, 1]: [S, S, 2]."""
    centres = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x, y], dim=2)


def _tint(drawn: Tensor) -> Tensor:
    """Factors on the three channels, 0.4 to 1: [n, 3, 1, 1]."""
    return (0.4 + 0.6 * drawn)[:, :, None, None]


def _ground(drawn: Tensor, pictures: Tensor, side: int) -> Tensor:
    """Backgrounds: a blurred picture, with the cloth of another one as texture, tinted: [n, 3, S, S].

    drawn: [n, _GROUND] random numbers in [0, 1): two pictures, size of the part that is seen, x, y, three for the tint.
    """
    which = (drawn[:, :2] * len(pictures)).long()
    blurred = gaussian_blur(pictures[which[:, 0]], [9, 9], [2.0, 2.0])
    share = (0.4 + 0.4 * drawn[:, 2])[:, None, None, None]
    places = 2 * (_grid(side)[None] * share + drawn[:, None, None, 3:5] * (1 - share)) - 1
    light = functional.grid_sample(blurred, places, align_corners=False)
    cloth = pictures[which[:, 1], :, 9:19, 9:19]  # of the middle, repeated in mirror images
    weave = functional.grid_sample(cloth, 3 * places, padding_mode="reflection", align_corners=False)
    return (0.1 + 0.5 * light + 0.4 * weave) * _tint(drawn[:, 5:8])
