"""Average precision of boxes and masks as COCO defines it, by pycocotools (extra `detection`).

Truth and detections are kept as entries of COCO's json, masks run-length encoded: so a whole test set fits in memory.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Entry = dict[str, Any]
"""An annotation or a detection: image_id, category_id, bbox, segmentation, area, iscrowd, id, score."""

Kind = Literal["bbox", "segm"]
"""What is judged: boxes or masks."""

NUMBERS = {"ap": 0, "ap50": 1, "ap75": 2, "ap_small": 3, "ap_medium": 4, "ap_large": 5}
"""Places of the metrics in COCO's summary; small is an area below 32^2 pixels, large from 96^2 on."""


def true_entries(
    image: int, classes: Tensor, masks: Tensor, boxes: Tensor, crowd: Tensor, areas: Tensor
) -> list[Entry]:
    """Annotations of one image.

    Args:
        image: its number. classes: int64 [M], -1 = no object. masks: bool [M, H, W]. boxes: [M, 4], x0, y0, x1, y1 in
            pixels, the last two exclusive. crowd: bool [M], True where what is found in it counts neither way.
        areas: [M], as stated; below 0 for the pixels of the mask. By them objects are small, medium or large, also
            where boxes are judged.
    """
    there = classes >= 0
    entries = _entries(image, classes[there], masks[there], boxes[there])
    known = torch.where(areas < 0, masks.sum((1, 2)), areas)[there].tolist()
    return [
        entry | {"iscrowd": int(many), "area": float(area)}
        for entry, area, many in zip(entries, known, crowd[there].tolist(), strict=True)
    ]


def found_entries(image: int, classes: Tensor, masks: Tensor | None, boxes: Tensor, scores: Tensor) -> list[Entry]:
    """Detections in one image; arguments as for `true_entries`, masks None where there are none, scores [n]."""
    return [
        entry | {"score": score}
        for entry, score in zip(_entries(image, classes, masks, boxes), scores.tolist(), strict=True)
    ]


def _entries(image: int, classes: Tensor, masks: Tensor | None, boxes: Tensor) -> Iterator[Entry]:
    wide = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).double().tolist()  # COCO's are x, y, w, h
    encoded = [None] * len(boxes) if masks is None else [_encoded(mask) for mask in masks.cpu().numpy()]
    for kind, box, mask in zip(classes.tolist(), wide, encoded, strict=True):
        yield {"image_id": image, "category_id": kind, "bbox": box, "segmentation": mask}


def _encoded(mask: NDArray[np.bool_]) -> Entry:
    from pycocotools import mask as masks

    found: Entry = masks.encode(np.asfortranarray(mask, dtype=np.uint8))
    return found


def average_precision(
    images: int, classes: int, truth: Sequence[Entry], found: Sequence[Entry], of: Kind
) -> dict[str, float | None]:
    """Average precisions in percent, by the names of NUMBERS; None for a range of sizes without objects.

    Args:
        images: number of images; entries name them by 0 to images - 1. classes: likewise.
        truth, found: of `true_entries` and `found_entries`. of: boxes or masks.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    known = COCO()
    known.dataset = {
        # Sides count for polygons only, of which there is none here.
        "images": [{"id": number, "height": 0, "width": 0} for number in range(images)],
        "categories": [{"id": number} for number in range(classes)],
        "annotations": _numbered(truth),
    }
    detected = COCO()  # not `loadRes`, which refuses an empty list
    detected.dataset = known.dataset | {"annotations": _numbered([_measured(entry, of) for entry in found])}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints as it goes
        known.createIndex()
        detected.createIndex()
        judged = COCOeval(known, detected, of)
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    # It says -1 where there is nothing to average.
    return {name: None if (value := float(judged.stats[at])) < 0 else 100 * value for name, at in NUMBERS.items()}


def _numbered(entries: Sequence[Entry]) -> list[Entry]:
    """Copies with ids from 1: pycocotools takes a match with id 0 for none, and writes into what it is given."""
    return [entry | {"id": number} for number, entry in enumerate(entries, start=1)]


def _measured(entry: Entry, of: Kind) -> Entry:
    """A detection with its area, by which it falls into a range of sizes: of its box or of its mask."""
    from pycocotools import mask as masks

    *_, wide, tall = entry["bbox"]
    return entry | {"area": wide * tall if of == "bbox" else float(masks.area(entry["segmentation"]))}
