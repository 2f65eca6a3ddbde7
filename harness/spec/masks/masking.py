"""The union of all masks."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.spec.masks.blocks import BlockMask
from harness.spec.masks.custom import CustomMask
from harness.spec.masks.frequency import FrequencyMask
from harness.spec.masks.guided import GuidedMask, HardMask
from harness.spec.masks.local import LocalMask
from harness.spec.masks.noise import ColourMask
from harness.spec.masks.pairs import ComplementMask, DisjointMask
from harness.spec.masks.patterns import CheckerboardMask, GridMask, UniformMask
from harness.spec.masks.units import RandomMask, SquareMask, TokenMask, VisibleSquareMask

__all__ = [
    "BlockMask", "CheckerboardMask", "ColourMask", "ComplementMask", "CustomMask", "DisjointMask", "FrequencyMask",
    "GridMask", "GuidedMask", "HardMask", "LocalMask", "Mask", "RandomMask", "SquareMask", "TokenMask", "UniformMask",
    "VisibleSquareMask",
]  # fmt: skip

Mask = Annotated[
    RandomMask
    | TokenMask
    | SquareMask
    | VisibleSquareMask
    | BlockMask
    | GridMask
    | UniformMask
    | CheckerboardMask
    | ColourMask
    | ComplementMask
    | DisjointMask
    | FrequencyMask
    | LocalMask
    | GuidedMask
    | HardMask
    | CustomMask,
    Field(discriminator="kind"),
]
