"""Base class of all masks: their facts, and checks of their geometry."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal

from harness.spec.base import Spec


class MaskSpec(Spec):
    """A mask over square units of `size` pixels of the network's input. A hidden unit is True, everywhere.

    scored_by: source of the scores of units that the mask needs besides noise: a teacher's attention, or a predictor of
        the loss; None for a mask that does not depend on the image.
    """

    scored_by: ClassVar[Literal["attention", "loss"] | None] = None

    @property
    def hides_blindly(self) -> bool:
        """True if it hides places of the image and looks at nothing, so that its masks are known without a model."""
        return self.scored_by is None

    @property
    def views(self) -> int:
        """Number of masks of each image in one training step; the copies follow each other in the batch."""
        return 1

    @property
    def is_fixed(self) -> bool:
        """True if there is one mask in the whole training (or one for each view)."""
        return False

    def varies(self, image_size: int) -> bool:
        """True if the number of hidden units differs from image to image, view to view or step to step."""
        del image_size
        return False

    def hidden_units(self, image_size: int) -> int | None:
        """Number of hidden units of a square image, the most where it varies; None if only the drawn masks tell."""
        del image_size
        return None

    def check(self, image_size: int) -> None:
        """Refuse a mask that would hide all units of a square image, or that cannot hide any.

        Raises:
            ValueError: it would; names the valid choices.
        """

    def notes(self, image_size: int) -> tuple[str, ...]:
        """Properties that the mask's geometry lacks on a square image of `image_size` pixels, a sentence each."""
        del image_size
        return ()


Count = Callable[[float, int], int]
"""Number of hidden units that a mask has at a ratio, of a number of units; it never falls as the ratio rises."""


def nominal_count(ratio: float, units: int) -> int:
    """Hidden units as SimMIM counts them: the ratio's share, rounded up."""
    return math.ceil(units * ratio)


def mae_count(ratio: float, units: int) -> int:
    """Hidden units as MAE counts them: all but int(units * (1 - ratio))."""
    return units - int(units * (1 - ratio))


RATIOS = [number / 10_000 for number in range(1, 10_000)]
"""Ratios that messages name, ascending."""


def leave_one(ratio: float, units: int, count: Count) -> None:
    """Refuse a mask that hides all units.

    Raises:
        ValueError: it does; names the largest ratio that does not.
    """
    if count(ratio, units) >= units:
        fitting = (f"at most {one:.4g} leaves one" for one in reversed(RATIOS) if count(one, units) < units)
        raise ValueError(f"ratio {ratio} hides all {units} units; {next(fitting, 'choose smaller units')}")


def hide_one(ratio: float, units: int, count: Count) -> None:
    """Refuse a mask that hides nothing.

    Raises:
        ValueError: it does; names the smallest ratio that does not.
    """
    if count(ratio, units) < 1:
        fitting = (f"{one:.4g} or more hides one" for one in RATIOS if count(one, units) >= 1)
        raise ValueError(f"ratio {ratio} hides none of {units} units; {next(fitting, 'choose smaller units')}")


def hide_some(ratio: float, units: int, count: Count) -> None:
    """Refuse a mask that hides nothing, or all units.

    Raises:
        ValueError: as `leave_one` and `hide_one`.
    """
    leave_one(ratio, units, count)
    hide_one(ratio, units, count)


def even_side(what: str, side: int, divisor: int) -> None:
    """Refuse a grid that cells of `divisor` x `divisor` units do not tile.

    Raises:
        ValueError: `divisor` does not divide `side`.
    """
    if side % divisor:
        raise ValueError(f"{what} needs a multiple of {divisor} units a side, not {side}; choose another size")
