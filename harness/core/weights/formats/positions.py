"""Resizing of relative position tables to another window, by the geometric bicubic rule.

BEiT's rule, as the released SimMIM applies it (microsoft/SimMIM, utils.py): the source's distances are taken to grow
geometrically, so that near neighbours keep their values and the farthest ones meet the farthest of the target.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from harness.spec import HarnessError

TABLE = "relative_position_bias_table"
CLASS_ROWS = 3
"""Rows of a BEiT's table behind those of the window: class token to patch, patch to class token, class to class."""


def resized(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Tensors with relative position tables resized to the wanted lengths; all others are unchanged.

    Args:
        shapes: the wanted shape by name. Tables of another number of heads are left alone.

    Raises:
        HarnessError: a table is too small to be resized.
    """
    found = dict(tensors)
    for name, table in tensors.items():
        wanted = shapes.get(name)
        if name.endswith(TABLE) and wanted is not None and table.shape != wanted and table.shape[1] == wanted[1]:
            found[name] = resized_table(table, wanted[0])
    return found


def resized_table(table: Tensor, length: int) -> Tensor:
    """Relative position table resized to another length.

    Args:
        table: [(2 w - 1)^2 (+ 3), heads], row-major over the offsets, behind them the class token's rows, if any.
        length: (2 v - 1)^2 (+ 3) for a window of side v.

    Returns:
        [length, heads], same dtype; the class token's rows as they were.

    Raises:
        HarnessError: the window is below 3, too small for cubic interpolation, or only one has the class token's rows.
    """
    (source, extra), (target, wanted) = _side(len(table)), _side(length)
    if extra != wanted:
        raise HarnessError("only one of two relative position tables has rows for a class token")
    # A cubic spline needs four places. Sides are odd, so only windows of at most 2 are too small.
    if source < 4:
        raise HarnessError(f"a relative position table of {source} x {source} is too small to be resized")
    weights = cubic_weights(geometric_places(source, target), torch.arange(target) - target // 2)
    grid = table[: source * source].double().reshape(source, source, -1)
    # The spline is a product of two along the axes, so rows and columns have the same weights.
    fine = torch.einsum("ia,jb,abh->ijh", weights, weights, grid).reshape(target * target, -1)
    return torch.cat([fine.to(table.dtype), table[source * source :]])


def _side(length: int) -> tuple[int, int]:
    """Side of the square of offsets, which is odd, and the number of rows behind it."""
    side = math.isqrt(length)
    extra = 0 if side * side == length and side % 2 else CLASS_ROWS
    side = math.isqrt(length - extra)
    if side * side + extra != length:
        raise HarnessError(f"{length} rows are no relative position table of a square window")
    return side, extra


def ratio(source: int, target: int) -> float:
    """q in [1.01, 1.5] with 1 + q + ... + q^(source // 2 - 1) = target // 2, by bisection to 1e-6."""
    # Bounds and tolerance of the released code: a closer solution would give other tables than published ones.
    low, high, q = 1.01, 1.5, 1.255
    while high - low > 1e-6:
        q = (low + high) / 2
        if (1 - q ** (source // 2)) / (1 - q) > target // 2:
            high = q
        else:
            low = q
    return q


def geometric_places(source: int, target: int) -> Tensor:
    """Positions of the source's offsets among the target's: float64 [source], symmetric, ascending, centre 0."""
    q = ratio(source, target)
    steps = torch.tensor([q**power for power in range(source // 2)], dtype=torch.float64).cumsum(0)
    return torch.cat([-steps.flip(0), steps.new_zeros(1), steps])


def cubic_weights(places: Tensor, wanted: Tensor) -> Tensor:
    """Weights of the interpolating cubic spline, not-a-knot, as SciPy's interpolating RectBivariateSpline has it.

    Args:
        places: float64 [n], ascending, n >= 4. wanted: [m]; places outside are taken at the nearest end.

    Returns:
        float64 [m, n]: the spline's value at wanted[i] is the sum over j of weights[i, j] * value at places[j].
    """
    # Not-a-knot: the second and the second last place are no knots. SciPy has this spline, but core does without it.
    knots = torch.cat([places[:1].expand(4), places[2:-2], places[-1:].expand(4)])
    inside = wanted.double().clamp(float(places[0]), float(places[-1]))
    solved: Tensor = torch.linalg.solve(_b_splines(knots, places).T, _b_splines(knots, inside).T)
    return solved.T


def _b_splines(knots: Tensor, at: Tensor) -> Tensor:
    """Cubic B-splines by the recursion of Cox and de Boor. knots: [n + 4]; at: [m] within the knots -> [m, n]."""
    x = at[:, None]
    last = int((knots < knots[-1]).sum()) - 1  # the last interval is closed, the others are open to the right
    found = ((x >= knots[:-1]) & (x < knots[1:])).double()
    found[:, last] = torch.where(at == knots[-1], 1.0, found[:, last])
    for degree in (1, 2, 3):
        left, right = knots[: -degree - 1], knots[degree + 1 :]
        rising = _ratio(x - left[None], (knots[degree:-1] - left)[None])
        falling = _ratio(right[None] - x, (right - knots[1 : len(knots) - degree])[None])
        found = rising * found[:, :-1] + falling * found[:, 1:]
    return found


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    return torch.where(below == 0, torch.zeros_like(above), above / torch.where(below == 0, 1.0, below))
