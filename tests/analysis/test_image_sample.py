"""The list of images depends on the images, not on the order in which a disk or a set has them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from harness.analysis.sweep import image_sample
from harness.core.data.datasets import FolderSet, ImageSet, load
from harness.spec import HarnessError, Shapes

_loaded = load(Shapes(image_size=16, train=32, test=60), "test")
assert isinstance(_loaded, ImageSet)
SET: ImageSet = _loaded


def shuffled(source: ImageSet, seed: int) -> ImageSet:
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))
    return dataclasses.replace(source, images=source.images[order], labels=source.labels[order])


def test_the_order_of_the_set_does_not_matter() -> None:
    expected = image_sample(SET, 20, 0)
    assert isinstance(expected, ImageSet)
    for seed in range(3):
        found = image_sample(shuffled(SET, seed), 20, 0)
        assert isinstance(found, ImageSet)
        assert found.images.equal(expected.images)
        assert found.labels.equal(expected.labels)


def test_a_longer_list_begins_with_a_shorter_one_and_another_seed_gives_another() -> None:
    short, long, other = (image_sample(SET, count, seed) for count, seed in ((7, 0), (20, 0), (20, 1)))
    assert isinstance(short, ImageSet)
    assert isinstance(long, ImageSet)
    assert isinstance(other, ImageSet)
    assert long.images[:7].equal(short.images)
    assert not long.images.equal(other.images)


def test_classes_take_turns() -> None:
    found = image_sample(SET, 12, 0).labels
    counts = torch.bincount(found, minlength=6)
    there = torch.bincount(SET.labels, minlength=6)
    assert (there >= 2).all()
    assert counts.tolist() == [2] * 6


def test_all_images_as_they_lie() -> None:
    assert image_sample(SET, None, 0) is SET
    with pytest.raises(HarnessError, match="images 61 is more than the 60 test images"):
        image_sample(SET, 61, 0)


def test_files_by_class_and_name_wherever_they_lie() -> None:
    names = [(label, f"{number}.png") for label in (0, 1, 2) for number in range(5)]

    def folder(root: str, order: list[int]) -> FolderSet:
        paths = tuple(Path(root) / "val" / "abc"[names[i][0]] / names[i][1] for i in order)
        labels = torch.tensor([names[i][0] for i in order])
        return FolderSet(paths, labels, ("a", "b", "c"), (0.5,), (0.5,))

    one, two = (
        image_sample(folder(*place), 6, 0) for place in (("/a/data", list(range(15))), ("/b", list(range(14, -1, -1))))
    )
    assert isinstance(one, FolderSet)
    assert isinstance(two, FolderSet)
    assert [path.parts[-2:] for path in one.paths] == [path.parts[-2:] for path in two.paths]
    assert one.labels.tolist() == two.labels.tolist()
    assert sorted(one.labels.tolist()) == [0, 0, 1, 1, 2, 2]
