"""Batches of training and test images, in order.

A training batch is a function of the data set, the augmentation, the seed and the step. It depends neither on the step
at which the iteration began, nor on loader workers, nor on the rows of it that a process takes.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice
from typing import NamedTuple, TypeVar, assert_never

import torch
from torch import Tensor

from harness.core.data.augment import crop_boxes, crops_of, flips, normalise, resample, test_batch, train_batch
from harness.core.data.custom_augment import custom_augment
from harness.core.data.datasets import FolderSet, ImageSet
from harness.core.data.samples import TestSamples, TrainingSamples, collected
from harness.core.runtime.ahead import STEPS, Ahead
from harness.core.runtime.randomness import permutation
from harness.spec import Augment, CustomAugment, HarnessError

T = TypeVar("T")
U = TypeVar("U")

READ_AT_ONCE = 64
"""Files in one batch of a loader that reads a whole set into memory."""
AHEAD = 64 << 20
"""Most bytes of images that are computed ahead, so that a device gets few and large pieces of work."""
CACHED = 1 << 20
"""Most bytes on a CPU: more than its cache holds take longer."""


class Batch(NamedTuple):
    """The rows of a training batch that this process takes.

    step: counted from 0; an int64 scalar where the step is recorded.
    images: float32 [b, C, S, S], normalised, or [b, 2, C, S, S] with two crops of each image. labels: int64 [b], or
        soft targets float32 [b, classes].
    positions: int64 [b], places in the global batch. All on the device of the training.
    masks: bool [b, M], True = hidden: the masks of each image that were drawn ahead, flattened, one after another;
        M = 0 if none were.
    """

    step: int | Tensor
    images: Tensor
    labels: Tensor
    positions: Tensor
    masks: Tensor = torch.zeros(0, 0, dtype=torch.bool)


def order(seed: int, epoch: int, length: int) -> Tensor:
    """Order of the images in an epoch: a permutation of range(length), int64, on the CPU.

    A function of the seed and the epoch alone, so cells that share a seed see the same images in the same order.

    Args:
        epoch: counted from 0. length: number of images in the data set.
    """
    return permutation(seed, "order", epoch, length)


def steps_per_epoch(source: ImageSet | FolderSet, batch_size: int) -> int:
    """Number of full batches in one epoch; an incomplete last one is dropped.

    Raises:
        HarnessError: there are fewer images than one batch takes.
    """
    if len(source) < batch_size:
        raise HarnessError(f"batch_size {batch_size} is more than the {len(source)} training images")
    return len(source) // batch_size


def training_batches(
    source: ImageSet | FolderSet,
    augment: Augment,
    *,
    image_size: int,
    batch_size: int,
    seed: int,
    first_step: int,
    steps: int,
    device: torch.device,
    workers: int = 0,
    rows: slice | Tensor | None = None,
    crop_seed: int | None = None,
) -> Iterator[Batch]:
    """The batches of steps first_step to steps - 1, counted over all epochs.

    Images that are only cropped and flipped are computed in batch on the device if they are in memory, or squares of a
    pack with `crops="batch"`; other images one by one (`harness.core.data.samples`). Batches of files and packs are
    copied to a GPU while the step before runs.

    Args:
        image_size: side of the result in pixels.
        batch_size: images in the global batch.
        workers: loader processes for images that are computed one by one; 0 computes them here.
        rows: rows of every global batch that this process takes, a slice or indices int64 [b]; None for all of them.
        crop_seed: seed of the augmentation, for other crops of the same images; None for `seed`.

    Raises:
        HarnessError: there are fewer images than one batch takes, or an image cannot be read.
    """
    # Crops follow `drawn`, the order of images always `seed`: two crop seeds give two crops of the same images.
    drawn = seed if crop_seed is None else crop_seed
    places = torch.arange(batch_size)[slice(None) if rows is None else rows]
    together = not augment.needs_loader
    in_memory = source if isinstance(source, ImageSet) and together else None
    at = places.to("cpu" if in_memory is None else device)
    plan = step_indices(source, at, batch_size, seed, range(first_step, steps), augment.repeats)
    if isinstance(source, FolderSet) and source.crops == "batch" and together:
        found = _packed(source, augment, image_size, drawn, plan, places.to(device), steps)
    elif in_memory is not None:
        found = _in_memory(in_memory.to(device), augment, image_size, drawn, plan, places.to(device), steps)
    else:
        made = TrainingSamples(source, augment, image_size, drawn)
        found = _one_by_one(made, plan, places, device, workers)
    return _custom(found, augment, source, drawn, steps) if isinstance(augment, CustomAugment) else found


def _custom(
    batches: Iterator[Batch], augment: CustomAugment, source: ImageSet | FolderSet, seed: int, steps: int
) -> Iterator[Batch]:
    for batch in batches:
        images = custom_augment(
            augment, batch.images, source, seed=seed, step=batch.step, steps=steps, positions=batch.positions
        )
        yield batch._replace(images=images)


def in_pairs(first: Iterator[Batch], second: Iterator[Batch]) -> Iterator[Batch]:
    """Batches of the same images with two crops of each, images [b, 2, C, S, S]."""
    for one, other in zip(first, second, strict=True):
        yield one._replace(images=torch.stack((one.images, other.images), dim=1))


def step_indices(
    source: ImageSet | FolderSet, places: Tensor, batch_size: int, seed: int, steps: range, repeats: int = 1
) -> Iterator[tuple[int, Tensor]]:
    """Each step with the indices of the images at these places of its global batch, int64 [b], on their device."""
    per_epoch = steps_per_epoch(source, batch_size)

    # A function of its own, so that a batch size that is too large is refused here and not at the first batch.
    def planned() -> Iterator[tuple[int, Tensor]]:
        shuffled, shown = torch.empty(0), -1
        for step in steps:
            epoch, batch = divmod(step, per_epoch)
            if epoch != shown:
                visited = order(seed, epoch, len(source))
                # Repeated augmentation: neighbours in the batch are copies; an epoch keeps its number of images.
                visited = visited.repeat_interleave(repeats)[: per_epoch * batch_size]
                # Copied to the device once an epoch, for which the host waits, and not in each step.
                shuffled, shown = visited.view(per_epoch, batch_size).to(places.device)[:, places], epoch
            yield step, shuffled[batch]

    return planned()


def _in_memory(
    source: ImageSet,
    augment: Augment,
    image_size: int,
    seed: int,
    plan: Iterator[tuple[int, Tensor]],
    positions: Tensor,
    steps: int,
) -> Iterator[Batch]:
    def draw(step: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        return crops_of(source, augment, seed=seed, step=step, positions=positions)

    ahead = Ahead(draw, positions, steps)
    taken = 4 * len(positions) * source.channels * image_size**2  # bytes of a batch in float32
    length = max(1, min(STEPS, (CACHED if positions.is_cpu else AHEAD) // taken))
    while block := list(islice(plan, length)):
        boxes, mirrored = (torch.cat(drawn) for drawn in zip(*(ahead.at(step) for step, _ in block), strict=True))
        indices = torch.cat([mine for _, mine in block])
        images = train_batch(source, indices, (boxes, mirrored), augment=augment, image_size=image_size)
        parts = zip(images.chunk(len(block)), source.labels[indices].chunk(len(block)), strict=True)
        for (step, _), (shown, labels) in zip(block, parts, strict=True):
            yield Batch(step, shown, labels, positions)


def _one_by_one(
    made: TrainingSamples,
    plan: Iterator[tuple[int, Tensor]],
    places: Tensor,
    device: torch.device,
    workers: int,
) -> Iterator[Batch]:
    positions = places.to(device)
    wanted = ([(step, *pair) for pair in zip(places.tolist(), indices.tolist(), strict=True)] for step, indices in plan)
    for images, labels, step in _arriving(collected(made, wanted, device, workers), made.source, device):
        yield Batch(step, images, labels, positions)


def _packed(
    source: FolderSet,
    augment: Augment,
    image_size: int,
    seed: int,
    plan: Iterator[tuple[int, Tensor]],
    positions: Tensor,
    steps: int,
) -> Iterator[Batch]:
    pack, device = source.pack, positions.device
    assert pack is not None  # a set with these crops is a pack of squares
    squares, rows = pack.squares(), pack.rows(source.paths)
    side, pinned = squares.shape[1], device.type == "cuda"

    def draw(step: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        boxes = crop_boxes(side, side, augment, seed=seed, step=step, positions=positions)
        return boxes, flips(augment, seed=seed, step=step, positions=positions)

    def read(planned: tuple[int, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        step, indices = planned
        pixels = torch.empty(len(indices), side, side, 3, dtype=torch.uint8, pin_memory=pinned)
        labels = torch.empty(len(indices), dtype=torch.int64, pin_memory=pinned)
        torch.index_select(squares, 0, rows[indices], out=pixels)
        torch.index_select(source.labels, 0, indices, out=labels)
        return pixels.permute(0, 3, 1, 2), labels, torch.tensor([step])

    ahead = Ahead(draw, positions, steps)
    colours = torch.tensor((source.mean, source.std), dtype=torch.float32, device=device)
    for pixels, labels, step in _arriving(_one_ahead(read, plan), None, device):
        boxes, mirrored = ahead.at(step)
        resized = resample(pixels, boxes, mirrored, image_size, augment.interpolation)
        # Rounded to 8 bits, as PIL and torch resize pictures that are computed alone.
        values = resized.clamp_(0, 255).round_().div_(255)
        yield Batch(step, normalise(values, *colours), labels, positions)


def _one_ahead(read: Callable[[T], U], wanted: Iterator[T]) -> Iterator[U]:
    """Results of `read` in order, the next computed by a thread while the last is used."""
    with ThreadPoolExecutor(1) as pool:
        pending = deque(pool.submit(read, first) for first in islice(wanted, 1))
        while pending:
            found = pending.popleft().result()
            pending.extend(pool.submit(read, following) for following in islice(wanted, 1))
            yield found


def test_batches(
    source: ImageSet | FolderSet,
    *,
    image_size: int,
    crop: float,
    batch_size: int,
    device: torch.device,
    workers: int,
    rank: int = 0,  # noqa: PT028
    size: int = 1,  # noqa: PT028
) -> Iterator[tuple[Tensor, Tensor]]:
    """All images of a set once, in order, with the preparation of testing; the last batch may be smaller.

    Args:
        crop: share of the side that the central crop keeps: the shorter side is resized to
            int(image_size / crop).
        workers: loader processes for images that lie in files; 0 reads them here.
        rank, size: this process and their number; a process takes every size-th batch, from batch `rank` on.

    Yields:
        Images float32 [b, C, image_size, image_size], normalised, and labels int64 [b], on the device.

    Raises:
        HarnessError: an image cannot be read.
    """
    indices = torch.split(torch.arange(len(source)), batch_size)[rank::size]
    match source:
        case ImageSet(mean=mean, std=std):
            for part in indices:
                images = test_batch(source.images[part].to(device), mean, std, image_size=image_size, crop=crop)
                yield images, source.labels[part].to(device)
        case FolderSet():
            wanted = (part.tolist() for part in indices)
            batches = collected(TestSamples(source, image_size, crop), wanted, device, workers)
            yield from ((images, labels) for images, labels, _ in _arriving(batches, source, device))
        case _:
            assert_never(source)


def as_images(source: ImageSet | FolderSet, *, image_size: int, crop: float, workers: int) -> ImageSet:
    """A data set held in memory; files are read with the preparation of testing, uint8 [N, 3, image_size, image_size].

    Raises:
        HarnessError: they need more memory than this machine has, or an image cannot be read.
    """
    if isinstance(source, ImageSet):
        return source
    shape = (len(source), source.channels, image_size, image_size)
    if math.prod(shape) > (memory := os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")):
        needed = f"{len(source)} images of {image_size} px take {math.prod(shape) / 1e9:.0f} GB"
        raise HarnessError(f"{needed} of this machine's {memory / 1e9:.0f} GB of memory: set train_images")
    images, first = torch.empty(shape, dtype=torch.uint8), 0
    wanted = (part.tolist() for part in torch.split(torch.arange(len(source)), READ_AT_ONCE))
    for part, _ in collected(TestSamples(source, image_size, crop), wanted, torch.device("cpu"), workers):
        images[first : first + len(part)] = part
        first += len(part)
    return ImageSet(images, source.labels, source.num_classes, source.mean, source.std)


def _arriving(
    batches: Iterator[Sequence[Tensor]], source: ImageSet | FolderSet | None, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Images and labels of a loader, on the device, and the step, 0 if the loader gives none.

    Images that come as uint8, a quarter of the bytes to transfer, are normalised there by the colours of the set if one
    is given. On a GPU all this has a stream of its own beside the step that runs: the memory of loaders is pinned, so
    that the host does not wait.
    """
    beside = torch.cuda.Stream(device) if device.type == "cuda" else None
    colours = None if source is None else torch.tensor((source.mean, source.std), dtype=torch.float32, device=device)
    for images, labels, *step in batches:
        with torch.cuda.stream(beside) if beside else nullcontext():
            shown, answers = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            if colours is not None and shown.dtype == torch.uint8:
                shown = normalise(shown, *colours)
        if beside is not None:
            running = torch.cuda.current_stream(device)
            running.wait_stream(beside)
            for tensor in (shown, answers):
                tensor.record_stream(running)  # or its memory might be used again before the step has read it
        yield shown, answers, int(step[0][0]) if step else 0
