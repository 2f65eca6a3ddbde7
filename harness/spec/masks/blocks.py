"""Block-wise masks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from harness.spec.masks.base import MaskSpec, leave_one, nominal_count


class BlockMask(MaskSpec):
    """Overlapping rectangles of random area and aspect ratio until enough is hidden (BEiT, Algorithm 1).

    Behaves as microsoft/unilm beit/masking_generator.py: a block's area is uniform between the smallest block and what
    is still to be hidden, its aspect ratio log-uniform, its place uniform on the grid, last row and last column
    included (mmpretrain's version never reaches those two). A block that is as long as the image, adds nothing or hides
    too much is drawn again, ten times; then BEiT stops short of the target.

    BootMAE's blocks have a largest area too (60 of 196 units at a target of 120); iBOT draws each image's ratio
    (bytedance/ibot loader.py: count=beit, and ratio_spread 0.2 around 0.3 as AttMask runs it).

    size: side of a unit in pixels; a multiple of the model's patch.
    ratio: nominal share of hidden units, in (0, 1); the target is ceil(units * ratio).
    count: exact: what BEiT's algorithm leaves short of the target is topped up with units drawn at random among those
        that share a side with a hidden one, ring after ring where one ring is too few. beit: BEiT's own count, which
        varies from image to image and is at most the target; it is none where no try for the first block fits, as in
        3 of 10,000 masks of 6 x 6 units at ratio 0.8.
    min_block: area of the smallest block as a share of all units, rounded to whole units, one at least; 0.08 is BEiT's
        16 of 196. SimMIM does not publish its own.
    min_aspect: the aspect ratio lies in [min_aspect, 1 / min_aspect]; BEiT's is 0.3. SimMIM does not publish its own.
    max_block: area of the largest block as a share of all units, rounded to whole units; also the most that one block
        adds. None: what is still to be hidden.
    ratio_spread: each image's ratio is uniform in [ratio - ratio_spread, ratio + ratio_spread]. Its target is rounded
        up where the count is exact and left as it is where it is BEiT's, as iBOT has it.
    """

    kind: Literal["block"] = "block"
    size: PositiveInt
    ratio: float = Field(gt=0, lt=1)
    count: Literal["exact", "beit"] = "exact"
    min_block: float = Field(default=0.08, gt=0, lt=1)
    min_aspect: float = Field(default=0.3, gt=0, le=1)
    max_block: float | None = Field(default=None, gt=0, lt=1)
    ratio_spread: float = Field(default=0.0, ge=0, lt=1)

    implicit: ClassVar[Mapping[str, object]] = {"max_block": None, "ratio_spread": 0.0}

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if self.max_block is not None and self.max_block < self.min_block:
            raise ValueError(f"max_block {self.max_block} is below min_block {self.min_block}")
        if self.ratio_spread and not 0 < self.ratio - self.ratio_spread < self.ratio + self.ratio_spread < 1:
            most = min(self.ratio, 1 - self.ratio)
            raise ValueError(f"ratio_spread {self.ratio_spread} leaves (0, 1) at ratio {self.ratio}; below {most:.4g}")
        return self

    def hidden_units(self, image_size: int) -> int:
        """Number of hidden units in a square image of `image_size` pixels, the most where it varies."""
        return self._most(self.ratio, (image_size // self.size) ** 2)

    def _most(self, ratio: float, units: int) -> int:
        return nominal_count(ratio + self.ratio_spread, units)

    def varies(self, image_size: int) -> bool:
        del image_size
        return self.count == "beit" or self.ratio_spread > 0

    def smallest_block(self, image_size: int) -> int:
        """Area of the smallest block in units, in a square image of `image_size` pixels."""
        return max(1, round((image_size // self.size) ** 2 * self.min_block))

    def largest_block(self, image_size: int) -> int:
        """Area of the largest block in units, in a square image of `image_size` pixels; all of them if unlimited."""
        units: int = (image_size // self.size) ** 2
        return units if self.max_block is None else max(1, round(units * self.max_block))

    def check(self, image_size: int) -> None:
        side = image_size // self.size
        target = self.hidden_units(image_size)
        leave_one(self.ratio, side**2, self._most)
        smallest = self.smallest_block(image_size)
        most = min(target, (side - 1) ** 2)  # a block is shorter than the image
        if smallest > most:
            raise ValueError(
                f"min_block {self.min_block} makes blocks of {smallest} units or more, but only {most} of {side**2} "
                f"can be hidden by one at ratio {self.ratio}; valid: up to {math.floor(most / side**2 * 1e4) / 1e4:.4g}"
            )
