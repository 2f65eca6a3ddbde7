"""Masks inside of windows of an image."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from harness.spec.masks.base import MaskSpec


class LocalMask(MaskSpec):
    """Windows at random places, of which most units are hidden and predicted (LoMaR; junchen14/LoMaR models_lomar.py).

    A step trains each image once with each of its windows. All that lies outside of the window is hidden as well, so
    that nothing but the visible units of the window is seen, and the loss is over the hidden units of the window alone.
    LoMaR's encoder computes the tokens of the window only; this one computes mask tokens in place of the others, which
    show nothing of the image and cost time.

    size: side of a unit in pixels; LoMaR's is the patch.
    ratio: nominal share of hidden units of a window, in (0, 1): int(window ** 2 * ratio) of them.
    window: side of a window in units. windows: their number in each image, each drawn by itself: they may overlap or
        coincide. LoMaR's have tops and left edges that all differ.
    shared: the windows of a step are at the same places in all images, as in the released code; their hidden units are
        each image's own.
    """

    kind: Literal["local"] = "local"
    size: PositiveInt
    ratio: float = Field(default=0.8, gt=0, lt=1)
    window: PositiveInt = 7
    windows: PositiveInt = 4
    shared: bool = True

    @property
    def views(self) -> int:
        return self.windows

    @property
    def predicted_units(self) -> int:
        """Number of hidden units of a window, over which the loss is."""
        return int(self.window**2 * self.ratio)

    def hidden_units(self, image_size: int) -> int:
        """Number of hidden units in a square image of `image_size` pixels, those outside of the window included."""
        return (image_size // self.size) ** 2 - self.window**2 + self.predicted_units

    def check(self, image_size: int) -> None:
        side = image_size // self.size
        if self.window > side:
            raise ValueError(f"window {self.window} is longer than {side} units a side; at most {side}")
        if not 0 < self.predicted_units < self.window**2:
            found = f"{self.predicted_units} of {self.window**2}"
            raise ValueError(f"ratio {self.ratio} hides {found} units of a window; some should be hidden, some visible")
