"""Reconstructions for the page: each image once, however many arms show it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from harness.report.figures.gallery import Pixels, Triplets
from harness.report.page import data_address

ARMS = 24
"""Arms whose reconstructions the page holds."""

SMALL = 64
"""Pixels of a side up to which an image is kept without loss."""


def reconstructions(found: Sequence[Triplets], title: str) -> dict[str, Any]:
    """Images as `data:` addresses, and for each arm its label and, for each of a few images, the places of the three.

    title: what the labels hold.
    """
    places: dict[str, int] = {}
    arms = [
        {
            "label": arm.label,
            # Arms share originals, which are the same test images, and mostly masks.
            "images": [[places.setdefault(_address(image), len(places)) for image in three] for three in arm.images],
        }
        for arm in found[:ARMS]
    ]
    return {"title": title, "images": list(places), "arms": arms}


def _address(pixels: Pixels) -> str:
    """An image [H, W, C], without loss if it is small and else as WebP of high quality."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    buffer = io.BytesIO()
    # PNG keeps single pixels of a small image sharp; of a large one it would make the page heavy.
    kind = "png" if max(image.size) <= SMALL else "webp"
    image.save(buffer, format=kind, quality=90) if kind == "webp" else image.save(buffer, format=kind)
    return data_address(buffer.getvalue(), kind)
