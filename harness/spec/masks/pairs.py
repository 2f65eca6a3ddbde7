"""Pairs of masks of one image that are trained in the same step."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from harness.spec.masks.base import MaskSpec, hide_some, mae_count


class _Pair(MaskSpec):
    """Two views of each image.

    A step trains each image of its batch with the first mask and with the second, so that it costs as much as two steps
    of a single mask. The loss is over both.
    """

    @property
    def views(self) -> int:
        return 2


class ComplementMask(_Pair):
    """Random units, and their inverse: the loss is that of both, L_M + L_inverse (LaBraM, equation 9).

    Where the ratio is one half the loss is the mean of the two, which have the same number of hidden units; elsewhere
    each counts by its hidden units.

    size: side of a unit in pixels; a multiple of the model's patch.
    ratio: nominal share of hidden units of the first mask, in (0, 1): units - int(units * (1 - ratio)) of them.
    """

    kind: Literal["complement"] = "complement"
    size: PositiveInt
    ratio: float = Field(default=0.5, gt=0, lt=1)

    def hidden_units(self, image_size: int) -> int:
        """Number of hidden units of the first mask in a square image of `image_size` pixels."""
        return mae_count(self.ratio, (image_size // self.size) ** 2)

    def varies(self, image_size: int) -> bool:
        return 2 * self.hidden_units(image_size) != (image_size // self.size) ** 2

    def check(self, image_size: int) -> None:
        hide_some(self.ratio, (image_size // self.size) ** 2, mae_count)


class DisjointMask(_Pair):
    """Random units, and a second mask of as many that hides what the first one shows (DMJD, disjoint masking).

    The second mask hides all units that are visible in the first and draws the rest among those hidden there; below one
    half, where they are too many, it draws them all among the visible ones (mx-mark/DMJD models_dmjd.py).

    size: side of a unit in pixels; twice the patch is DMJD's block variant.
    ratio: nominal share of hidden units of each mask, in (0, 1): units - int(units * (1 - ratio)) of them.
    shared: one pair for all images of a step, as the released code draws it.
    """

    kind: Literal["disjoint"] = "disjoint"
    size: PositiveInt
    ratio: float = Field(default=0.6, gt=0, lt=1)
    shared: bool = False

    def hidden_units(self, image_size: int) -> int:
        """Number of hidden units of each mask in a square image of `image_size` pixels."""
        return mae_count(self.ratio, (image_size // self.size) ** 2)

    def check(self, image_size: int) -> None:
        hide_some(self.ratio, (image_size // self.size) ** 2, mae_count)
