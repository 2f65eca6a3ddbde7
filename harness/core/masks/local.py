"""Masks within a window of the image, outside of which everything is hidden. True = hidden."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.core.masks.units import Draw, listed, order_of, square_at
from harness.core.runtime.drop_path import Place
from harness.spec import LocalMask, Pretrain


def windows(mask: LocalMask, draw: Draw, view: int) -> Tensor:
    """Windows of a view: bool [B, units, units], True inside; see `LocalMask`."""
    units = draw.image_size // mask.size
    noise = (draw.shared() if mask.shared else draw).words(f"mask window {view}", 2)
    return square_at(noise * (units - mask.window + 1) >> 32, mask.window, units)


def local_units(mask: LocalMask, draw: Draw, view: int) -> Tensor:
    """Bool [B, units, units], True in all but the visible units of the window; see `LocalMask`."""
    inside = windows(mask, draw, view).flatten(1)
    units = draw.image_size // mask.size
    rank = order_of(draw.words(f"mask inside {view}", 2 * units * units)).argsort(dim=1)
    # Units outside the window come last, so the first places of the order lie within it, in random order.
    order = rank.masked_fill(~inside, units * units).argsort(dim=1, stable=True)
    return ~listed(order, mask.window**2 - mask.predicted_units).view(-1, units, units)


def predicted_units(run: Pretrain, units: Tensor, place: Place) -> Tensor:
    """Hidden units that the loss is taken over: all of them, or for a LocalMask those within the window.

    Args:
        units: bool [B * views, units, units], from `harness.core.masks.masking.make_views`.
        place: position of the training when the masks were drawn. If none is set, images are numbered from 0 at step 0.
    """
    mask = run.mask
    if not isinstance(mask, LocalMask):
        return units
    count = -(-len(units) // mask.views)
    given = len(place.positions) == count
    positions = place.positions if given else torch.arange(count, device=units.device)
    # The window is drawn again from the same keys instead of being passed along with the mask.
    draw = Draw(run.image_size, run.seed, place.step if given else 0, 1, positions)
    inside = torch.stack([windows(mask, draw, view) for view in range(mask.views)], dim=1).flatten(0, 1)
    return units & inside[: len(units)]
