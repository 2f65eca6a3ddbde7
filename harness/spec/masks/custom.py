"""A mask of a user's own."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from harness.spec.masks.base import MaskSpec
from harness.spec.user_code import UserFunction


class CustomMask(UserFunction, MaskSpec):
    """A user's own mask.

    function: `package.module:name`; called as `name(random, grid, step, steps, **params)` it returns a bool
        tensor [B, *grid], True = hidden. `grid` is (rows, columns) in units; `random(*shape)` gives float32
        uniform numbers in [0, 1) of shape [B, *shape], new ones at every call, that depend on the seed, the step
        and the image's place in the batch only. `step`, int64 [B, 1, 1], each image's own, counted from 0 of `steps`,
        serves masks that change during training. A batch may have any length, and row i may depend on row i alone.
    size: side of a unit in pixels; a multiple of the model's patch.
    """

    kind: Literal["custom"] = "custom"
    size: PositiveInt

    def varies(self, image_size: int) -> bool:
        del image_size
        return True  # only its function knows
