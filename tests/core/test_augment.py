"""Batched augmentation against torchvision, timm and hand-made values."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.transforms import CenterCrop, InterpolationMode, Resize
from torchvision.transforms.v2.functional import resized_crop

from harness.core.data import augment as augmenting
from harness.core.data.augment import Interpolation
from harness.core.data.datasets import ImageSet
from harness.spec import Augment

PLAIN = Augment(crop_scale=(1.0, 1.0), flip=0.0)


def boxes_of(
    augment: Augment, count: int = 4000, height: int = 40, width: int = 60, seed: int = 0, step: int = 0
) -> torch.Tensor:
    positions = torch.arange(count)
    return augmenting.crop_boxes(height, width, augment, seed=seed, step=step, positions=positions)


def image_set(count: int = 12, channels: int = 3, side: int = 20) -> ImageSet:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=generator)
    return ImageSet(images, torch.arange(count) % 5, 5, (0.5,) * channels, (0.25,) * channels)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [7, 28, 33, 64])
def test_resample_equals_torchvision(interpolation: Interpolation, size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(6, 3, 28, 35, generator=generator)
    boxes = torch.tensor(
        [[0, 0, 28, 35], [3, 4, 20, 25], [27, 34, 1, 1], [5, 0, 9, 35], [0, 10, 28, 7], [2, 2, 14, 14]]
    )
    flip = torch.tensor([False, True, False, True, False, True])
    result = augmenting.resample(images, boxes, flip, size, interpolation)
    assert result.dtype == torch.float32
    for image, (top, left, height, width), mirrored, found in zip(images, boxes.tolist(), flip, result, strict=True):
        mode = InterpolationMode(interpolation)
        expected = resized_crop(image, top, left, height, width, [size, size], interpolation=mode, antialias=True)
        expected = expected.flip(-1) if mirrored else expected
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [7, 28, 32, 96, 224])
def test_no_pixel_of_the_filter_is_left_out(interpolation: Interpolation, size: int) -> None:
    """Weights are shares of the whole filter's sum, so those of too few pixels would add up to less than 1."""
    for side in (1, 5, size - 1, size, size + 1, 2 * size, 2 * size + 1, 300):
        length = torch.arange(1, side + 1)
        places, weights = augmenting._taps(torch.zeros_like(length), length, side, size, interpolation)
        reach = 1 if interpolation == "bilinear" else 2
        assert places.shape[-1] == math.ceil(2 * reach * max(1, side / size))
        torch.testing.assert_close(weights.double().sum(-1), torch.ones(side, size).double(), atol=1e-6, rtol=0)


def test_resample_of_the_whole_image_at_its_size_changes_nothing() -> None:
    images = image_set().images
    boxes = torch.tensor([[0, 0, 20, 20]]).expand(12, 4)
    interpolations: tuple[Interpolation, ...] = ("bilinear", "bicubic")
    for interpolation in interpolations:
        result = augmenting.resample(images, boxes, torch.zeros(12, dtype=torch.bool), 20, interpolation)
        assert torch.equal(result, images.float())


def test_boxes_keep_to_the_image_and_to_the_ranges() -> None:
    augment = Augment(crop_scale=(0.2, 0.9), crop_ratio=(0.5, 2.0))
    top, left, height, width = boxes_of(augment).unbind(1)
    assert bool((top >= 0).all())
    assert bool((left >= 0).all())
    assert bool((top + height <= 40).all())
    assert bool((left + width <= 60).all())
    area = height * width / (40 * 60)
    assert 0.17 < float(area.min()) < 0.25
    assert 0.8 < float(area.max()) < 0.95
    ratio = width / height
    assert 0.45 < float(ratio.min()) < 0.55
    assert 1.8 < float(ratio.max()) < 2.15


def test_places_of_boxes_are_uniform_and_reach_the_edges() -> None:
    top, left, height, width = boxes_of(Augment(crop_scale=(0.25, 0.25), crop_ratio=(1.0, 1.0))).unbind(1)
    assert set(height.tolist()) == {24}
    assert set(width.tolist()) == {24}
    assert torch.bincount(top).numel() == 17
    assert torch.bincount(left).numel() == 37
    expected = 4000 / 17
    assert float((torch.bincount(top) - expected).abs().max()) < 5 * math.sqrt(expected)


def test_areas_are_uniform_and_ratios_log_uniform() -> None:
    """No try fails here, so both follow their laws; 1000 px keep rounding out of the way."""
    _, _, height, width = boxes_of(
        Augment(crop_scale=(0.1, 0.3), crop_ratio=(0.5, 2.0)), height=1000, width=1000
    ).unbind(1)
    area = (height * width / 1e6 - 0.1) / 0.2
    logarithm = (width / height).log() / math.log(4) + 0.5
    for value in (area, logarithm):
        counts = torch.histc(value.float(), bins=10, min=0.0, max=1.0)
        assert float((counts - 400).abs().max()) < 5 * math.sqrt(400)


def test_fallback_is_the_central_box_of_torchvision() -> None:
    """An area of nine tenths at a ratio near 1 does not fit into a strip of 10 x 100."""
    augment = Augment(crop_scale=(0.9, 0.95), crop_ratio=(0.9, 1.25))
    assert set(map(tuple, boxes_of(augment, 50, 10, 100).tolist())) == {(0, 44, 10, 12)}
    assert set(map(tuple, boxes_of(augment, 50, 100, 10).tolist())) == {(44, 0, 11, 10)}


def test_full_scale_takes_the_whole_image() -> None:
    assert set(map(tuple, boxes_of(PLAIN, 20, 40, 70).tolist())) == {(0, 0, 40, 70)}


def test_flip_frequency() -> None:
    for rate in (0.0, 0.3, 1.0):
        positions = torch.arange(5000)
        flips = augmenting.flips(Augment(flip=rate), seed=3, step=2, positions=positions)
        assert abs(float(flips.float().mean()) - rate) <= 5 * math.sqrt(rate * (1 - rate) / 5000)


def test_seed_step_and_position_change_boxes_and_slices_do_not() -> None:
    augment = Augment()
    base = boxes_of(augment, 100)
    assert not torch.equal(base, boxes_of(augment, 100, seed=1))
    assert not torch.equal(base, boxes_of(augment, 100, step=1))
    part = augmenting.crop_boxes(40, 60, augment, seed=0, step=0, positions=torch.arange(30, 50))
    assert torch.equal(part, base[30:50])


def test_normalise() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    found = augmenting.normalise(images, (0.0, 0.2, 0.5), (1.0, 0.5, 0.25))
    torch.testing.assert_close(found.flatten(), torch.tensor([0.0, 0.0, 2.0]))
    again = augmenting.normalise(images.float() / 255, (0.0, 0.2, 0.5), (1.0, 0.5, 0.25))
    assert torch.equal(found, again)


def test_train_batch_without_augmentation_is_the_image() -> None:
    source = image_set()
    indices = torch.tensor([3, 1, 1])
    crops = augmenting.crops_of(source, PLAIN, seed=0, step=0, positions=torch.arange(3))
    found = augmenting.train_batch(source, indices, crops, augment=PLAIN, image_size=20)
    torch.testing.assert_close(found, (source.images[indices].float() / 255 - 0.5) / 0.25)


def test_train_batch_slices_agree_to_the_last_bit_and_stay_in_range() -> None:
    source = image_set()
    augment = Augment(interpolation="bicubic", crop_scale=(0.2, 1.0))
    indices, positions = torch.arange(12), torch.arange(12)

    def batch(rows: slice) -> torch.Tensor:
        crops = augmenting.crops_of(source, augment, seed=9, step=4, positions=positions[rows])
        return augmenting.train_batch(source, indices[rows], crops, augment=augment, image_size=16)

    whole = batch(slice(None))
    assert torch.equal(whole, torch.cat([batch(slice(0, 5)), batch(slice(5, 12))]))
    assert float(whole.min()) >= -2
    assert float(whole.max()) <= 2


@pytest.mark.parametrize(
    ("height", "width", "size", "crop"), [(40, 40, 28, 0.875), (33, 47, 24, 0.7), (20, 31, 32, 1.0)]
)
def test_test_batch_equals_resize_and_centre_crop(height: int, width: int, size: int, crop: float) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=generator)
    mode = InterpolationMode.BICUBIC
    expected = CenterCrop(size)(Resize(int(size / crop), mode, antialias=True)(images.float()))
    expected = expected.clamp(0, 255) / 255
    found = augmenting.test_batch(images, (0.0,) * 3, (1.0,) * 3, image_size=size, crop=crop)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_test_batch_leaves_images_of_the_size_alone() -> None:
    images = image_set().images
    found = augmenting.test_batch(images, (0.0,) * 3, (1.0,) * 3, image_size=20, crop=1.0)
    assert torch.equal(found, images.float() / 255)


def mixed(
    augment: Augment, images: torch.Tensor, labels: torch.Tensor, step: int = 0, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    return augmenting.mix(images, labels, augment=augment, num_classes=5, seed=seed, step=step)


def test_mixup_is_the_blend_that_its_targets_state() -> None:
    images, labels = torch.rand(6, 3, 8, 8), torch.tensor([0, 1, 2, 3, 4, 0])
    found, targets = mixed(Augment(mixup=0.8, smoothing=0.1), images, labels)
    one_hot = functional.one_hot(labels, 5) * 0.9 + 0.1 / 5
    share = (targets[1, 1] - 0.02) / 0.9
    assert 0 < float(share) < 1
    torch.testing.assert_close(found, share * images + (1 - share) * images.flip(0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(targets, share * one_hot + (1 - share) * one_hot.flip(0))


def test_cutmix_replaces_the_share_of_pixels_that_its_targets_state() -> None:
    images, labels = torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 2, 3])
    for step in range(5):
        found, targets = mixed(Augment(cutmix=1.0), images, labels, step)
        own = (found == images).all(1)
        other = (found == images.flip(0)).all(1)
        assert bool((own | other).all())
        torch.testing.assert_close(own.float().mean((1, 2)), targets[torch.arange(4), labels])


def test_both_switch_half_of_the_time() -> None:
    images, labels = torch.rand(2, 1, 16, 16), torch.tensor([0, 1])
    augment = Augment(mixup=0.8, cutmix=1.0)
    cut = sum(
        bool(((found == images) | (found == images.flip(0))).all())
        for found, _ in (mixed(augment, images, labels, step) for step in range(200))
    )
    assert abs(cut - 100) < 5 * math.sqrt(50)


def test_mix_is_a_function_of_seed_and_step() -> None:
    images, labels = torch.rand(4, 1, 8, 8), torch.arange(4)
    kept = images.clone()
    augment = Augment(mixup=0.8, cutmix=1.0)
    first = mixed(augment, images, labels, 3, 5)
    np.random.seed(99)  # noqa: NPY002
    again = mixed(augment, images, labels, 3, 5)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(images, kept), "the batch is not changed in place"
    assert not torch.equal(first[0], mixed(augment, images, labels, 4, 5)[0])
    assert not torch.equal(first[0], mixed(augment, images, labels, 3, 6)[0])


def test_without_mixing_targets_are_smoothed() -> None:
    images, labels = torch.rand(3, 1, 4, 4), torch.tensor([4, 0, 1])
    found, targets = mixed(Augment(smoothing=0.2), images, labels)
    assert torch.equal(found, images)
    expected = torch.full((3, 5), 0.04)
    expected[torch.arange(3), labels] = 0.84
    torch.testing.assert_close(targets, expected)


def states() -> tuple[object, ...]:
    return random.getstate(), np.random.get_state(legacy=False)["state"]["key"].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002


def test_global_generators_are_put_back() -> None:
    before = states()
    with augmenting.seeded(0, "test", 3, 4):
        drawn = random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002
    assert states() == before
    with augmenting.seeded(0, "test", 3, 4):
        assert drawn == (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: NPY002
    with augmenting.seeded(0, "test", 3, 5):
        other = random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002
    assert not set(other) & set(drawn)
    mixed(Augment(mixup=0.8), torch.rand(2, 1, 4, 4, generator=torch.Generator()), torch.tensor([0, 1]))
    assert states() == before


def test_seeded_puts_back_after_an_error() -> None:
    before = states()
    with pytest.raises(KeyError), augmenting.seeded(0, "test", 0):
        raise KeyError
    assert states() == before
