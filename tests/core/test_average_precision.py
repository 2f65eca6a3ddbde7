"""Average precision: by hand, and equal to pycocotools fed with COCO's json by another conversion."""

from __future__ import annotations

import contextlib
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("pycocotools")

from harness.core.evaluate.average_precision import Entry, average_precision, found_entries, true_entries

SIDE = 120


def _mask(boxes: list[list[int]], side: int = SIDE) -> Tensor:
    masks = torch.zeros(len(boxes), side, side, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return masks


def _true(image: int, classes: list[int], boxes: list[list[int]], crowd: list[bool]) -> list[Entry]:
    shape = (len(boxes), 4)
    kinds, many = torch.tensor(classes, dtype=torch.int64), torch.tensor(crowd, dtype=torch.bool)
    return true_entries(image, kinds, _mask(boxes), torch.tensor(boxes).view(shape), many, -torch.ones(len(boxes)))


def _found(image: int, classes: list[int], boxes: list[list[int]], scores: list[float]) -> list[Entry]:
    shape = (len(boxes), 4)
    kinds = torch.tensor(classes, dtype=torch.int64)
    return found_entries(image, kinds, _mask(boxes), torch.tensor(boxes).view(shape), torch.tensor(scores))


HITS = [[10, 10, 30, 30], [50, 50, 90, 90]]
MISS = [100, 0, 115, 40]


@pytest.mark.parametrize("of", ["bbox", "segm"])
def test_two_objects_hit_at_ranks_1_and_3(of: Any) -> None:
    # 51 of 101 recall points at precision 1, 50 at precision 2 / 3, at every threshold, as hits are exact.
    truth = _true(0, [0, 0], HITS, [False, False])
    found = _found(0, [0, 0, 0], [HITS[0], MISS, HITS[1]], [0.9, 0.8, 0.7])
    assert average_precision(1, 1, truth, found, of)["ap"] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)
    assert average_precision(1, 1, truth, found, of)["ap"] == pytest.approx(83.498, abs=1e-3)
    # A crowd over the miss: it then counts neither way.
    truth = _true(0, [0, 0, 0], [*HITS, [95, 0, 120, 60]], [False, False, True])
    assert average_precision(1, 1, truth, found, of)["ap"] == pytest.approx(100)


def test_nothing_found_is_zero_and_a_size_without_objects_none() -> None:
    truth = _true(0, [0, 0], HITS, [False, False])
    nothing = average_precision(1, 1, truth, [], "bbox")
    assert nothing["ap"] == nothing["ap50"] == nothing["ap_small"] == 0
    assert nothing["ap_large"] is None  # from 96 x 96 on
    assert average_precision(1, 1, [], _found(0, [0], HITS[:1], [0.5]), "segm")["ap"] is None


def test_the_area_of_an_object_is_its_masks_unless_one_is_stated() -> None:
    # A frame of 40 x 40: 304 pixels, a small object, though its box is of medium size.
    mask = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    mask[0, 10:50, 10:50] = True
    mask[0, 12:48, 12:48] = False
    box, kind = torch.tensor([[10, 10, 50, 50]]), torch.zeros(1, dtype=torch.int64)
    truth = true_entries(0, kind, mask, box, torch.zeros(1, dtype=torch.bool), torch.tensor([-1]))
    assert truth[0]["area"] == mask.sum()
    sizes = average_precision(1, 1, truth, found_entries(0, kind, mask, box, torch.ones(1)), "bbox")
    assert sizes["ap_small"] == pytest.approx(100)
    assert sizes["ap_medium"] is None
    stated = true_entries(0, kind, mask, box, torch.zeros(1, dtype=torch.bool), torch.tensor([1024.5]))
    assert stated[0]["area"] == 1024.5


def test_an_object_at_the_border_is_hit_exactly() -> None:
    border = [[0, 0, SIDE, SIDE], [SIDE - 1, SIDE - 1, SIDE, SIDE]]
    truth, found = _true(0, [0, 1], border, [False, False]), _found(0, [0, 1], border, [0.9, 0.8])
    for of in ("bbox", "segm"):
        assert average_precision(1, 2, truth, found, of)["ap"] == pytest.approx(100)


def _draw(random: random.Random, boxes: int) -> list[list[int]]:
    corners = [(random.randrange(SIDE - 30), random.randrange(SIDE - 30)) for _ in range(boxes)]
    return [[x, y, x + random.randrange(2, 30), y + random.randrange(2, 30)] for x, y in corners]


def _near(random: random.Random, box: list[int]) -> list[int]:
    x0, y0, x1, y1 = (max(0, min(SIDE, side + random.randrange(-3, 4))) for side in box)
    return [min(x0, x1 - 1), min(y0, y1 - 1), x1, y1] if x1 > 0 and y1 > 0 else box


def _case(seed: int) -> tuple[int, list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Number of images; for each its true classes, boxes and crowds, and what is found: classes, boxes and scores."""
    draw = random.Random(seed)
    truth, found = [], []
    for _ in range(images := draw.randrange(1, 5)):
        boxes = _draw(draw, draw.randrange(4))
        truth.append(([draw.randrange(3) for _ in boxes], boxes, [draw.random() < 0.2 for _ in boxes]))
        guesses = [_near(draw, box) for box in boxes if draw.random() < 0.8] + _draw(draw, draw.randrange(3))
        scores = [round(draw.random(), 2) for _ in guesses]  # rounded, so that some are equal
        found.append(([draw.randrange(3) for _ in guesses], guesses, scores))
    return images, truth, found


def _reference(path: Path, images: int, truth: list[Any], found: list[Any], of: str) -> list[float]:
    """pycocotools by files, with masks as run lengths written here, category ids with gaps and ids of its own."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def entry(image: int, kind: int, box: list[int], number: int) -> dict[str, Any]:
        x0, y0, x1, y1 = box
        flat = np.zeros((SIDE, SIDE), dtype=np.uint8)
        flat[y0:y1, x0:x1] = 1
        column_wise, runs, last = flat.T.flatten().tolist(), [0], 0
        for value in column_wise:
            if value != last:
                runs.append(0)
            runs[-1], last = runs[-1] + 1, value
        area = (x1 - x0) * (y1 - y0)
        found = {"image_id": 7 + image, "category_id": 3 * kind + 1, "bbox": [x0, y0, x1 - x0, y1 - y0]}
        return found | {"segmentation": {"size": [SIDE, SIDE], "counts": runs}, "area": area, "id": number}

    annotations = [
        entry(image, kind, box, 1) | {"iscrowd": int(crowd)}
        for image, one in enumerate(truth)
        for kind, box, crowd in zip(*one, strict=True)
    ]
    for number, annotation in enumerate(annotations, start=100):
        annotation["id"] = number
    detections = [
        entry(image, kind, box, 1) | {"score": score}
        for image, one in enumerate(found)
        for kind, box, score in zip(*one, strict=True)
    ]
    sides = {"height": SIDE, "width": SIDE}
    whole = {
        "images": [{"id": 7 + image, **sides} for image in range(images)],
        "categories": [{"id": 3 * kind + 1} for kind in range(3)],
        "annotations": annotations,
    }
    path.write_text(json.dumps(whole))
    if not detections:
        return []
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(str(path))
        from pycocotools import mask as masks

        for one in detections:
            one["segmentation"] = masks.frPyObjects(one["segmentation"], SIDE, SIDE)
            if of == "segm":
                del one["bbox"]
        judged = COCOeval(known, known.loadRes(detections), of)
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return [float(value) for value in judged.stats[:6]]


@pytest.mark.parametrize("of", ["bbox", "segm"])
@pytest.mark.parametrize("sets", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_equal_to_pycocotools_on_random_sets(tmp_path: Path, of: Any, sets: int) -> None:
    crowds = empty = 0
    for seed in range(sets):
        images, truth, found = _case(seed)
        crowds += any(many for one in truth for many in one[2])
        empty += any(not one[1] for one in truth)
        stated = [entry for image, one in enumerate(truth) for entry in _true(image, *one)]
        detected = [entry for image, one in enumerate(found) for entry in _found(image, *one)]
        ours = average_precision(images, 3, stated, detected, of)
        theirs = _reference(tmp_path / "truth.json", images, truth, found, of)
        if theirs:
            assert [-1 if value is None else value / 100 for value in ours.values()] == pytest.approx(theirs, abs=1e-9)
    assert crowds > sets / 4
    assert empty > sets / 4
