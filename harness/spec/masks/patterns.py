"""Masks that are regular in space: grids, one unit of each cell, checkerboards."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import PositiveInt

from harness.spec.masks.base import MaskSpec, even_side


class GridMask(MaskSpec):
    """One visible unit in each cell of 2 x 2, always its first: a quarter is visible (MAE Figure 6, "grid").

    size: side of a unit in pixels; a multiple of the model's patch.
    """

    kind: Literal["grid"] = "grid"
    size: PositiveInt

    @property
    def ratio(self) -> float:
        """Share of hidden units."""
        return 0.75

    @property
    def is_fixed(self) -> bool:
        return True

    def hidden_units(self, image_size: int) -> int:
        """Number of hidden units in a square image of `image_size` pixels."""
        return (image_size // self.size) ** 2 * 3 // 4

    def check(self, image_size: int) -> None:
        even_side("a grid of 2 x 2 cells", image_size // self.size, 2)


class UniformMask(MaskSpec):
    """One visible unit in each cell of 2 x 2, drawn at random: uniform sampling (UM-MAE section 3.2).

    UM-MAE also replaces a quarter of the visible tokens by a mask token; that secondary mask is not made here.

    size: side of a unit in pixels; a multiple of the model's patch.
    """

    kind: Literal["uniform"] = "uniform"
    size: PositiveInt

    @property
    def ratio(self) -> float:
        """Share of hidden units."""
        return 0.75

    def hidden_units(self, image_size: int) -> int:
        """Number of hidden units in a square image of `image_size` pixels."""
        return (image_size // self.size) ** 2 * 3 // 4

    def check(self, image_size: int) -> None:
        even_side("uniform sampling of 2 x 2 cells", image_size // self.size, 2)


class Board(NamedTuple):
    """The geometry of a checkerboard on `side` x `side` units with squares of `square` x `square` units.

    Phase 1 hides the first square, phase 0 its neighbours: the unit (i, j) of phase 0 is hidden where
    i // square + j // square is odd.
    """

    side: int
    square: int

    @property
    def hidden(self) -> tuple[int, int]:
        """Number of hidden units in phase 0 and in phase 1."""
        odd = sum(row // self.square % 2 for row in range(self.side))
        hidden = 2 * odd * (self.side - odd)
        return hidden, self.side**2 - hidden

    @property
    def is_half(self) -> bool:
        """True if both phases hide exactly half of the units."""
        return len(set(self.hidden)) == 1

    def mirrored(self, phase: int) -> float:
        """Share of the hidden units whose reflection, left to right, is visible; top to bottom gives the same."""
        parity = [place // self.square % 2 for place in range(self.side)]
        hidden = [
            (row, column)
            for row in range(self.side)
            for column in range(self.side)
            if (parity[row] + parity[column] + phase) % 2
        ]
        across = sum(parity[column] != parity[-1 - column] for _, column in hidden)
        return across / len(hidden) if hidden else 0.0

    @property
    def is_mirrored(self) -> bool:
        """True if every hidden unit reflects a visible one, in both phases: where 2 * square divides the side."""
        return self.mirrored(0) == self.mirrored(1) == 1.0


class CheckerboardMask(MaskSpec):
    """A checkerboard (SymMIM): the unit (i, j) is hidden where i // square + j // square + phase is odd.

    size: side of a unit in pixels; a multiple of the model's patch.
    square: side of a square of the board in units; the last row and column of squares may be cut off.
    phase: 0 or 1: always that one, one mask in the whole training. random: each image draws one of the two. both: each
        image is trained with both in each step, one after the other in the batch.
    strict: refuse a board that is not exactly half hidden, or of which a hidden unit does not reflect a visible one.
    """

    kind: Literal["checkerboard"] = "checkerboard"
    size: PositiveInt
    square: PositiveInt = 1
    phase: Literal[0, 1, "random", "both"] = 0
    strict: bool = False

    @property
    def views(self) -> int:
        return 2 if self.phase == "both" else 1

    @property
    def ratio(self) -> float:
        """Share of hidden units of a board whose squares fill the image."""
        return 0.5

    @property
    def is_fixed(self) -> bool:
        return self.phase != "random"

    def board(self, image_size: int) -> Board:
        """Its geometry on a square image of `image_size` pixels."""
        return Board(image_size // self.size, self.square)

    def hidden_units(self, image_size: int) -> int:
        """Number of hidden units in a square image of `image_size` pixels, the most where the phases differ."""
        hidden = self.board(image_size).hidden
        return max(hidden) if isinstance(self.phase, str) else hidden[self.phase]

    def varies(self, image_size: int) -> bool:
        return isinstance(self.phase, str) and not self.board(image_size).is_half

    def check(self, image_size: int) -> None:
        side = image_size // self.size
        if self.square >= side:
            raise ValueError(f"square {self.square} covers all {side} units a side; at most {side - 1}")
        if self.strict and (found := self.notes(image_size)):
            clean = [str(square) for square in range(1, side) if not side % (2 * square)]
            raise ValueError(f"{found[0]}; strict boards on {side} units a side: square {', '.join(clean) or 'none'}")

    def notes(self, image_size: int) -> tuple[str, ...]:
        board = self.board(image_size)
        phases = (0, 1) if isinstance(self.phase, str) else (self.phase,)
        what = f"checkerboard of {self.square} x {self.square} on {board.side} x {board.side} units"
        total = board.side**2
        found = []
        if not board.is_half:
            counts = " or ".join(
                f"{board.hidden[phase]} of {total} ({board.hidden[phase] / total:.2%})" for phase in phases
            )
            found.append(f"{what} hides {counts}, not half")
        if not board.is_mirrored:
            shares = dict.fromkeys(f"{board.mirrored(phase):.0%}" for phase in phases)
            found.append(f"{what}: {' or '.join(shares)} of the hidden units reflect a visible one, not all")
        return tuple(found)
