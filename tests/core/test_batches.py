"""Batches: the same whatever the workers, the slices and the first step."""

from __future__ import annotations

import os
import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import CenterCrop, InterpolationMode, Resize
from torchvision.transforms.functional import pil_to_tensor

from harness.core.data import batches, samples
from harness.core.data.datasets import FolderSet, ImageSet
from harness.spec import Augment, HarnessError

CPU = torch.device("cpu")
RAND = "rand-m9-mstd0.5-inc1"
PLAIN = Augment(crop_scale=(1.0, 1.0), flip=0.0)
TIMM = Augment(rand_augment=RAND, erasing=0.5)


def image_set(channels: int = 3, count: int = 14) -> ImageSet:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, channels, 16, 16), dtype=torch.uint8, generator=generator)
    return ImageSet(images, torch.arange(count), count, (0.5,) * channels, (0.25,) * channels)


@pytest.fixture(scope="module")
def folder_set(tmp_path_factory: pytest.TempPathFactory) -> FolderSet:
    """Fourteen images in several formats and modes, none square."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    paths = []
    for index in range(14):
        mode, suffix = [("RGB", "jpg"), ("L", "png"), ("P", "png"), ("RGB", "png"), ("CMYK", "jpg")][index % 5]
        pixels = generator.integers(0, 256, (24 + index, 40, 3), dtype=np.uint8)
        path = root / f"{index}.{suffix}"
        Image.fromarray(pixels).convert(mode).save(path)
        paths.append(path)
    names = tuple("abcdefghijklmn")
    return FolderSet(tuple(paths), torch.arange(14), names, (0.5,) * 3, (0.25,) * 3)


def made(source: ImageSet | FolderSet, augment: Augment = PLAIN, **changes: Any) -> list[batches.Batch]:
    values: dict[str, Any] = {
        "image_size": 16,
        "batch_size": 4,
        "seed": 0,
        "first_step": 0,
        "steps": 5,
        "device": CPU,
    } | changes
    return list(batches.training_batches(source, augment, **values))


def assert_same(left: list[batches.Batch], right: list[batches.Batch]) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.step == b.step
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.positions, b.positions)


def test_order_is_a_permutation_of_its_own_for_each_epoch_and_seed() -> None:
    orders = [batches.order(seed, epoch, 50) for seed in (0, 1) for epoch in (0, 1)]
    for order in orders:
        assert order.sort().values.tolist() == list(range(50))
    assert len({tuple(order.tolist()) for order in orders}) == 4
    assert torch.equal(orders[0], batches.order(0, 0, 50))


def test_an_epoch_shows_every_image_once_but_for_the_last_incomplete_batch() -> None:
    found = made(image_set(), steps=7)
    assert [batch.step for batch in found] == list(range(7))
    for epoch in (found[:3], found[3:6]):
        seen = torch.cat([batch.labels for batch in epoch]).tolist()
        assert len(set(seen)) == 12
    assert not torch.equal(found[0].labels, found[3].labels)
    expected = batches.order(0, 1, 14)[4:8]
    assert torch.equal(found[4].labels, expected)
    assert found[0].positions.tolist() == [0, 1, 2, 3]


def test_images_belong_to_their_labels_and_are_normalised() -> None:
    source = image_set()
    for batch in made(source):
        expected = (source.images[batch.labels].float() / 255 - 0.5) / 0.25
        torch.testing.assert_close(batch.images, expected)
        assert batch.images.dtype == torch.float32


@pytest.mark.parametrize("augment", [Augment(), TIMM], ids=["batched", "timm"])
def test_first_step_continues_identically(augment: Augment) -> None:
    whole = made(image_set(), augment, steps=8)
    assert_same(whole[5:], made(image_set(), augment, first_step=5, steps=8))
    assert made(image_set(), augment, first_step=8, steps=8) == []


@pytest.mark.parametrize("ahead", [1, 3, 50])
@pytest.mark.parametrize("first", [0, 2, 53])
def test_images_computed_ahead_are_those_of_each_step_alone(
    ahead: int, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever a block begins: across epochs, within a block, up to the last step."""
    augment = Augment(crop_scale=(0.3, 1.0), interpolation="bicubic", repeats=2)
    monkeypatch.setattr(batches, "CACHED", 1)
    alone = made(image_set(), augment, steps=60)
    monkeypatch.setattr(batches, "CACHED", ahead * 4 * 4 * 3 * 16 * 16)
    assert_same(alone[first:], made(image_set(), augment, first_step=first, steps=60))


@pytest.mark.parametrize("augment", [Augment(), TIMM], ids=["batched", "timm"])
def test_slices_of_a_batch_make_up_the_whole(augment: Augment) -> None:
    whole = made(image_set(), augment)
    first = made(image_set(), augment, rows=slice(0, 1))
    rest = made(image_set(), augment, rows=slice(1, 4))
    joined = [
        batches.Batch(a.step, *(torch.cat(pair) for pair in zip(a[1:], b[1:], strict=True)))
        for a, b in zip(first, rest, strict=True)
    ]
    assert_same(whole, joined)


@pytest.mark.parametrize("augment", [Augment(), TIMM], ids=["batched", "timm"])
def test_the_seed_changes_order_and_augmentation(augment: Augment) -> None:
    source = image_set(count=4)
    first, other = made(source, augment, steps=2), made(source, augment, steps=2, seed=1)
    assert not torch.equal(first[0].labels, other[0].labels) or not torch.equal(first[1].labels, other[1].labels)
    by_label = [batch.images[batch.labels.argsort()] for batch in (*first, other[0])]
    assert not torch.equal(by_label[0], by_label[1]), "the same images look different at another step"
    assert not torch.equal(by_label[0], by_label[2])


@pytest.mark.parametrize("augment", [Augment(), TIMM], ids=["batched", "timm"])
def test_each_place_in_the_batch_has_its_own_augmentation(augment: Augment) -> None:
    source = ImageSet(image_set(count=1).images.expand(8, -1, -1, -1), torch.arange(8), 8, (0.5,) * 3, (0.25,) * 3)
    images = made(source, augment, batch_size=8, steps=1)[0].images
    assert len({image.numpy().tobytes() for image in images}) == 8


def source_of(kind: str, folder_set: FolderSet) -> ImageSet | FolderSet:
    return folder_set if kind == "folder" else image_set(1 if kind == "grey" else 3)


@pytest.mark.parametrize(
    ("kind", "augment"),
    [("folder", Augment()), ("folder", TIMM), ("grey", TIMM), ("colour", Augment(color_jitter=0.4))],
)
def test_workers_change_nothing(kind: str, augment: Augment, folder_set: FolderSet) -> None:
    source = source_of(kind, folder_set)
    alone = made(source, augment, steps=4)
    assert_same(alone, made(source, augment, steps=4, workers=1))
    assert_same(alone, made(source, augment, steps=4, workers=2))


@pytest.mark.parametrize("kind", ["folder", "grey", "colour"])
@pytest.mark.parametrize("augment", [Augment(), TIMM], ids=["plain", "timm"])
def test_global_generators_are_left_alone(kind: str, augment: Augment, folder_set: FolderSet) -> None:
    def states() -> tuple[object, ...]:
        numpy = np.random.get_state(legacy=False)["state"]["key"].tolist()  # noqa: NPY002
        return random.getstate(), numpy, torch.get_rng_state().tolist()

    before = states()
    for batch in batches.training_batches(
        source_of(kind, folder_set),
        augment,
        image_size=16,
        batch_size=4,
        seed=0,
        first_step=0,
        steps=2,
        device=CPU,
        workers=0,
    ):
        assert states() == before, f"between batches, at step {batch.step}"
    assert states() == before


def test_timm_transforms_take_any_seed_and_both_modes() -> None:
    """Magnitudes that increase reach a posterise of 0 bits, which Pillow refuses: 3 in 1,000 images."""
    for channels in (1, 3):
        source = image_set(channels, 100)
        found = made(source, Augment(rand_augment="rand-m10-n4-inc1"), batch_size=100, steps=4)
        assert all(batch.images.shape == (100, channels, 16, 16) for batch in found)
        assert all(bool(batch.images.isfinite().all()) for batch in found)


def test_posterize() -> None:
    image = Image.fromarray(np.array([[0, 37, 200, 255]], dtype=np.uint8))
    assert np.asarray(samples._posterize(image, 0)).tolist() == [[0, 0, 0, 0]]
    assert np.asarray(samples._posterize(image, 1)).tolist() == [[0, 0, 128, 128]]
    assert np.asarray(samples._posterize(image, 8)).tolist() == [[0, 37, 200, 255]]


def test_erasing_is_normal_noise_in_normalised_units() -> None:
    """A black image is -2 everywhere; erased pixels are standard normal."""
    source = ImageSet(torch.zeros(20, 1, 32, 32, dtype=torch.uint8), torch.zeros(20), 1, (0.5,), (0.25,))
    images = torch.cat([batch.images for batch in made(source, Augment(erasing=1.0), image_size=32)])
    erased = images[images != -2]
    assert 0.02 < erased.numel() / images.numel() < 0.34
    assert abs(float(erased.mean())) < 0.1
    assert abs(float(erased.std()) - 1) < 0.1


def test_timm_transforms_refuse_other_channels() -> None:
    with pytest.raises(HarnessError, match="1 or 3 channels, not 2"):
        made(image_set(2), TIMM)


def test_more_images_in_a_batch_than_there_are() -> None:
    with pytest.raises(HarnessError, match="batch_size 15 is more than the 14 training images"):
        batches.training_batches(
            image_set(), PLAIN, image_size=16, batch_size=15, seed=0, first_step=0, steps=1, device=CPU
        )


def test_folder_images_whole(folder_set: FolderSet) -> None:
    """Without crop and flip, a training image is the file, decoded and resized by PIL."""
    for batch in made(folder_set, PLAIN):
        for image, label in zip(batch.images, batch.labels.tolist(), strict=True):
            with Image.open(folder_set.paths[label]) as file:
                resized = file.convert("RGB").resize((16, 16), Image.Resampling.BILINEAR)
            torch.testing.assert_close(image, (pil_to_tensor(resized) / 255 - 0.5) / 0.25)


def test_folder_images_are_mirrored(folder_set: FolderSet) -> None:
    plain, mirrored = made(folder_set, PLAIN), made(folder_set, PLAIN.replace(flip=1.0))
    for a, b in zip(plain, mirrored, strict=True):
        torch.testing.assert_close(a.images, b.images.flip(-1), atol=2 / 255 / 0.25, rtol=0)


def test_folder_crops_are_those_of_images_in_memory(tmp_path: Path) -> None:
    """The same picture through files and through the batch: equal but for rounding to 8 bits."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(64, 192, (4, 33, 47, 3), dtype=np.uint8)  # no bicubic overshoot to clip
    paths = tuple(tmp_path / f"{index}.png" for index in range(4))
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    labels, colours = torch.arange(4), ((0.5,) * 3, (0.25,) * 3)
    in_files = FolderSet(paths, labels, tuple("abcd"), *colours)
    in_memory = ImageSet(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()), labels, 4, *colours)
    for interpolation in ("bilinear", "bicubic"):
        augment = Augment(crop_scale=(0.2, 1.0), interpolation=interpolation)
        for a, b in zip(made(in_files, augment), made(in_memory, augment), strict=True):
            assert torch.equal(a.labels, b.labels)
            torch.testing.assert_close(a.images, b.images, atol=2 / 255 / 0.25, rtol=0)


def test_large_jpegs_are_decoded_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A smooth picture, so that what is compared is the place of the crop and not the noise."""
    ramp = np.linspace(0, 255, 800).astype(np.uint8)
    pixels = np.stack([np.tile(ramp, (600, 1)), np.tile(ramp[:600, None], (1, 800)), np.full((600, 800), 99)], 2)
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "0.jpg", quality=95)
    source = FolderSet((tmp_path / "0.jpg",), torch.tensor([0]), ("a",), (0.5,) * 3, (0.25,) * 3)
    find = partial(made, source, Augment(crop_scale=(0.3, 0.9)), batch_size=1, steps=6)
    small = find()
    drafts: list[tuple[int, int]] = []
    monkeypatch.setattr(Image.Image, "draft", lambda *_: None)
    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.draft", lambda *args: drafts.append(args[2]))
    for a, b in zip(small, find(), strict=True):
        torch.testing.assert_close(a.images, b.images, atol=4 / 255 / 0.25, rtol=0)
    assert all(width >= 32 for width, _ in drafts)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_file_is_named_in_one_line(tmp_path: Path, workers: int) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    source = FolderSet((tmp_path / "a.jpg",), torch.tensor([0]), ("a",), (0.5,) * 3, (0.25,) * 3)
    with pytest.raises(HarnessError, match=r"^cannot read .*a\.jpg") as caught:
        made(source, Augment(), batch_size=1, steps=1, workers=workers)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_test_batches_of_files(folder_set: FolderSet, workers: int) -> None:
    found = list(batches.test_batches(folder_set, image_size=14, crop=0.875, batch_size=4, device=CPU, workers=workers))
    assert [len(labels) for _, labels in found] == [4, 4, 4, 2]
    assert torch.cat([labels for _, labels in found]).tolist() == list(range(14))
    images = torch.cat([images for images, _ in found])
    for image, path in zip(images, folder_set.paths, strict=True):
        with Image.open(path) as file:
            resized = Resize(16, InterpolationMode.BICUBIC)(file.convert("RGB"))
        expected = pil_to_tensor(CenterCrop(14)(resized)) / 255
        torch.testing.assert_close(image, (expected - 0.5) / 0.25)


def test_test_batches_in_memory() -> None:
    source = image_set()
    found = list(batches.test_batches(source, image_size=16, crop=1.0, batch_size=5, device=CPU, workers=0))
    assert [len(labels) for _, labels in found] == [5, 5, 4]
    images = torch.cat([images for images, _ in found])
    torch.testing.assert_close(images, (source.images.float() / 255 - 0.5) / 0.25)
    assert torch.equal(torch.cat([labels for _, labels in found]), source.labels)


def test_rand_augment_reaches_the_images() -> None:
    """An inverted picture is only possible by RandAugment, so its absence would be a dead switch."""
    ramp = torch.arange(0, 256, dtype=torch.uint8)[::4].expand(8, 1, 64, 64).contiguous()
    source = ImageSet(ramp, torch.arange(8), 8, (0.5,), (0.5,))
    whole = Augment(crop_scale=(1.0, 1.0), flip=0.0, rand_augment=RAND)
    images = torch.cat([batch.images for batch in made(source, whole, image_size=64, batch_size=8, steps=10)])
    image = Image.fromarray(ramp[0, 0].numpy())
    inverted = (pil_to_tensor(ImageOps.invert(image)) / 255 - 0.5) / 0.5
    assert any(torch.allclose(found, inverted, atol=0.02) for found in images)


def test_a_folder_in_memory_holds_the_images_as_they_are_tested(
    folder_set: FolderSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = batches.as_images(folder_set, image_size=16, crop=0.8, workers=0)
    tested = batches.test_batches(folder_set, image_size=16, crop=0.8, batch_size=14, device=CPU, workers=0)
    assert torch.equal((held.images / 255 - 0.5) / 0.25, next(tested)[0])
    assert torch.equal(held.labels, folder_set.labels)
    assert (held.num_classes, held.channels) == (14, 3)
    whole = image_set()
    assert batches.as_images(whole, image_size=16, crop=0.8, workers=0) is whole
    monkeypatch.setattr(os, "sysconf", lambda name: 100)
    with pytest.raises(HarnessError, match="14 images of 16 px take 0 GB of this machine's 0 GB of memory"):
        batches.as_images(folder_set, image_size=16, crop=0.8, workers=0)
