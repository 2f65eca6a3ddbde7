"""The masks that papers compare, in the units that they were proposed for: an image of 14 x 14 patches."""

from __future__ import annotations

from harness.spec import (
    BlockMask,
    CheckerboardMask,
    ColourMask,
    ComplementMask,
    DisjointMask,
    GridMask,
    LocalMask,
    Mask,
    RandomMask,
    SquareMask,
    TokenMask,
    UniformMask,
    VisibleSquareMask,
)

PATCHES = 196
"""Patches of 224 px in patches of 16, from which shares of BEiT's and BootMAE's counts are taken."""


def compared_masks(patch: int = 16) -> dict[str, Mask]:
    """Masks that do not look at the image, by name, over patches of `patch` pixels.

    BEiT's and BootMAE's have their own count, which varies; the sigmas of the colours are assumed. Of those with
    several views a distance or a count is that of the first; of local windows what lies outside is hidden too.
    """
    return {
        "checkerboard 1": CheckerboardMask(size=patch),
        "checkerboard 1, random phase": CheckerboardMask(size=patch, phase="random"),
        "checkerboard 2, phase 0": CheckerboardMask(size=patch, square=2),
        "checkerboard 2, phase 1": CheckerboardMask(size=patch, square=2, phase=1),
        "checkerboard 4": CheckerboardMask(size=patch, square=4),
        "checkerboard 7": CheckerboardMask(size=patch, square=7),
        "grid": GridMask(size=patch),
        "tokens 0.5": TokenMask(size=patch, ratio=0.5),
        "tokens 0.6": TokenMask(size=patch, ratio=0.6),
        "uniform": UniformMask(size=patch),
        "tokens 0.75": TokenMask(size=patch, ratio=0.75),
        "double units 0.5": RandomMask(size=2 * patch, ratio=0.5),
        "double units 0.6": RandomMask(size=2 * patch, ratio=0.6),
        # BEiT's released count, and then half and three quarters of the patches.
        "BEiT 75": BlockMask(size=patch, ratio=75 / PATCHES, count="beit"),
        "BEiT 98": BlockMask(size=patch, ratio=98 / PATCHES, count="beit"),
        "BEiT 147": BlockMask(size=patch, ratio=147 / PATCHES, count="beit"),
        "BootMAE 120": BlockMask(size=patch, ratio=120 / PATCHES, count="beit", max_block=60 / PATCHES),
        "iBOT 0.3 ± 0.2": BlockMask(size=patch, ratio=0.3, count="beit", ratio_spread=0.2),
        "central square": SquareMask(size=patch, ratio=100 / PATCHES, place="centre"),  # 10 x 10 patches
        "visible square": VisibleSquareMask(size=patch),
        "green": ColourMask(size=patch, colour="green", sigma=0.5, wide=2.0),
        "blue": ColourMask(size=patch, colour="blue", sigma=1.0),
        "purple": ColourMask(size=patch, colour="purple", sigma=0.5, wide=2.0),
        "red": ColourMask(size=patch, colour="red", sigma=2.0),
        "complement": ComplementMask(size=patch),
        "disjoint": DisjointMask(size=patch),
        "local windows": LocalMask(size=patch),
    }
