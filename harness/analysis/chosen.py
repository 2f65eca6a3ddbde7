"""Which images an analysis looks at: a fixed list that depends on what the images are, never on the order of files."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import assert_never

import torch
from torch import Tensor

from harness.core.data.datasets import FolderSet, ImageSet
from harness.spec import HarnessError


def chosen(source: ImageSet | FolderSet, count: int | None, seed: int) -> ImageSet | FolderSet:
    """`count` images of a set, in an order of their own; all of them, as they lie, for None.

    Classes take turns, so that all of them are there as evenly as can be. The order within a class is that of a hash of
    the seed and the image: of its pixels in memory, of its class and file name in a folder, whose files the data set's
    digest covers.

    Raises:
        HarnessError: there are fewer images.
    """
    if count is None:
        return source
    if count > len(source):
        raise HarnessError(f"images {count} is more than the {len(source)} test images")
    marks = [_mark(source, index, seed) for index in range(len(source))]
    turns = [0] * len(source)
    seen: dict[int, int] = {}
    for index in sorted(range(len(source)), key=marks.__getitem__):
        label = int(source.labels[index])
        turns[index] = seen[label] = seen.get(label, -1) + 1
    order = sorted(range(len(source)), key=lambda index: (turns[index], marks[index]))
    return _part(source, torch.tensor(order[:count]))


def _mark(source: ImageSet | FolderSet, index: int, seed: int) -> bytes:
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
    """The path below the data set's part: from the last folder on that is called as the class is."""
    parts = path.parts
    last = len(parts) - 1 - parts[::-1].index(folder)
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
