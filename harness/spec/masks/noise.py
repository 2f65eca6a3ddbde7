"""Masks from filtered noise."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from harness.spec.masks.base import MaskSpec, hide_some, mae_count


class ColourMask(MaskSpec):
    """Noise of one colour; the units of LARGEST value are kept (ColorMAE; models/utils/masking_generator.py).

    White noise W, one normal number a unit, is filtered by Gaussians G: red is G * W, blue W - G * W, green
    G1 * W - G2 * W with G1 the narrower, purple W - green. ColorMAE cuts its masks from patterns that it made
    beforehand, and publishes neither them in the repository nor their sigmas; here each image has noise of its own,
    wider than the image, so that no border shows. The sigmas are assumed.

    size: side of a unit in pixels; ColorMAE's is the patch.
    ratio: nominal share of hidden units, in (0, 1). Exactly int(units * (1 - ratio)) are kept.
    colour: which of the four filters.
    sigma: deviation of the Gaussian in units, of the narrower one for green and purple.
    wide: deviation of the wider Gaussian of green and purple; unused by the others.
    """

    kind: Literal["colour"] = "colour"
    size: PositiveInt
    ratio: float = Field(default=0.75, gt=0, lt=1)
    colour: Literal["green", "blue", "red", "purple"] = "green"
    sigma: PositiveFloat
    wide: PositiveFloat | None = None

    @model_validator(mode="after")
    def _band(self) -> Self:
        banded = self.colour in ("green", "purple")
        if banded and (self.wide is None or self.wide <= self.sigma):
            raise ValueError(f"{self.colour} noise is a band: wide should be above sigma {self.sigma}")
        if not banded and self.wide is not None:
            raise ValueError(f"wide belongs to green and purple noise, not to {self.colour}")
        return self

    def hidden_units(self, image_size: int) -> int:
        """Number of hidden units in a square image of `image_size` pixels."""
        return mae_count(self.ratio, (image_size // self.size) ** 2)

    def check(self, image_size: int) -> None:
        hide_some(self.ratio, (image_size // self.size) ** 2, mae_count)
