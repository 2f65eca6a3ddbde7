"""Regular masks (grid, checkerboard, one of four) and masks of filtered noise. True = hidden."""

from __future__ import annotations

import math
from typing import assert_never

import torch
from torch import Tensor

from harness.core.masks.units import Draw, listed
from harness.spec import CheckerboardMask, ColourMask, GridMask, UniformMask

REACH = 4.0
"""Half-width of a truncated Gaussian filter in standard deviations, SciPy's default."""


def grids(mask: GridMask, draw: Draw) -> Tensor:
    """Grid masks, the same for all images, bool [B, units, units]; see `GridMask`."""
    units = draw.image_size // mask.size
    odd = torch.arange(units, device=draw.positions.device) % 2 == 1
    return (odd[:, None] | odd[None, :]).expand(draw.batch, -1, -1)


def uniform_units(mask: UniformMask, draw: Draw) -> Tensor:
    """Masks with one visible unit of each four, bool [B, units, units]; see `UniformMask`."""
    cells = draw.image_size // mask.size // 2
    # The two upper bits choose the one of four units that stays visible.
    kept = (draw.words("mask", cells * cells) >> 30).view(-1, cells, 1, cells, 1)  # of four units
    rows = torch.arange(2, device=kept.device)[:, None, None]
    columns = torch.arange(2, device=kept.device)
    return (kept != 2 * rows + columns).reshape(-1, 2 * cells, 2 * cells)


def checkerboards(mask: CheckerboardMask, draw: Draw, view: int) -> Tensor:
    """Checkerboards, bool [B, units, units]; see `CheckerboardMask`. view: 0 or 1, the phase if it is `both`."""
    parity = torch.arange(draw.image_size // mask.size, device=draw.positions.device) // mask.square
    board = parity[:, None] + parity[None, :]
    match mask.phase:
        case 0 | 1:
            phase = draw.positions.new_full((draw.batch,), mask.phase)
        case "random":
            phase = draw.words("mask", 1)[:, 0] >> 31  # the upper bit of 32
        case "both":
            phase = draw.positions.new_full((draw.batch,), view)
        case _:
            assert_never(mask.phase)
    return (board + phase[:, None, None]) % 2 == 1


def colour_units(mask: ColourMask, draw: Draw) -> Tensor:
    """Masks of filtered noise, bool [B, units, units]; see `ColourMask`."""
    units = draw.image_size // mask.size
    margin = math.ceil(REACH * (mask.wide or mask.sigma))
    # Noise beyond the image on all sides, so that the filter sees no border and the result is stationary.
    white = _normal(draw, units + 2 * margin)
    inner = white[:, margin : margin + units, margin : margin + units]
    match mask.colour:
        case "red":
            values = _smooth(white, mask.sigma, units)
        case "blue":
            values = inner - _smooth(white, mask.sigma, units)
        case "green":
            values = _band(white, mask, units)
        case "purple":
            values = inner - _band(white, mask, units)
        case _:
            assert_never(mask.colour)
    # The largest values stay visible; an exact count by rank, not by a threshold.
    order = values.flatten(1).argsort(dim=1, descending=True, stable=True)
    return ~listed(order, units**2 - mask.hidden_units(draw.image_size)).view(-1, units, units)


def _normal(draw: Draw, side: int) -> Tensor:
    """Standard normal numbers, float64 [B, side, side] (Box and Muller)."""
    # Half a step inside (0, 1): the logarithm of 0 is never taken.
    first, second = ((draw.words("mask", 2 * side * side).double() + 0.5) * 2.0**-32).chunk(2, dim=1)
    return ((-2 * first.log()).sqrt() * (2 * math.pi * second).cos()).view(-1, side, side)


def _smooth(white: Tensor, sigma: float, units: int) -> Tensor:
    """Central part of a plane filtered by a Gaussian: float64 [B, P, P] -> [B, units, units]."""
    margin = (white.shape[1] - units) // 2
    places = torch.arange(white.shape[1], device=white.device)
    apart = places[None, margin : margin + units].T - places  # [units, P]
    # Cut off where SciPy's gaussian_filter cuts off.
    weights = torch.exp(-0.5 * (apart.double() / sigma).square()) * (apart.abs() <= int(REACH * sigma + 0.5))
    # Whatever is cut off, weights sum to 1: the difference of two filters then has no constant part.
    weights /= weights.sum(1, keepdim=True)
    return weights @ white @ weights.T


def _band(white: Tensor, mask: ColourMask, units: int) -> Tensor:
    """Band-pass filtered noise: the difference of two Gaussians, float64 [B, units, units]."""
    assert mask.wide is not None
    return _smooth(white, mask.sigma, units) - _smooth(white, mask.wide, units)
