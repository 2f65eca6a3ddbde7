"""Where a mask is drawn, and its noise."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from harness.core.runtime.randomness import uniform, words
from harness.spec import seed_stream


class Draw(NamedTuple):
    """One batch of masks: side of the image in pixels, seed, step of steps, places in the global batch (int64 [B])."""

    image_size: int
    seed: int
    step: int
    steps: int
    positions: Tensor

    @property
    def batch(self) -> int:
        """Number of masks."""
        return len(self.positions)

    def words(self, purpose: str, count: int) -> Tensor:
        """Hashed 32-bit words, int64 [B, count]; row i depends on positions[i] alone, purposes are unrelated."""
        return words(seed_stream(self.seed, purpose), self.step, self.positions, count)

    def uniform(self, purpose: str, count: int) -> Tensor:
        """Uniform float32 numbers [B, count] in [0, 1), with 24 random bits, as `words`."""
        return uniform(seed_stream(self.seed, purpose), self.step, self.positions, count)

    def shared(self) -> Draw:
        """The draw of the first image, for all: one mask for the whole batch."""
        return self._replace(positions=self.positions.new_zeros(self.batch))
