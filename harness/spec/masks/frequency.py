"""Masks of frequencies."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat

from harness.spec.masks.base import MaskSpec


class FrequencyMask(MaskSpec):
    """Frequencies instead of patches: each image is filtered, low-pass or high-pass (MFM; data/data_mfm.py).

    Low frequencies are those nearer than `radius` to the zero frequency, on the grid of the shifted spectrum. The
    encoder sees all patches of the filtered image, which is the real part of the inverse transform, cut to [0, 1]
    before normalisation; there is no mask token. Where the mask is True, a frequency is removed (MFM's own arrays have
    1 where it is kept).

    radius: in cycles per image; MFM's is 16 at 224 px.
    low_pass: probability that an image keeps its low frequencies and not the others.
    """

    kind: Literal["frequency"] = "frequency"
    radius: PositiveFloat = 16.0
    low_pass: float = Field(default=0.5, ge=0, le=1)

    @property
    def size(self) -> int:
        """Side of a unit: the mask has one place a frequency, as many as the image has pixels."""
        return 1

    @property
    def hides_blindly(self) -> bool:
        return False  # it removes frequencies, and hides no places

    def varies(self, image_size: int) -> bool:
        del image_size
        return 0 < self.low_pass < 1

    @property
    def is_fixed(self) -> bool:
        return self.low_pass in (0, 1)

    def low_frequencies(self, image_size: int) -> int:
        """Number of low frequencies of a square image of `image_size` pixels."""
        places = [(place - image_size // 2) ** 2 for place in range(image_size)]
        return sum(row + column < self.radius**2 for row in places for column in places)

    def hidden_units(self, image_size: int) -> int:
        """Number of removed frequencies in a square image of `image_size` pixels, the most where it varies."""
        low = self.low_frequencies(image_size)
        high = image_size**2 - low
        return high if self.low_pass == 1 else low if self.low_pass == 0 else max(low, high)

    def check(self, image_size: int) -> None:
        if self.radius >= image_size / 2:
            raise ValueError(f"radius {self.radius:g} leaves no corner of {image_size} px; below {image_size / 2:g}")
