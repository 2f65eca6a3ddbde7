"""Garments names the set that its pictures come from, and that set's content."""

from __future__ import annotations

from harness import Garments, Images, Shapes
from harness.spec.data.datasets import PUBLISHED


def test_the_content_of_the_source_is_filled_in_and_follows_it() -> None:
    mini = Garments()
    assert mini.content == PUBLISHED["fashion-mnist-mini"].digest
    full = mini.replace(source="fashion-mnist")
    assert full.content == PUBLISHED["fashion-mnist"].digest
    assert full.digest != mini.digest
    assert full.pictures == Images(name="fashion-mnist")


def test_facts_that_plans_and_tables_need() -> None:
    data = Garments(train=100, test=10)
    assert (data.known_classes, data.channels, data.caption) == (10, 3, "garments (64 px)")
    assert data.known_images(labelled=False) == 100
    assert data.replace(train_images=50).known_images(labelled=True) == 50


def test_sets_say_which_truth_they_have() -> None:
    assert Garments().truths == Shapes().truths == ("labels", "segments", "objects")
    assert Images(name="cifar10").truths == ("labels",)
