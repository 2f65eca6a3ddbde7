"""A picture of reconstructions: for a few images of each arm original, masked image and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from harness.report.collect import Arm
from harness.report.escape import clean
from harness.report.figures.drawing import plain
from harness.store import Store

IMAGES = 4
"""Images shown of each arm."""

ARMS = 12
"""Arms on one page."""

FILE = "reconstructions.npz"
"""Name of the artefact that a pre-training writes (`harness.core.pretrain.reconstruct`)."""
KINDS = ("original", "masked", "predicted")

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Triplets:
    """Reconstructions of one arm.

    images: [n, 3, H, W, C] uint8, the three kinds of each of n images. A prediction has the visible pixels of the image
    in place of its own, which no loss may have trained.
    """

    label: str
    images: Pixels


def gallery(
    arms: Sequence[Arm], labels: Sequence[str], store: Store, *, limit: int = ARMS
) -> tuple[list[Triplets], list[str]]:
    """Triplets of the first `limit` arms that have any, and a remark on each damaged file.

    They are taken from an arm's first finished pre-training whose file reads.
    """
    found: list[Triplets] = []
    remarks: list[str] = []
    for arm, label in zip(arms, labels, strict=True):
        if len(found) == limit:
            break
        for name in arm.keys:
            try:
                path = store.artefact(name, FILE)
                if path is None or not path.is_file():
                    continue
                found.append(Triplets(label=label, images=_read(path)))
            except Exception as error:  # what a damaged file makes the reader raise is open
                remarks.append(f"Reconstructions of {name} do not read: {clean(str(error))}")
                continue
            break
    return found, remarks


def pages(found: Sequence[Triplets]) -> list[list[Triplets]]:
    """The arms in parts that stay legible."""
    return [list(found[first : first + ARMS]) for first in range(0, len(found), ARMS)]


def draw(found: Sequence[Triplets], title: str) -> Figure:
    """A row an arm: its label above, then its triplets. title: what the labels hold."""
    columns = max(2, *(len(arm.images) for arm in found))  # two at least, or the heading has no room
    side = 0.62  # inches of one image
    figure = Figure(figsize=(0.2 + columns * (3 * side + 0.15), 0.27 + len(found) * (side + 0.26)))
    grid = figure.subplots(
        len(found), columns, squeeze=False,
        gridspec_kw={"left": 0.01, "right": 0.99, "bottom": 0.005, "top": 1 - 0.42 / figure.get_figheight(),
                     "wspace": 0.06, "hspace": 0.36},
    )  # fmt: skip
    for row, arm in zip(grid, found, strict=True):
        for axes in row:
            axes.set_axis_off()
        # An arm may have fewer images than the widest one: its last places stay empty.
        for axes, images in zip(row, arm.images, strict=False):
            strip = _strip(images)
            axes.imshow(strip, cmap="gray", vmin=0, vmax=255, interpolation="nearest", aspect="equal")
        row[0].set_title(plain(arm.label, 100), loc="left", fontsize=8, pad=2)
    heading = "in threes: " + ", ".join(KINDS) + (f"   rows: {plain(title, 80)}" if title else "")
    figure.text(0.01, 1 - 0.08 / figure.get_figheight(), heading, fontsize=8, color="#666666", va="top")
    return figure


def _read(path: Path) -> Pixels:
    """The first few triplets of a file, [n, 3, H, W, C].

    Raises:
        ValueError: an array is not uint8 [n, H, W, 1 or 3], or they differ in shape.
    """
    # Without pickles: a store may have been merged from elsewhere, and nothing of it may be executed.
    with np.load(path, allow_pickle=False) as arrays:
        original, masked, predicted = (_checked(arrays[kind], kind)[:IMAGES] for kind in KINDS)
        hidden = np.asarray(arrays["hidden"], dtype=bool)[:IMAGES, ..., None]
    return np.stack([original, masked, np.where(hidden, predicted, original)], axis=1)


def _checked(array: Any, kind: str) -> Pixels:
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] not in (1, 3) or not array.size:
        raise ValueError(f"{kind} should be uint8 [n, H, W, 1 or 3], not {array.dtype} {list(array.shape)}")
    return np.asarray(array)


def _strip(images: Pixels) -> Pixels:
    """Three images side by side, a white line between them: [H, 3 W + 2 gaps] or the same with colours."""
    gap = max(1, images.shape[2] // 24)
    padded = np.pad(images, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
    strip = np.concatenate(list(padded), axis=1)[:, :-gap]
    return strip[..., 0] if strip.shape[-1] == 1 else strip
