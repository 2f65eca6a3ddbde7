"""Augmentation of whole batches on the device of the images, as a stateless function of seed, step and position.

The random numbers of an image depend on its place in the global batch alone, and no operation reduces over images, so
the result is the same to the last bit however a batch is sliced.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, assert_never

import numpy as np
import torch
from timm.data.mixup import Mixup, mixup_target
from torch import Tensor
from torch.nn import functional

from harness.core.data.datasets import ImageSet
from harness.core.runtime.randomness import stream_of, uniform, words_of_one
from harness.spec import Augment, seed_stream

Interpolation = Literal["bilinear", "bicubic"]

CROP_TRIES = 10


@contextmanager
def seeded(seed: int, purpose: str, step: int, position: int = 0) -> Iterator[None]:
    """Context that seeds the global CPU generators of Python, NumPy and torch, and restores their states afterwards.

    For libraries such as timm that draw from global generators. Generators of accelerators are not touched.
    """
    drawn = words_of_one(stream_of(seed, purpose), step, position, 6).tolist()
    python, numpy, default = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        random.seed(drawn[0] << 32 | drawn[1])
        np.random.seed(drawn[2:4])  # noqa: NPY002
        torch.default_generator.manual_seed(drawn[4] << 31 | drawn[5] >> 1)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(default)


def crop_boxes(
    height: int, width: int, augment: Augment, *, seed: int, step: int | Tensor, positions: Tensor
) -> Tensor:
    """Boxes of random resized crops, by the rule of torchvision's RandomResizedCrop.

    Area uniform in crop_scale, aspect ratio log-uniform in crop_ratio, ten tries, then the largest central
    box within crop_ratio. crop_scale (1, 1) takes the whole image.

    Args:
        height, width: of the images, in pixels.
        step: one for all images, or int64 [B], each image's own.
        positions: int64 [B], places in the global batch.

    Returns:
        int64 [B, 4] in pixels: top, left, height, width.
    """
    count, device = len(positions), positions.device
    if augment.crop_scale == (1.0, 1.0):
        return _everywhere((0, 0, height, width), positions)
    # All ten tries are drawn at once, so a crop consumes the same numbers whichever try fits.
    drawn = uniform(seed_stream(seed, "crop"), step, positions, 4 * CROP_TRIES).view(count, CROP_TRIES, 4)
    low, high = augment.crop_scale
    area = height * width * (low + (high - low) * drawn[..., 0])
    low, high = (math.log(ratio) for ratio in augment.crop_ratio)
    aspect = (low + (high - low) * drawn[..., 1]).exp()
    wide, tall = (area * aspect).sqrt().round().long(), (area / aspect).sqrt().round().long()
    top = (drawn[..., 2] * (height - tall + 1)).long()
    left = (drawn[..., 3] * (width - wide + 1)).long()
    fits = (wide > 0) & (wide <= width) & (tall > 0) & (tall <= height)
    tries = torch.stack([top, left, tall, wide], dim=-1)
    # argmax of 0 and 1 is the first try that fits.
    first = tries[torch.arange(count, device=device), fits.int().argmax(1)]
    central = _everywhere(central_box(height, width, augment.crop_ratio), positions)
    return torch.where(fits.any(1, keepdim=True), first, central)


def squares(
    height: int,
    width: int,
    augment: Augment,
    *,
    of_longer: bool,
    seed: int,
    step: int | Tensor,
    positions: Tensor,
) -> Tensor:
    """Squares that are cut out of scaled pictures at random, in pixels of the pictures as they were.

    A picture of which a side is shorter than the square's is at its top or left, which reaches beyond it.

    Args:
        of_longer: True where `augment.scale` is of the longer side, False for the shorter one. Others as above.

    Returns:
        int64 [B, CROP_TRIES, 4], top, left, height, width: squares of one size that may be taken.
    """
    assert augment.scale is not None
    low, high = augment.scale
    drawn = uniform(seed_stream(seed, "scale"), step, positions, 1 + 2 * CROP_TRIES)
    whole = max(height, width) if of_longer else min(height, width)
    side = (whole / (low + (high - low) * drawn[:, :1])).round().clamp(min=1).long()
    top, left = (
        (places * ((length - side).clamp(min=0) + 1)).long()
        for places, length in zip(drawn[:, 1:].split(CROP_TRIES, dim=1), (height, width), strict=True)
    )
    side = side.expand_as(top)
    return torch.stack([top, left, side, side], dim=2)


def _everywhere(box: tuple[int, ...], positions: Tensor) -> Tensor:
    """The same box for each image. Filled on the device: the host would wait for a copy."""
    return torch.stack([torch.full_like(positions, value) for value in box], dim=1)


def central_box(height: int, width: int, ratios: tuple[float, float]) -> tuple[int, int, int, int]:
    """Largest central box whose aspect ratio lies within `ratios`: top, left, height, width in pixels."""
    wide, tall = width, height
    if width / height < ratios[0]:
        tall = round(width / ratios[0])
    elif width / height > ratios[1]:
        wide = round(height * ratios[1])
    return (height - tall) // 2, (width - wide) // 2, tall, wide


def flips(augment: Augment, *, seed: int, step: int | Tensor, positions: Tensor) -> Tensor:
    """Random left-right flips: bool [B], True = mirrored, with probability `augment.flip`; arguments as above."""
    return uniform(seed_stream(seed, "flip"), step, positions, 1)[:, 0] < augment.flip


def crops_of(
    source: ImageSet, augment: Augment, *, seed: int, step: int | Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    """Boxes and flips of training images; arguments as for `crop_boxes`."""
    height, width = source.images.shape[-2:]
    boxes = crop_boxes(height, width, augment, seed=seed, step=step, positions=positions)
    return boxes, flips(augment, seed=seed, step=step, positions=positions)


def resample(images: Tensor, boxes: Tensor, flip: Tensor, size: int, interpolation: Interpolation) -> Tensor:
    """Images cropped to their boxes, resized with antialiasing, and mirrored.

    Equal to torchvision's resized_crop(..., antialias=True) on float images: pixels outside the box have no
    influence, and bicubic values may leave the range of the input.

    Args:
        images: [B, C, H, W], any real dtype.
        boxes: int64 [B, 4], top, left, height, width, in pixels.
        flip: bool [B], True = mirrored left to right after the crop.
        size: side of the result in pixels.

    Returns:
        float32 [B, C, size, size] in the units of the input.
    """
    top, left, tall, wide = boxes.unbind(1)
    height, width = images.shape[-2:]
    rows, row_weights = _taps(top, tall, height, size, interpolation)
    columns, column_weights = _taps(left, wide, width, size, interpolation)
    # A mirrored image reads its columns in reverse order, which costs nothing beyond the resampling.
    columns = torch.where(flip[:, None, None], columns.flip(1), columns)
    column_weights = torch.where(flip[:, None, None], column_weights.flip(1), column_weights)
    narrow = _weighted_rows(images.float(), rows, row_weights)
    return _weighted_rows(narrow.mT, columns, column_weights).mT.contiguous()


def _taps(start: Tensor, length: Tensor, side: int, size: int, interpolation: Interpolation) -> tuple[Tensor, Tensor]:
    """Input pixels and filter weights of each output pixel, along one axis of `side` pixels.

    Args:
        start, length: int64 [B], the window of each image in pixels.

    Returns:
        int64 indices and float32 weights, each [B, size, taps]; the weights of an output pixel add up to 1.
    """
    reach = _reach(interpolation)
    # As many taps as the largest possible window needs, so that the shape does not depend on the crops drawn.
    count = math.ceil(2 * reach * max(1.0, side / size))
    scale = (length / size)[:, None]
    stretch = scale.clamp(min=1.0)  # the filter widens when shrinking: antialiasing
    centre = (torch.arange(size, device=start.device) + 0.5) * scale
    first = (centre - reach * stretch + 0.5).floor().long()
    # One tap more, of weight 0, for the sum alone: how a sum rounds depends on its number of terms.
    places = first[..., None] + torch.arange(count + 1, device=start.device)
    weights = _kernel((places + 0.5 - centre[..., None]) / stretch[..., None], interpolation)
    length = length[:, None, None]
    weights = weights * ((places >= 0) & (places < length))
    weights, places = (weights / weights.sum(-1, keepdim=True))[..., :count], places[..., :count]
    # Taps outside the window have weight 0, but their indices have to be valid.
    return torch.minimum(places.clamp(min=0), length - 1) + start[:, None, None], weights


def _weighted_rows(images: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of rows, [B, C, H, W] -> [B, C, size, W].

    Taps are summed one by one rather than by a matrix product: TF32 and bfloat16 settings of the training
    step, and the size of the batch, then cannot reach the pixels.
    """
    count, channels, height, width = images.shape
    size, taps = rows.shape[1:]
    lines = images.transpose(1, 2).reshape(count * height, channels * width)
    places = rows + height * torch.arange(count, device=rows.device)[:, None, None]
    total = torch.zeros(1, device=images.device)
    for tap in range(taps):
        part = lines.index_select(0, places[..., tap].flatten()).mul_(weights[..., tap].reshape(-1, 1))
        total = part if tap == 0 else total.add_(part)
    return total.view(count, size, channels, width).transpose(1, 2)


def _reach(interpolation: Interpolation) -> float:
    """Half the width of the filter's support."""
    match interpolation:
        case "bilinear":
            return 1.0
        case "bicubic":
            return 2.0
        case _:
            assert_never(interpolation)


def _kernel(x: Tensor, interpolation: Interpolation) -> Tensor:
    """Filter weight at distance x, in output pixels when shrinking and in input pixels otherwise."""
    x = x.abs()
    match interpolation:
        case "bilinear":
            return (1 - x).clamp(min=0)
        case "bicubic":  # Keys' cubic with a = -0.5, as PIL and torch with antialias=True
            near = (1.5 * x - 2.5) * x * x + 1
            far = ((-0.5 * x + 2.5) * x - 4) * x + 2
            return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
        case _:
            assert_never(interpolation)


def normalise(images: Tensor, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> Tensor:
    """Images minus mean over std, per channel: float32 [B, C, H, W].

    Args:
        images: [B, C, H, W] or [C, H, W], uint8, or floats in [0, 1].
        mean, std: of values in [0, 1], one for each channel. Tensors on the device of the images need no copy.
    """
    shape = (-1, 1, 1)
    centre = torch.as_tensor(mean, dtype=torch.float32, device=images.device).view(shape)
    spread = torch.as_tensor(std, dtype=torch.float32, device=images.device).view(shape)
    if images.dtype == torch.uint8:  # in place: touching new memory is most of the time that this takes on a CPU
        return images.float().div_(255).sub_(centre).div_(spread)
    return (images - centre).div_(spread)


def train_batch(
    source: ImageSet, indices: Tensor, crops: tuple[Tensor, Tensor], *, augment: Augment, image_size: int
) -> Tensor:
    """Training images: cropped, resized, flipped, normalised.

    Args:
        source: on the device that is to compute them.
        indices: int64 [B], which images. crops: from `crops_of`.

    Returns:
        float32 [B, C, image_size, image_size], on the device of the source.
    """
    return cropped(source.images[indices], crops, source.colours, augment=augment, image_size=image_size)


def cropped(
    pictures: Tensor, crops: tuple[Tensor, Tensor], colours: tuple[Tensor, Tensor], *, augment: Augment, image_size: int
) -> Tensor:
    """Pictures [B, C, H, W], values 0 to 255, cropped, resized, flipped, normalised; arguments as above."""
    resized = resample(pictures, *crops, image_size, augment.interpolation)
    # Bicubic filters overshoot; images of 8 bits, as PIL resizes them, cannot.
    return normalise(resized.clamp_(0, 255).div_(255), *colours)


def test_size(image_size: int, crop: float) -> int:
    """Length in pixels that the shorter side is resized to before a central crop of `image_size`."""
    return int(image_size / crop)


def test_batch(images: Tensor, mean: Sequence[float], std: Sequence[float], *, image_size: int, crop: float) -> Tensor:
    """Test images: shorter side resized to int(image_size / crop), bicubic, then cropped to the central square.

    Images whose shorter side already has that length are not resampled.

    Args:
        images: uint8 [B, C, H, W].

    Returns:
        float32 [B, C, image_size, image_size], normalised.
    """
    height, width = images.shape[-2:]
    short = test_size(image_size, crop)
    values = images.float()
    if min(height, width) != short:
        longer = int(short * max(height, width) / min(height, width))
        shape = (short, longer) if height <= width else (longer, short)
        values = functional.interpolate(values, size=shape, mode="bicubic", antialias=True).clamp(0, 255)
    top, left = (round((side - image_size) / 2) for side in values.shape[-2:])
    values = values[..., top : top + image_size, left : left + image_size]
    return normalise(values / 255, mean, std)


def mix(
    images: Tensor, labels: Tensor, *, augment: Augment, num_classes: int, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """Mixup or CutMix of a batch (timm's, mode `batch`, probability 1, switch probability 0.5), and soft targets.

    One ratio is drawn for the batch, and image i is mixed with image B - 1 - i. So a batch is mixed whole, or in rows
    that mirror each other as those of the whole batch do (`distributed.rows_of`). Without Mixup and CutMix the targets
    are smoothed one-hot vectors, and the images are returned unchanged.

    Args:
        images: float32 [B, C, H, W], B even where something is mixed.
        labels: int64 [B].

    Returns:
        images [B, C, H, W] (a new tensor if mixed) and targets float32 [B, num_classes].
    """
    if not augment.mixes:
        targets = mixup_target(labels, num_classes, 1.0, augment.smoothing)
        return images, targets
    blend = Mixup(
        mixup_alpha=augment.mixup,
        cutmix_alpha=augment.cutmix,
        prob=1.0,
        switch_prob=0.5,
        mode="batch",
        label_smoothing=augment.smoothing,
        num_classes=num_classes,
    )
    with seeded(seed, "mixup", step):  # timm draws from NumPy's global generator
        mixed, targets = blend(images.clone(), labels)  # it mixes in place
    return mixed, targets
