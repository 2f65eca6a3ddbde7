"""Masks that follow what is in the image: a score for each unit decides."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from harness.spec.masks.base import MaskSpec, hide_one, hide_some, leave_one, mae_count

REVEAL_FROM = 0.1
"""Where units are shown again unless stated, and the value of masks that show none."""


class GuidedMask(MaskSpec):
    """Units by the attention that a teacher's class token, or the mean of its queries, pays to them.

    The sign is a field because the methods disagree: AttMask hides salient units (gkakogeorgiou/attmask attmask.py,
    High; its Low hides the rest), MST and MILAN keep them.

    size: side of a unit in pixels; a multiple of the model's patch.
    ratio: nominal share of hidden units, in (0, 1). int(units * ratio) units are hidden.
    hide: salient: the units of highest score; rest: those of lowest.
    choose: ranked: exactly those. drawn: without replacement, the kept units with a probability proportional to the
        score if the rest is hidden (MILAN; mmpretrain models/selfsup/milan.py), the hidden ones if the salient are.
    ratio_spread: each image's ratio is uniform in [ratio - ratio_spread, ratio + ratio_spread] (AttMask: 0.3, 0.2).
    reveal: AttMask's Hint: int(units * reveal) hidden units are shown again, drawn among the int(units * reveal_from)
        most salient. 0: none.
    reveal_from: see reveal.
    """

    kind: Literal["guided"] = "guided"
    size: PositiveInt
    ratio: float = Field(gt=0, lt=1)
    hide: Literal["salient", "rest"] = "salient"
    choose: Literal["ranked", "drawn"] = "ranked"
    ratio_spread: float = Field(default=0.0, ge=0, lt=1)
    reveal: float = Field(default=0.0, ge=0, lt=1)
    reveal_from: float = Field(default=REVEAL_FROM, gt=0, lt=1)

    scored_by: ClassVar[Literal["attention", "loss"] | None] = "attention"

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if self.ratio_spread and not 0 < self.ratio - self.ratio_spread < self.ratio + self.ratio_spread < 1:
            most = min(self.ratio, 1 - self.ratio)
            raise ValueError(f"ratio_spread {self.ratio_spread} leaves (0, 1) at ratio {self.ratio}; below {most:.4g}")
        if not self.reveal and self.reveal_from != REVEAL_FROM:
            raise ValueError("reveal_from says where units are shown again; set reveal too, or leave it out")
        if self.reveal and (self.hide, self.choose) != ("salient", "ranked"):
            raise ValueError("reveal shows some of the salient units that are hidden: hide='salient', choose='ranked'")
        least = self.ratio - self.ratio_spread
        # AttMask's own 0.3 - 0.2 is a little less than 0.1 in binary.
        if self.reveal and not self.reveal <= self.reveal_from <= least + 1e-9:
            raise ValueError(f"reveal_from {self.reveal_from} should lie between reveal and the smallest ratio")
        return self

    def replace(self, **changes: Any) -> Self:
        """A validated copy; without `reveal` there is no `reveal_from`."""
        if changes.get("reveal") == 0:
            changes = {"reveal_from": REVEAL_FROM, **changes}
        return super().replace(**changes)

    def hidden_units(self, image_size: int) -> int:
        """Number of hidden units in a square image of `image_size` pixels, the most where it varies."""
        return self._count(self.ratio + self.ratio_spread, (image_size // self.size) ** 2)

    def _count(self, ratio: float, units: int) -> int:
        return int(units * ratio) - int(units * self.reveal)

    def varies(self, image_size: int) -> bool:
        del image_size
        return self.ratio_spread > 0

    def check(self, image_size: int) -> None:
        units = (image_size // self.size) ** 2
        hide_one(self.ratio, units, lambda ratio, units: self._count(ratio - self.ratio_spread, units))
        leave_one(self.ratio, units, lambda ratio, units: self._count(ratio + self.ratio_spread, units))


class HardMask(MaskSpec):
    """Units whose loss a predictor expects to be high, a growing share of the hidden ones (HPM).

    Behaves as Haochen-Wang409/HPM models_mae_learn_loss.py: units - int(units * (1 - ratio)) units are hidden, of these
    int(hidden * a) are those of the highest predicted loss and the others random. The share a goes linearly over the
    training, a = first + (step + 1) / steps * (last - first); HPM moves it once an epoch.

    size: side of a unit in pixels; a multiple of the model's patch.
    ratio: nominal share of hidden units, in (0, 1).
    first, last: the share of hidden units that is chosen by the predicted loss; HPM's easy-to-hard goes from 0 to 0.5,
        1 and 1 hides the hardest only.
    """

    kind: Literal["hard"] = "hard"
    size: PositiveInt
    ratio: float = Field(default=0.75, gt=0, lt=1)
    first: float = Field(default=0.0, ge=0, le=1)
    last: float = Field(default=0.5, ge=0, le=1)

    scored_by: ClassVar[Literal["attention", "loss"] | None] = "loss"

    @model_validator(mode="after")
    def _looks(self) -> Self:
        if not self.first and not self.last:
            raise ValueError("first=0 with last=0 never looks at the predicted loss; use TokenMask")
        return self

    def share(self, step: Any, steps: int) -> Any:
        """The share of hidden units that the predicted loss chooses in a step, counted from 0.

        Args:
            step: a number, or a float64 tensor or array of them, which the result is then like.
        """
        return self.first + (step + 1) / steps * (self.last - self.first)

    def hidden_units(self, image_size: int) -> int:
        """Number of hidden units in a square image of `image_size` pixels."""
        return mae_count(self.ratio, (image_size // self.size) ** 2)

    def check(self, image_size: int) -> None:
        hide_some(self.ratio, (image_size // self.size) ** 2, mae_count)
