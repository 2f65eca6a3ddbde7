"""Classes of pixels and objects drawn over a picture, each class in a colour that it has in every picture."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]

BACKGROUND = "background"
"""Name of a first class that is not drawn."""
IGNORED = 255
"""Value of a pixel without a class."""
GOLDEN = 0.618034
"""From a hue to the next, in turns: of any number of hues, no two come close."""
TINT = 0.55
"""Share of a class's colour in a pixel."""
TEXT = 12
"""Least height of letters in pixels."""


class Thing(NamedTuple):
    """An object in a picture.

    kind: its class. box: x0, y0, x1, y1 in pixels. score: None of the truth. mask: bool [H, W], None where unknown.
    """

    kind: int
    box: Sequence[float]
    score: float | None = None
    mask: NDArray[np.bool_] | None = None


def colours(names: Sequence[str]) -> list[tuple[int, int, int]]:
    """A colour for each class, RGB; a first class named background is grey, and leaves the others what they were."""
    first = bool(names) and names[0] == BACKGROUND
    found = [(110, 110, 110)] * first
    for place in range(len(names) - first):
        hue, strength, value = (0.58 + place * GOLDEN) % 1, (0.85, 0.6)[place % 2], (0.95, 0.75, 1.0)[place % 3]
        red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, strength, value))
        found.append((red, green, blue))
    return found


def tinted(picture: Pixels, classes: NDArray[np.integer[Any]], names: Sequence[str]) -> Image.Image:
    """A picture [H, W, C], its pixels in the colours of their classes [H, W]; those of the background stay as they are.

    Pixels without a class become pale.
    """
    base = np.asarray(_rgb(picture), dtype=np.float64)
    table = np.full((IGNORED + 1, 3), 255.0)
    table[: len(names)] = colours(names)
    drawn = (1 - TINT) * base + TINT * table[classes]
    clear = (classes == 0)[..., None] if names[0] == BACKGROUND else False
    return Image.fromarray(np.where(clear, base, drawn).round().astype(np.uint8))


def boxed(picture: Pixels, things: Sequence[Thing], names: Sequence[str], side: int = 0) -> Image.Image:
    """A picture [H, W, C] with boxes, names, scores and masks of objects, enlarged by a whole factor to `side` pixels.

    The best objects are drawn last.
    """
    ordered, shades = sorted(things, key=lambda thing: thing.score or 0.0), colours(names)
    base = np.asarray(_rgb(picture), dtype=np.float64)
    for thing in ordered:
        if thing.mask is not None:
            base[thing.mask] = (1 - TINT) * base[thing.mask] + TINT * np.array(shades[thing.kind])
    image = enlarged(Image.fromarray(base.round().astype(np.uint8)), side)
    draw, factor = ImageDraw.Draw(image), image.width / picture.shape[1]
    font = ImageFont.load_default(max(TEXT, image.width // 50))
    for thing in ordered:
        x0, y0, x1, y1 = (round(factor * place) for place in thing.box)
        corners = (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1))
        draw.rectangle(corners, outline=shades[thing.kind], width=max(2, image.width // 250))
    for thing in ordered:  # above all boxes
        text = names[thing.kind] + ("" if thing.score is None else f" {thing.score:.2f}")
        _label(draw, image.size, (factor * thing.box[0], factor * thing.box[1]), text, shades[thing.kind], font)
    return image


def enlarged(image: Image.Image, side: int) -> Image.Image:
    """An image whose longer side has at least `side` pixels, enlarged by a whole factor: pixels stay sharp squares."""
    factor = max(1, -(-side // max(image.size)))
    return image.resize((factor * image.width, factor * image.height), Image.Resampling.NEAREST)


def with_legend(image: Image.Image, names: Sequence[str], kinds: Sequence[int]) -> Image.Image:
    """An image above the names of some classes beside their colours, in as many lines as they need."""
    size, shades = max(TEXT, image.width // 50), colours(names)
    font, line = ImageFont.load_default(size), round(1.6 * size)
    places, x, y = [], line // 2, line // 2
    for kind in kinds:
        wide = line + round(font.getlength(names[kind])) + line // 2
        if x > line // 2 and x + wide > image.width:
            x, y = line // 2, y + line
        places.append((x, y))
        x += wide
    page = Image.new(
        "RGB", (max(image.width, *(at[0] for at in places), 1), image.height + y + line + line // 2), "white"
    )
    page.paste(image, (0, 0))
    draw = ImageDraw.Draw(page)
    for kind, (left, top) in zip(kinds, places, strict=True):
        top += image.height
        draw.rectangle((left, top, left + size, top + size), fill=shades[kind])
        draw.text((left + line, top + size / 2), names[kind], (20, 20, 20), font=font, anchor="lm")
    return page


def indexed(classes: NDArray[np.integer[Any]], names: Sequence[str]) -> Image.Image:
    """Classes [H, W] as a picture of mode P: a pixel's value is its class, and the palette has the classes' colours."""
    image = Image.fromarray(classes.astype(np.uint8), mode="P")
    image.putpalette([part for shade in colours(names) for part in shade])
    return image


def _rgb(picture: Pixels) -> Image.Image:
    return Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).convert("RGB")


def _label(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    corner: tuple[float, float],
    text: str,
    shade: tuple[int, int, int],
    font: Any,
) -> None:
    """A text on a ground of its own above a box's corner, or below it where that would leave the picture."""
    wide, tall = font.getlength(text) + 4, font.size + 4
    x = max(0.0, min(corner[0], size[0] - wide))
    y = corner[1] - tall if corner[1] >= tall else min(corner[1], size[1] - tall)
    draw.rectangle((x, y, x + wide, y + tall), fill=shade)
    # Dark letters on light colours; the weights are those of brightness.
    light = 0.299 * shade[0] + 0.587 * shade[1] + 0.114 * shade[2] > 140
    draw.text((x + 2, y + tall / 2), text, (0, 0, 0) if light else (255, 255, 255), font=font, anchor="lm")
