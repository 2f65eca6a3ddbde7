"""Masks of units drawn one by one, and squares of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from harness.spec.masks.base import MaskSpec, hide_some, leave_one, mae_count, nominal_count


class RandomMask(MaskSpec):
    """Random units, as SimMIM masks (SimMIM section 3.2; released code data/data_simmim.py).

    size: side of a masked unit in pixels of the network's input; a multiple of the model's patch.
    ratio: nominal share of hidden units, in (0, 1). Exactly ceil(units * ratio) of the units are hidden.
    """

    kind: Literal["random"] = "random"
    size: PositiveInt
    ratio: float = Field(gt=0, lt=1)

    def hidden_units(self, image_size: int) -> int:
        """Number of hidden units in a square image of `image_size` pixels."""
        return nominal_count(self.ratio, (image_size // self.size) ** 2)

    def check(self, image_size: int) -> None:
        leave_one(self.ratio, (image_size // self.size) ** 2, nominal_count)


class TokenMask(MaskSpec):
    """Random tokens, as MAE masks: the tokens of lowest noise are kept (facebookresearch/mae models_mae.py).

    size: side of a unit in pixels; MAE's is the patch.
    ratio: nominal share of hidden units, in (0, 1). Exactly int(units * (1 - ratio)) are kept, which for some ratios is
        one fewer than RandomMask keeps: the rounding of 1 - ratio counts.
    shared: one mask for all images of a step, as GreenMIM draws it.
    """

    kind: Literal["tokens"] = "tokens"
    size: PositiveInt
    ratio: float = Field(gt=0, lt=1)
    shared: bool = False

    def hidden_units(self, image_size: int) -> int:
        """Number of hidden units in a square image of `image_size` pixels."""
        return mae_count(self.ratio, (image_size // self.size) ** 2)

    def check(self, image_size: int) -> None:
        hide_some(self.ratio, (image_size // self.size) ** 2, mae_count)


class SquareMask(MaskSpec):
    """One square of whole units (SimMIM Table 1, "square"; its code is not released).

    Every place on the grid of units at which the square fits is equally likely. SimMIM's labels 0.11, 0.25 and 0.44 at
    192 px and units of 32 px are squares of 2 x 2, 3 x 3 and 4 x 4 units.

    size: side of a unit in pixels; a multiple of the model's patch.
    ratio: nominal share of hidden units, in (0, 1): the square with the nearest side is taken.
    place: random, or centre: always in the middle, rounded up and left where there is no middle.
    """

    kind: Literal["square"] = "square"
    size: PositiveInt
    ratio: float = Field(gt=0, lt=1)
    place: Literal["random", "centre"] = "random"

    implicit: ClassVar[Mapping[str, object]] = {"place": "random"}

    @property
    def is_fixed(self) -> bool:
        return self.place == "centre"

    def side(self, image_size: int) -> int:
        """Side of the hidden square in units, in a square image of `image_size` pixels."""
        return round(image_size // self.size * math.sqrt(self.ratio))

    def hidden_units(self, image_size: int) -> int:
        """Number of hidden units in a square image of `image_size` pixels."""
        return self.side(image_size) ** 2

    def check(self, image_size: int) -> None:
        side, square = image_size // self.size, self.side(image_size)
        if 0 < square < side:
            return
        low, high = (1 / side) ** 2, (1 - 1 / side) ** 2
        valid = f"{low:.4g} (1 x 1) to {high:.4g} ({side - 1} x {side - 1})" if side > 1 else "none"
        raise ValueError(f"ratio {self.ratio} hides {square} x {square} of {side} x {side} units; valid: {valid}")


class VisibleSquareMask(MaskSpec):
    """All but one square of whole units at a random place.

    The public code that calls this "block" beside uniform sampling (Haochen-Wang409/HPM mask_transform.py) leaves
    7 x 7 of 14 x 14 tokens visible.

    size: side of a unit in pixels; a multiple of the model's patch.
    ratio: nominal share of hidden units, in (0, 1): the visible square with the nearest side is taken.
    places: published: the square never reaches the last row and the last column, which leaves 49 places of 7 x 7 in
        14 x 14, as in that code; all: those too, 64 places.
    """

    kind: Literal["visible-square"] = "visible-square"
    size: PositiveInt
    ratio: float = Field(default=0.75, gt=0, lt=1)
    places: Literal["published", "all"] = "published"

    def side(self, image_size: int) -> int:
        """Side of the visible square in units, in a square image of `image_size` pixels."""
        return round(image_size // self.size * math.sqrt(1 - self.ratio))

    def starts(self, image_size: int) -> int:
        """Number of first rows, and of first columns, that the square may have."""
        return image_size // self.size - self.side(image_size) + (self.places == "all")

    def hidden_units(self, image_size: int) -> int:
        """Number of hidden units in a square image of `image_size` pixels."""
        return (image_size // self.size) ** 2 - self.side(image_size) ** 2

    def check(self, image_size: int) -> None:
        side, square = image_size // self.size, self.side(image_size)
        if 0 < square < side:
            return
        low, high = 1 - (1 - 1 / side) ** 2, 1 - (1 / side) ** 2
        valid = f"{low:.4g} ({side - 1} x {side - 1}) to {high:.4g} (1 x 1)" if side > 1 else "none"
        raise ValueError(f"ratio {self.ratio} leaves {square} x {square} of {side} x {side} units; valid: {valid}")
