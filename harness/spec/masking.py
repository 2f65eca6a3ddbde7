"""Which patches are hidden."""

from __future__ import annotations

import math
from typing import Annotated, Literal, assert_never

from pydantic import Field, PositiveInt

from harness.spec.base import Spec
from harness.spec.own import OwnFunction


class RandomMask(Spec):
    """Random units, as SimMIM masks (SimMIM section 3.2; released code data/data_simmim.py).

    size: side of a masked unit in pixels of the network's input; a multiple of the model's patch.
    ratio: nominal share of hidden units, in (0, 1). Exactly ceil(units * ratio) of the units are hidden.
    """

    kind: Literal["random"] = "random"
    size: PositiveInt
    ratio: float = Field(gt=0, lt=1)

    def hidden_units(self, image_size: int) -> int:
        """Number of hidden units in a square image of `image_size` pixels."""
        return math.ceil((image_size // self.size) ** 2 * self.ratio)


class SquareMask(Spec):
    """One square of whole units at a random place (SimMIM Table 1, "square"; its code is not released).

    Every place on the grid of units at which the square fits is equally likely. SimMIM's labels 0.11, 0.25 and 0.44 at
    192 px and units of 32 px are squares of 2 x 2, 3 x 3 and 4 x 4 units.

    size: side of a unit in pixels; a multiple of the model's patch.
    ratio: nominal share of hidden units, in (0, 1): the square with the nearest side is taken.
    """

    kind: Literal["square"] = "square"
    size: PositiveInt
    ratio: float = Field(gt=0, lt=1)

    def side(self, image_size: int) -> int:
        """Side of the hidden square in units, in a square image of `image_size` pixels."""
        return round(image_size // self.size * math.sqrt(self.ratio))

    def hidden_units(self, image_size: int) -> int:
        """Number of hidden units in a square image of `image_size` pixels."""
        return self.side(image_size) ** 2


class BlockMask(Spec):
    """Overlapping rectangles of random area and aspect ratio until enough is hidden (BEiT, Algorithm 1).

    Behaves as microsoft/unilm beit/masking_generator.py: a block's area is uniform between the smallest block and what
    is still to be hidden, its aspect ratio log-uniform, its place uniform on the grid, last row and last column
    included (mmpretrain's version never reaches those two). A block that is as long as the image, adds nothing or hides
    too much is drawn again, ten times; then BEiT stops short of the target.

    size: side of a unit in pixels; a multiple of the model's patch.
    ratio: nominal share of hidden units, in (0, 1); the target is ceil(units * ratio).
    count: exact: what BEiT's algorithm leaves short of the target is topped up with units drawn at random among those
        that share a side with a hidden one, ring after ring where one ring is too few. beit: BEiT's own count, which
        varies from image to image and is at most the target; it is none where no try for the first block fits, as in
        3 of 10,000 masks of 6 x 6 units at ratio 0.8.
    min_block: area of the smallest block as a share of all units, rounded to whole units, one at least; 0.08 is BEiT's
        16 of 196. SimMIM does not publish its own.
    min_aspect: the aspect ratio lies in [min_aspect, 1 / min_aspect]; BEiT's is 0.3. SimMIM does not publish its own.
    """

    kind: Literal["block"] = "block"
    size: PositiveInt
    ratio: float = Field(gt=0, lt=1)
    count: Literal["exact", "beit"] = "exact"
    min_block: float = Field(default=0.08, gt=0, lt=1)
    min_aspect: float = Field(default=0.3, gt=0, le=1)

    def hidden_units(self, image_size: int) -> int:
        """Number of hidden units in a square image of `image_size` pixels; the most there can be if count is beit."""
        return math.ceil((image_size // self.size) ** 2 * self.ratio)

    def smallest_block(self, image_size: int) -> int:
        """Area of the smallest block in units, in a square image of `image_size` pixels."""
        return max(1, round((image_size // self.size) ** 2 * self.min_block))


class CustomMask(OwnFunction):
    """A user's own mask.

    function: `package.module:name`; called as `name(random, grid, step, steps, **params)` it returns a bool
        tensor [B, *grid], True = hidden. `grid` is (rows, columns) in units; `random(*shape)` gives float32
        uniform numbers in [0, 1) of shape [B, *shape], new ones at every call, that depend on the seed, the step
        and the image's place in the batch only; `step` of `steps` serves masks that change during training.
    size: side of a unit in pixels; a multiple of the model's patch.
    """

    kind: Literal["custom"] = "custom"
    size: PositiveInt


Mask = Annotated[RandomMask | SquareMask | BlockMask | CustomMask, Field(discriminator="kind")]


def check_share(mask: Mask, image_size: int) -> None:
    """Refuse a mask that would hide all units of an image, or that cannot hide any.

    Raises:
        ValueError: it would; names the valid choices.
    """
    side = image_size // mask.size
    match mask:
        case RandomMask():
            _leave_one(mask, side)
        case SquareMask():
            _fit_square(mask, side, mask.side(image_size))
        case BlockMask():
            _leave_one(mask, side)
            _fit_block(mask, side, mask.smallest_block(image_size))
        case CustomMask():
            return  # its function decides
        case _:
            assert_never(mask)


def _leave_one(mask: RandomMask | BlockMask, side: int) -> None:
    units = side**2
    if mask.hidden_units(side * mask.size) >= units:
        most = math.floor((units - 1) / units * 1e4) / 1e4  # rounded up, it would hide all of them
        raise ValueError(f"ratio {mask.ratio} hides all {units} units; at most {most:.4g} leaves one")


def _fit_square(mask: SquareMask, side: int, square: int) -> None:
    if 0 < square < side:
        return
    low, high = (1 / side) ** 2, (1 - 1 / side) ** 2
    valid = f"{low:.4g} (1 x 1) to {high:.4g} ({side - 1} x {side - 1})" if side > 1 else "none"
    raise ValueError(f"ratio {mask.ratio} hides {square} x {square} of {side} x {side} units; valid: {valid}")


def _fit_block(mask: BlockMask, side: int, smallest: int) -> None:
    target = mask.hidden_units(side * mask.size)
    most = min(target, (side - 1) ** 2)  # a block is shorter than the image
    if smallest > most:
        raise ValueError(
            f"min_block {mask.min_block} makes blocks of {smallest} units or more, but only {most} of {side**2} can be "
            f"hidden by one at ratio {mask.ratio}; valid: up to {math.floor(most / side**2 * 1e4) / 1e4:.4g}"
        )
