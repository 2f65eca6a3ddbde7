"""Test images of an analysis: a sample that depends on the content of the images, not on the order of files."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from pathlib import Path
from typing import assert_never

import torch
from torch import Tensor

from harness.core.data.batches import test_batches
from harness.core.data.datasets import FolderSet, ImageSet
from harness.core.evaluate.labelled import test_batch_size
from harness.core.runtime.session import Session
from harness.spec import Fourier, HarnessError, Occlusion, RgbStatistics


def image_sample(source: ImageSet | FolderSet, count: int | None, seed: int) -> ImageSet | FolderSet:
    """Sample of `count` images; for None all of them in their given order.

    Classes take turns, so that the sample is as balanced as the set allows. Within a class the order is that of a hash
    of the seed and the image: its pixels if it is in memory, else its class and file name, whose content the data set's
    digest covers. A smaller sample is the beginning of a larger one.

    Raises:
        HarnessError: the set has fewer images.
    """
    if count is None:
        return source
    if count > len(source):
        raise HarnessError(f"images {count} is more than the {len(source)} test images")
    hashes = [_hash(source, index, seed) for index in range(len(source))]
    turns = [0] * len(source)  # place of each image within its class
    latest: dict[int, int] = {}
    for index in sorted(range(len(source)), key=hashes.__getitem__):
        label = int(source.labels[index])
        turns[index] = latest[label] = latest.get(label, -1) + 1
    # Within a turn classes are ordered by hash as well, so that a last, partial turn prefers no class.
    order = sorted(range(len(source)), key=lambda index: (turns[index], hashes[index]))
    return _part(source, torch.tensor(order[:count]))


def _hash(source: ImageSet | FolderSet, index: int, seed: int) -> bytes:
    """SHA-256 of the seed, the label and the content of an image, or its name in a folder."""
    label = int(source.labels[index])
    match source:
        case ImageSet(images=images):
            content = images[index].cpu().numpy().tobytes()
        case FolderSet(paths=paths, classes=classes):
            content = _name(paths[index], classes[label]).encode()
        case _:
            assert_never(source)
    return hashlib.sha256(f"{seed}\0{label}\0".encode() + content).digest()


def _name(path: Path, folder: str) -> str:
    """Path of a file from its class folder on, which is the same wherever the data set lies."""
    parts = path.parts
    last = len(parts) - 1 - parts[::-1].index(folder)  # the last: a folder above may be named as the class
    return "/".join(parts[last:])


def _part(source: ImageSet | FolderSet, indices: Tensor) -> ImageSet | FolderSet:
    match source:
        case ImageSet(images=images, labels=labels):
            return dataclasses.replace(source, images=images[indices], labels=labels[indices])
        case FolderSet(paths=paths, labels=labels):
            files = tuple(paths[index] for index in indices.tolist())
            return dataclasses.replace(source, paths=files, labels=labels[indices])
        case _:
            assert_never(source)


class SampleBatches:
    """Sample of an analysis on its device, in batches that are the parts of a sweep.

    Attributes:
        count: images of the sample. size: images of a batch; the last one may have fewer. parts: number of batches.
    """

    def __init__(
        self, run: Fourier | Occlusion | RgbStatistics, source: ImageSet | FolderSet, session: Session
    ) -> None:
        self._run, self._session = run, session
        self._images = image_sample(source, run.images, run.seed).to(session.device)
        self.count, self.size = len(self._images), test_batch_size(session)
        self.parts = math.ceil(self.count / self.size)

    def part(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Images float32 [B, C, S, S], normalised, their labels int64 [B] and their places in the sample int64 [B]."""
        # Dealt out to as many ranks as there are batches, each rank has one batch: the part of that number.
        batches = test_batches(
            self._images, image_size=self._run.image_size, crop=self._run.crop, batch_size=self.size,
            device=self._session.device, workers=self._session.workers, rank=number, size=self.parts,
        )  # fmt: skip
        images, labels = next(iter(batches))
        return images, labels, number * self.size + torch.arange(len(images), device=images.device)
