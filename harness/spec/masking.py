"""Which patches are hidden (masks), and how a hidden patch is hidden (corruption)."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

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


Mask = Annotated[RandomMask | CustomMask, Field(discriminator="kind")]


class Corruption(Spec):
    """How hidden patches are kept from the encoder.

    fill: what replaces hidden pixels before the patch embedding: nothing, or the data set's mean colour.
    token: what happens to hidden tokens after the patch embedding: a learned mask token replaces them
        (SimMIM), or nothing.
    """

    fill: Literal["none", "mean"] = "none"
    token: Literal["replace", "none"] = "replace"

    @model_validator(mode="after")
    def _hides_something(self) -> Self:
        if self.fill == "none" and self.token == "none":
            raise ValueError("fill='none' with token='none' hides nothing; set fill='mean' or token='replace'")
        return self
