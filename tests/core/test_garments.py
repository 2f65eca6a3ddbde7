"""Scenes of garments: objects agree with images, and an image is the same whatever else is made."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from harness import Garments
from harness.core.data import published
from harness.core.data.datasets import FASHION, ImageSet, facts_of, load
from harness.core.data.garments import COLOURS, MOST, _apart, scenes
from harness.core.data.objects import Objects, labels_of
from harness.spec import HarnessError

SPEC = Garments(train=300, test=40)


def made(spec: Garments, part: str = "train") -> tuple[Tensor, Objects]:
    images, found = zip(*scenes(spec, part), strict=True)  # type: ignore[arg-type]
    return torch.cat(images), Objects(*(torch.cat(fields) for fields in zip(*found, strict=True)))


@pytest.fixture(scope="module")
def whole() -> tuple[Tensor, Objects]:
    return made(SPEC)


def test_forms(whole: tuple[Tensor, Objects]) -> None:
    images, found = whole
    assert (images.shape, images.dtype) == ((300, 3, 64, 64), torch.uint8)
    assert found.masks.shape == (300, MOST, 64, 64)
    assert set(found.classes.unique().tolist()) == {-1, *range(10)}
    assert not found.crowd.any()


def test_an_image_depends_on_seed_part_and_index_alone(whole: tuple[Tensor, Objects]) -> None:
    images, found = whole
    few, its = made(SPEC.replace(train=5))
    assert torch.equal(few, images[:5])
    assert all(torch.equal(mine, theirs[:5]) for mine, theirs in zip(its, found, strict=True))
    assert not torch.equal(made(SPEC.replace(train=5, seed=1))[0], few)
    assert not torch.equal(made(SPEC.replace(test=5), "test")[0], few)


def test_torch_s_global_seed_changes_nothing(whole: tuple[Tensor, Objects]) -> None:
    torch.manual_seed(3)
    assert torch.equal(made(SPEC.replace(train=5))[0], whole[0][:5])


def test_masks_do_not_overlap_and_boxes_are_tight(whole: tuple[Tensor, Objects]) -> None:
    _, found = whole
    assert int(found.masks.sum(1).max()) == 1
    for kind, mask, box in zip(
        found.classes.flatten(), found.masks.flatten(0, 1), found.boxes.flatten(0, 1), strict=True
    ):
        ys, xs = torch.nonzero(mask, as_tuple=True)
        assert (kind >= 0) == (len(ys) > 0)
        assert box.tolist() == ([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(ys) else [0] * 4)


def test_one_to_six_objects_which_take_a_third_of_the_pixels_and_are_seldom_hidden(
    whole: tuple[Tensor, Objects],
) -> None:
    _, found = whole
    there = (found.classes >= 0).sum(1)
    assert int(there.min()) >= 1
    assert 3.3 < float(there.float().mean()) <= 3.7, "one to six, as many of each: 3.5 on average"
    assert 0.3 < float(found.masks.any(1).float().mean()) < 0.45
    areas = found.masks.sum((2, 3))[found.classes >= 0]
    assert float((areas < 16).float().mean()) < 0.01


def test_a_garment_is_that_of_a_picture_of_its_class(whole: tuple[Tensor, Objects]) -> None:
    """Mean share of its box that a garment of a class fills, against that of the pictures: the order is the same."""
    _, found = whole
    pictures, labels = published.read(SPEC.pictures, "train")
    ours, theirs = [], []
    for kind in range(10):
        which = (found.classes == kind) & (found.masks.sum((2, 3)) > 200)
        boxes = found.boxes[which]
        sides = (boxes[:, 2:] - boxes[:, :2]).float()
        ours.append(float((sides[:, 1] / sides[:, 0]).median()))
        seen = pictures[labels == kind][:300, 0] > 0
        theirs.append(float((seen.any(2).sum(1) / seen.any(1).sum(1)).median()))
    correlation = torch.corrcoef(torch.tensor([ours, theirs]))[0, 1]
    assert correlation > 0.9, (ours, theirs)


def test_the_same_scene_at_another_resolution(whole: tuple[Tensor, Objects]) -> None:
    _, high = made(SPEC.replace(image_size=128, train=20))
    low = Objects(*(field[:20] for field in whole[1]))
    big = low.masks.sum((2, 3)) > 60
    assert torch.equal(low.classes[big], high.classes[big])
    same = low.masks.float()[big] - torch.nn.functional.avg_pool2d(high.masks.float(), 2)[big]
    assert float(same.abs().mean()) < 0.01


def test_places_far_apart_are_taken_by_hand() -> None:
    """The first object takes its first place, the second the one of its two that is farther from it."""
    places = torch.tensor([[[[0.0, 0.0], [1.0, 1.0]], [[0.1, 0.0], [0.5, 0.5]], [[0.5, 0.6], [1.0, 0.0]]]])
    wanted = torch.tensor([[[0.0, 0.0], [0.5, 0.5], [1.0, 0.0]]])
    assert torch.allclose(_apart(places), 0.15 + 0.7 * wanted)


def test_as_a_set_of_images_it_is_labelled_by_the_largest_object(whole: tuple[Tensor, Objects]) -> None:
    held = load(SPEC, "train")
    assert isinstance(held, ImageSet)
    assert torch.equal(held.images, whole[0])
    areas, classes = whole[1].masks.sum((2, 3)).tolist(), whole[1].classes.tolist()
    wanted = [kinds[sizes.index(max(sizes))] for sizes, kinds in zip(areas, classes, strict=True)]
    assert held.labels.tolist() == labels_of(whole[1]).tolist() == wanted
    assert (held.num_classes, facts_of(SPEC).classes) == (10, FASHION)
    assert len(load(SPEC.replace(train_images=50), "train")) == 50


def test_colours_are_those_of_the_set(whole: tuple[Tensor, Objects]) -> None:
    values = whole[0].float() / 255
    for found, stated in zip((values.mean((0, 2, 3)), values.std((0, 2, 3))), COLOURS, strict=True):
        assert torch.allclose(found, torch.tensor(stated), atol=0.02)


def test_another_set_than_planned_is_refused() -> None:
    other = SPEC.replace(content="sha256:0")
    with pytest.raises(HarnessError, match="this version reads fashion-mnist-mini"):
        next(scenes(other, "train"))
