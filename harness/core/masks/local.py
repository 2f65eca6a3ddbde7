"""Masks within a window of the image, outside of which everything is hidden. True = hidden."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.core.masks.units import Draw, listed, order_of, square_at
from harness.core.runtime.drop_path import Place
from harness.core.runtime.randomness import words
from harness.spec import LocalMask, Pretrain, seed_stream


def window_streams(mask: LocalMask, seed: int) -> list[int]:
    """Random streams of the windows' places, one for each view."""
    return [seed_stream(seed, f"mask window {view}") for view in range(mask.views)]


def windows(mask: LocalMask, draw: Draw, stream: int) -> Tensor:
    """Windows of the view of a stream: bool [B, units, units], True inside; see `LocalMask`."""
    units, draw = draw.image_size // mask.size, draw.shared() if mask.shared else draw
    noise = words(stream, draw.step, draw.positions, 2)
    # A 32-bit word times n, shifted by 32 bits, is a whole number below n: no float could round on one device only.
    return square_at(noise * (units - mask.window + 1) >> 32, mask.window, units)


def local_units(mask: LocalMask, draw: Draw, view: int) -> Tensor:
    """Masks that hide all but the visible units of the window, bool [B, units, units]; see `LocalMask`."""
    inside = windows(mask, draw, window_streams(mask, draw.seed)[view]).flatten(1)
    units = draw.image_size // mask.size
    rank = order_of(draw.words(f"mask inside {view}", 2 * units * units)).argsort(dim=1)
    # Units outside the window come last, so the first places of the order lie within it, in random order.
    order = rank.masked_fill(~inside, units * units).argsort(dim=1, stable=True)
    return ~listed(order, mask.window**2 - mask.predicted_units).view(-1, units, units)


def predicted_units(run: Pretrain, units: Tensor, place: Place, streams: Sequence[int] = ()) -> Tensor:
    """Hidden units that the loss is taken over: all of them, or for a LocalMask those within the window.

    Args:
        units: bool [B * views, units, units], from `harness.core.masks.masking.make_views`.
        place: position of the training when the masks were drawn. If none is set, images are numbered from 0 at step 0.
        streams: from `window_streams`, where they are known already.

    Raises:
        ValueError: the place is set for another number of images.
    """
    mask = run.mask
    if not isinstance(mask, LocalMask):
        return units
    step: int | Tensor = 0
    # Rounded up, and cut off at the end: a reconstruction shows one view of each image, and its loss is not used.
    positions = torch.arange(-(-len(units) // mask.views), device=units.device)
    if given := len(place.positions):
        if len(units) != given * mask.views:
            raise ValueError(
                f"masks of {len(units)} views at a place of {given} images: move the place before each batch"
            )
        step, positions = place.step, place.positions
    # The window is drawn again from the same keys instead of being passed along with the mask.
    draw = Draw(run.image_size, run.seed, step, 1, positions)
    found = [windows(mask, draw, stream) for stream in streams or window_streams(mask, run.seed)]
    return units & torch.stack(found, dim=1).flatten(0, 1)[: len(units)]
