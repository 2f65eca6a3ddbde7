"""How a hidden patch is hidden."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from harness.spec.base import Spec


class Corruption(Spec):
    """How hidden patches are kept from the encoder.

    fill: what replaces hidden pixels before the patch embedding: nothing, or the data set's mean colour.
    token: what happens to hidden tokens after the patch embedding: a learned mask token replaces them (SimMIM), the
        encoder computes without them (MAE), or nothing.
    """

    fill: Literal["none", "mean"] = "none"
    token: Literal["replace", "drop", "none"] = "replace"

    @model_validator(mode="after")
    def _hides_something(self) -> Self:
        if self.fill == "none" and self.token == "none":
            raise ValueError("fill='none' with token='none' hides nothing; set fill='mean' or token='replace'")
        if self.fill != "none" and self.token == "drop":
            raise ValueError(f"fill={self.fill!r} does nothing to tokens that are dropped; leave it out")
        return self
