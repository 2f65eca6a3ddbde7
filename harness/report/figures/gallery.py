"""A picture of reconstructions: a few test images, and for each arm what it sees of them and what it predicts."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from harness.report.collect import Arm
from harness.report.escape import clean
from harness.report.figures.drawing import GREY, ONE, TWO, plain
from harness.store import Store

IMAGES = 4
"""Images shown of each arm if their classes are not known; else there is one of each class among those kept."""

ARMS = 12
"""Arms on one page."""

FILE = "reconstructions.npz"
"""Name of the artefact that a pre-training writes (`harness.core.pretrain.reconstruct`)."""
KINDS = ("original", "masked", "predicted")
SIDE = 0.8
"""Inches of one image, or less where so many do not fit the width of two columns."""
LETTERS = 14
"""Letters of the heading that fit an inch."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Triplets:
    """Reconstructions of one arm.

    images: [n, 3, H, W, C] uint8, the three kinds of each of n images, no two of a class if classes are known. A
    prediction has the visible pixels of the image in place of its own, which no loss may have trained.
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
    """Rows of images: what all arms share once, then each arm's label and its own. title: what the labels hold."""
    shared = _shared(found)
    own = [kind for kind in range(len(KINDS)) if kind not in shared]
    blocks = [(", ".join(KINDS[kind] for kind in shared), _sheet(found[0].images, shared))] if shared else []
    blocks += [(arm.label or KINDS[-1], _sheet(arm.images, own)) for arm in found]
    columns = max(len(arm.images) for arm in found)
    side = min(SIDE, TWO / columns)
    heights = [len(kinds) * side for kinds in ([shared] if shared else []) + [own] * len(found)]
    heading = " and ".join(KINDS[kind] for kind in own) + (f", by {plain(title, 80)}" if title else "")
    width = max(ONE, columns * side)
    lines = textwrap.wrap(heading, int(LETTERS * width))
    above = 0.05 + 0.15 * len(lines)
    figure = Figure(figsize=(width, above + sum(heights) + 0.22 * len(blocks)))
    top = figure.get_figheight()
    figure.text(0.01, 1 - 0.03 / top, "\n".join(lines), color=GREY, va="top")
    top -= above
    for (label, sheet), height in zip(blocks, heights, strict=True):
        top -= 0.22 + height
        size = figure.get_size_inches()
        axes = figure.add_axes((0.01, top / size[1], 0.98, height / size[1]))
        axes.set_axis_off()
        axes.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest", aspect="equal")
        axes.set_anchor("W")
        axes.set_title(plain(label, 100), loc="left", fontsize=8, pad=2)
    return figure


def _shared(found: Sequence[Triplets]) -> list[int]:
    """Kinds that are the same pixels in all arms: mostly the images, and often what is masked of them."""
    first = found[0].images
    return [
        kind
        for kind in range(len(KINDS) - 1)
        if len(found) > 1 and all(np.array_equal(arm.images[:, kind], first[:, kind]) for arm in found)
    ]


def _read(path: Path) -> Pixels:
    """The first few triplets of a file, [n, 3, H, W, C].

    Raises:
        ValueError: an array is not uint8 [n, H, W, 1 or 3], or they differ in shape.
    """
    # Without pickles: a store may have been merged from elsewhere, and nothing of it may be executed.
    with np.load(path, allow_pickle=False) as arrays:
        chosen = _one_a_class(arrays["labels"]) if "labels" in arrays else np.arange(IMAGES)
        chosen = chosen[: len(arrays["original"])]
        original, masked, predicted = (_checked(arrays[kind], kind)[chosen] for kind in KINDS)
        hidden = np.asarray(arrays["hidden"], dtype=bool)[chosen, ..., None]
    return np.stack([original, masked, np.where(hidden, predicted, original)], axis=1)


def _one_a_class(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of the first image of each class, or of the first images where some have no label, -1."""
    first = np.unique(labels, return_index=True)[1] if (labels >= 0).all() else np.arange(IMAGES)
    return np.sort(first)


def _checked(array: Any, kind: str) -> Pixels:
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] not in (1, 3) or not array.size:
        raise ValueError(f"{kind} should be uint8 [n, H, W, 1 or 3], not {array.dtype} {list(array.shape)}")
    return np.asarray(array)


def _sheet(images: Pixels, kinds: Sequence[int]) -> Pixels:
    """A row for each of some kinds, a column for each image, white lines between them: [H', W'], or with colours."""
    gap = max(1, images.shape[2] // 16)
    padded = np.pad(images[:, kinds], ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255)
    rows = [np.concatenate(list(padded[:, row]), axis=1) for row in range(len(kinds))]
    sheet = np.concatenate(rows, axis=0)[:-gap, :-gap]
    return sheet[..., 0] if sheet.shape[-1] == 1 else sheet
