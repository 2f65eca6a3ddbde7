"""A reconstruction as one picture: original, masked image, prediction, and prediction in hidden places only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from harness.spec import HarnessError

SIDE = 224
"""Least side of a panel in pixels; smaller images are enlarged by a whole factor."""

MARGIN, LINE = 14, 22
"""Pixels between panels, and of a line of text."""
INK, DIM = (20, 20, 20), (110, 110, 110)
"""Colours of the title and of the line below it, RGB."""


def sheet(panels: Sequence[tuple[str, NDArray[np.uint8]]], title: str, detail: str) -> Image.Image:
    """Labelled panels side by side under a title and a line of detail, which are shortened to fit.

    Args:
        panels: labels and images uint8 [S, S, C] of one size, C = 1 or 3.

    Raises:
        HarnessError: the images have other than 1 or 3 channels.
    """
    side, _, channels = panels[0][1].shape
    if channels not in (1, 3):
        raise HarnessError(f"images of {channels} channels cannot be drawn; only 1 or 3")
    shown = side * max(1, -(-SIDE // side))
    top = MARGIN + 3 * LINE
    width = MARGIN + len(panels) * (shown + MARGIN)
    page = Image.new("RGB", (width, top + shown + MARGIN), "white")
    draw = ImageDraw.Draw(page)
    for row, (text, ink, size) in enumerate(((title, INK, 16), (detail, DIM, 13))):
        font = ImageFont.load_default(size)
        draw.text((MARGIN, MARGIN - 4 + row * LINE), _fitting(text, font, width - 2 * MARGIN), ink, font=font)
    font = ImageFont.load_default(14)
    for number, (label, pixels) in enumerate(panels):
        left = MARGIN + number * (shown + MARGIN)
        image = Image.fromarray(pixels if channels == 3 else pixels[..., 0]).convert("RGB")
        # Nearest, by a whole factor: pixels and mask units stay sharp squares.
        page.paste(image.resize((shown, shown), Image.Resampling.NEAREST), (left, top))
        draw.text((left, top - LINE + 2), _fitting(label, font, shown), INK, font=font)
    return page


def _fitting(text: str, font: Any, width: int) -> str:
    """Text cut at its end, with three dots, to at most `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
