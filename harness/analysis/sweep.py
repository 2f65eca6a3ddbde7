"""Parts of every analysis: a sample of test images, random orders, and a loop over parts of the work.

The sample depends on the content of the images, not on the order of files. The loop reports progress, saves
checkpoints and divides the work among processes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import torch
from torch import Tensor

from harness.core.data.batches import test_batches
from harness.core.data.datasets import FolderSet, ImageSet
from harness.core.evaluate.labelled import test_batch_size
from harness.core.runtime.randomness import words
from harness.core.runtime.session import Session
from harness.core.train.training import Pace
from harness.core.weights.checkpoint import latest_state, write_state
from harness.spec import Fourier, HarnessError, Occlusion, RgbStatistics

FILE = "analysis.npz"
"""The artefact that reports read."""


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


def random_orders(stream: int, step: int, positions: Tensor, length: int) -> Tensor:
    """Random permutations int64 [B, length]; row i depends on stream, step and positions[i] alone."""
    # Two 32-bit words make a key of 63 bits, so that ties, which would prefer early places, do not occur.
    high, low = words(stream, step, positions, 2 * length).chunk(2, dim=1)
    return ((high << 31) | (low >> 1)).argsort(dim=1, stable=True)


def sweep(
    session: Session,
    *,
    parts: int,
    found: dict[str, Tensor],
    compute: Callable[[int], None],
    images: int = 1,
    part_size: int = 1,
) -> float:
    """Fill arrays part by part, from the latest checkpoint on if there is one.

    Of n processes each computes every n-th part; at the end all processes have all parts.

    Args:
        found: arrays [parts, ...] of zeros on the CPU. compute: fills row `part` of each array.
        images: number of images that pass through the model in a part, for the shown speed.
        part_size: images of the sample in a part; a checkpoint of parts of another size is not gone on from.

    Returns:
        Seconds spent, over all attempts.

    Raises:
        Interrupted: the executor asked to stop; finished parts are saved.
    """
    group = session.group
    done, spent = _restored(session, found, part_size)
    # A checkpoint holds the sum over all ranks. Only rank 0 keeps it, or the next sum would count it once a rank.
    if group.rank:
        for array in found.values():
            array.zero_()
    begun, first = time.monotonic(), done

    def save() -> None:
        # A copy: the rank's own rows must not become the sum while the sweep goes on.
        whole = {name: group.sum(array.clone()) for name, array in found.items()}
        state = {"done": done, "seconds": spent + time.monotonic() - begun, "part_size": part_size, "found": whole}
        write_state(session, done, state)

    pace = Pace(session, save)
    while done < parts:
        if done + group.rank < parts:
            compute(done + group.rank)
        done = min(done + group.size, parts)
        seconds = time.monotonic() - begun
        line = {"step": done, "steps": parts, "images_per_second": (done - first) * images / max(seconds, 1e-9)}
        line["seconds"] = spent + seconds
        session.attempt.log(line)
        session.report(line)
        pace.after(done, parts, at_end=False)
    for array in found.values():
        group.sum(array)
    return spent + time.monotonic() - begun


def write_arrays(session: Session, **arrays: Any) -> None:
    """Write analysis.npz for reports: arrays of numbers or text by name, without pickles."""
    np.savez_compressed(session.attempt.artefact(FILE), allow_pickle=False, **arrays)


def _restored(session: Session, found: dict[str, Tensor], part_size: int) -> tuple[int, float]:
    """Fill finished rows from the latest checkpoint; returns the number of parts and the seconds they took."""
    state = latest_state(session, torch.device("cpu"))
    if state is None or state.get("part_size") != part_size:
        return 0, 0.0
    for name, array in found.items():
        array.copy_(state["found"][name])
    return int(state["done"]), float(state["seconds"])
