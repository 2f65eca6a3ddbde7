"""The procedural set: objects agree with images, and an image is the same whatever else is made."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from harness.core.data.objects import Objects, labelled
from harness.core.data.shapes import CLASSES, objects, scenes
from harness.spec import Shapes

Made = tuple[torch.Tensor, torch.Tensor, Objects]
"""Images, labels, objects."""
SPEC = Shapes(image_size=48, train=300, test=40)


def made_of(spec: Shapes, part: Literal["train", "test"]) -> tuple[torch.Tensor, torch.Tensor]:
    return labelled(scenes(spec, part))


@pytest.fixture(scope="module")
def made() -> Made:
    return *made_of(SPEC, "train"), objects(SPEC, "train")


def test_forms(made: Made) -> None:
    images, labels, found = made
    assert len(set(CLASSES)) >= 6
    assert (images.shape, images.dtype) == ((300, 3, 48, 48), torch.uint8)
    assert (labels.shape, labels.dtype) == ((300,), torch.int64)
    assert found.masks.shape == (300, 3, 48, 48)
    assert found.boxes.shape == (300, 3, 4)
    assert set(labels.tolist()) == set(range(len(CLASSES)))


def test_an_image_depends_on_seed_part_and_index_alone(made: Made) -> None:
    images, labels, _ = made
    few, few_labels = made_of(SPEC.replace(train=5), "train")
    assert torch.equal(few, images[:5])
    assert torch.equal(few_labels, labels[:5])
    assert not torch.equal(made_of(SPEC.replace(train=5, seed=1), "train")[0], few)
    assert not torch.equal(made_of(SPEC.replace(test=5), "test")[0], few)


def test_label_is_the_class_of_the_largest_visible_object(made: Made) -> None:
    _, labels, found = made
    for label, classes, masks in zip(labels, found.classes, found.masks, strict=True):
        areas = [int(mask.sum()) for mask in masks]
        assert label == classes[areas.index(max(areas))]
        assert label >= 0


def test_masks_do_not_overlap_and_boxes_are_tight(made: Made) -> None:
    _, _, found = made
    assert int(found.masks.sum(1).max()) == 1
    present = 0
    for classes, masks, boxes in zip(found.classes, found.masks, found.boxes, strict=True):
        for kind, mask, (x0, y0, x1, y1) in zip(classes, masks, boxes.tolist(), strict=True):
            ys, xs = torch.nonzero(mask, as_tuple=True)
            assert (kind >= 0) == (len(ys) > 0)
            expected = (0, 0, 0, 0)
            if len(ys):
                present += 1
                expected = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
            assert (x0, y0, x1, y1) == expected
    assert 1.5 * 300 < present < 2.5 * 300, "one to three objects, two on average, few hidden"


def test_an_object_has_one_colour_and_the_ground_has_texture(made: Made) -> None:
    images, _, found = made
    for image, masks in zip(images[:50], found.masks[:50], strict=True):
        for mask in masks:
            if mask.any():
                assert len(torch.unique(image[:, mask], dim=1)[0]) == 1
        assert len(torch.unique(image[:, ~masks.any(0)], dim=1)[0]) > 10


def test_shapes_are_what_they_are_called() -> None:
    """Share of the bounding box that a whole object fills, from geometry; tilts of 0.2 rad widen the box."""
    spec = Shapes(image_size=128, train=250)
    found = objects(spec, "train")
    single = (found.classes >= 0).sum(1) == 1
    shares: dict[str, list[float]] = {}
    for kind, mask, box in zip(
        found.classes[single][:, 0], found.masks[single][:, 0], found.boxes[single][:, 0], strict=True
    ):
        if kind < 0:
            continue
        x0, y0, x1, y1 = box.tolist()
        shares.setdefault(CLASSES[kind], []).append(float(mask.sum()) / ((x1 - x0) * (y1 - y0)))
    expected = {
        "circle": (0.75, 0.82),  # pi / 4
        "square": (0.68, 1.0),
        "triangle": (0.36, 0.55),
        "diamond": (0.45, 0.60),
        "cross": (0.40, 0.56),
        "ring": (0.50, 0.60),  # pi / 4 * (1 - 0.55 ** 2)
    }
    assert set(shares) == set(expected)
    for name, (low, high) in expected.items():
        assert all(low <= share <= high for share in shares[name]), (name, shares[name])


def test_the_same_scene_at_another_resolution() -> None:
    low, high = (objects(Shapes(image_size=side, train=20), "train") for side in (64, 128))
    big = low.masks.sum((2, 3)) > 40
    assert torch.equal(low.classes[big], high.classes[big])
    assert int((low.boxes * 2 - high.boxes)[big].abs().max()) <= 3
