"""Crops and flips of single images: those of the batches, to the bit."""

from __future__ import annotations

import torch
from hypothesis import example, given
from hypothesis import strategies as st

from harness.core.data.augment import crop_boxes, flips
from harness.core.data.single import crop_box, is_flipped
from harness.core.runtime.randomness import words, words_of_one
from harness.spec import Augment, seed_stream

numbers = st.integers(0, 2**40)
sides = st.integers(1, 6000)
ratios = st.tuples(st.floats(0.05, 20), st.floats(1, 20)).map(lambda pair: (pair[0], pair[0] * pair[1]))
scales = st.tuples(st.floats(1e-4, 1), st.floats(0, 1)).map(lambda pair: (pair[0], pair[0] + pair[1] * (1 - pair[0])))


@given(stream=st.integers(0, 2**63 - 1), step=numbers, position=numbers, count=st.integers(1, 50))
@example(stream=2**63 - 1, step=2**40, position=2**32 - 1, count=40)
def test_words_are_a_row_of_those_of_batches(stream: int, step: int, position: int, count: int) -> None:
    expected = words(stream, step, torch.tensor([position]), count)[0].tolist()
    assert words_of_one(stream, step, position, count).tolist() == expected


@given(height=sides, width=sides, scale=scales, ratio=ratios, seed=st.integers(0, 9), step=numbers, position=numbers)
@example(height=375, width=500, scale=(0.67, 1.0), ratio=(3 / 4, 4 / 3), seed=0, step=0, position=0)
@example(height=10, width=4000, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), seed=0, step=1, position=3)  # no try fits
def test_the_box_of_one_image_is_that_of_a_batch(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    seed: int,
    step: int,
    position: int,
) -> None:
    augment = Augment(crop_scale=scale, crop_ratio=ratio)
    batch = crop_boxes(height, width, augment, seed=seed, step=step, positions=torch.tensor([position]))
    assert list(crop_box(height, width, augment, seed=seed, step=step, position=position)) == batch[0].tolist()


def test_boxes_of_many_ordinary_images_are_those_of_batches() -> None:
    augment, places = Augment(crop_scale=(0.08, 1.0)), torch.arange(500)
    for height, width in ((375, 500), (256, 256), (1200, 1600)):
        batch = crop_boxes(height, width, augment, seed=1, step=7, positions=places).tolist()
        alone = [list(crop_box(height, width, augment, seed=1, step=7, position=place)) for place in range(500)]
        assert alone == batch


def test_the_whole_image_is_taken_where_nothing_is_cropped() -> None:
    assert crop_box(5, 7, Augment(crop_scale=(1.0, 1.0)), seed=0, step=0, position=0) == (0, 0, 5, 7)


@given(chance=st.floats(0, 1), seed=st.integers(0, 9), step=numbers, position=numbers)
def test_a_flip_of_one_image_is_that_of_a_batch(chance: float, seed: int, step: int, position: int) -> None:
    augment = Augment(flip=chance)
    batch = flips(augment, seed=seed, step=step, positions=torch.tensor([position]))
    assert is_flipped(augment, seed=seed, step=step, position=position) == bool(batch[0])


def test_words_of_a_stream_do_not_depend_on_their_number() -> None:
    stream = seed_stream(0, "crop")
    assert words_of_one(stream, 3, 4, 40)[:6].tolist() == words_of_one(stream, 3, 4, 6).tolist()
