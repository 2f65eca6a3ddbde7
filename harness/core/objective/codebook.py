"""Codebooks learnt from a data set by k-means over colours or patches. Deterministic, independent of a run's seed."""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.core.data.batches import test_batches
from harness.core.data.datasets import FolderSet, ImageSet, load
from harness.core.runtime.randomness import permutation, words
from harness.spec import ClusterTarget, Data, HarnessError, KMeans, PatchWords, seed_stream

ENTRIES = 2**24
"""Distances computed at a time: 128 MiB of float64."""


def colours(values: Tensor, side: int) -> Tensor:
    """Mean colours of squares of `side` pixels: [B, C, S, S] to [B, S / side, S / side, C]."""
    return F.avg_pool2d(values, side).permute(0, 2, 3, 1)


def patches(values: Tensor, side: int) -> Tensor:
    """Patches of `side` pixels, as channel, row, column: [B, C, S, S] to [B, S / side, S / side, C * side * side]."""
    return F.pixel_unshuffle(values, side).permute(0, 2, 3, 1)


def nearest(points: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the nearest entry of each point, the first of equal ones, and the squared Euclidean distance to it.

    Computed in float64, which autocast and TF32 do not affect: at lower precision similar colours would swap.

    Args:
        points: float [..., D]. codebook: float [K, D].

    Returns:
        int64 [...] and float64 [...].
    """
    flat, entries = points.reshape(-1, points.shape[-1]).double(), codebook.double()
    sizes = entries.square().sum(1)
    found, least = [], []
    # In parts of bounded memory. |x|^2 is the same for all entries, so the minimum is found without it.
    for part in torch.split(flat, max(1, ENTRIES // len(entries))):
        distance, index = (sizes - 2 * part @ entries.T).min(1)
        found.append(index)
        # Rounding can leave slightly less than 0 where a point equals its entry.
        least.append((distance + part.square().sum(1)).clamp(min=0))
    return torch.cat(found).view(points.shape[:-1]), torch.cat(least).view(points.shape[:-1])


def kmeans(points: Tensor, count: int, *, iterations: int, seed: int) -> tuple[Tensor, list[float]]:
    """Lloyd's algorithm, started from the first `count` different points in a hashed order.

    A centre without points stays where it is.

    Args:
        points: float64 [N, D], on the CPU.

    Returns:
        Centres float64 [count, D], and after each round the sum of squared distances to the nearest of the centres that
        the round began with; it never rises. Rounds end early once no centre moves.

    Raises:
        HarnessError: fewer than `count` points differ.
    """
    centres, errors = points[_different(points, count, seed)], []
    for _ in range(iterations):
        index, distance = nearest(points, centres)
        errors.append(distance.sum().item())
        sums = torch.zeros_like(centres).index_add_(0, index, points)
        sizes = torch.bincount(index, minlength=count)[:, None]
        moved = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)
        if torch.equal(moved, centres):  # all further rounds would be equal
            break
        centres = moved
    return centres, errors


def _different(points: Tensor, count: int, seed: int) -> list[int]:
    """Indices of the first `count` points, in a hashed order, that differ from each other."""
    rows, found = points.numpy(), dict[bytes, int]()
    for index in permutation(seed, "k-means centres", 0, len(points)).tolist():
        # Equal points would start as equal centres, of which all but the first stay without points.
        found.setdefault(rows[index].tobytes(), index)
        if len(found) == count:
            return list(found.values())
    raise HarnessError(f"k-means is to find {count} centres among {len(found)} different points; ask for fewer")


@lru_cache(maxsize=8)
def learn(book: ClusterTarget | PatchWords, data: Data, image_size: int, side: int) -> Tensor:
    """The codebook of a data set's pre-training images: float32 [K, D], values in [0, 1].

    Do not change it in place: the same tensor is returned for the same arguments within a process.

    Args:
        image_size: side in pixels that the images are scaled to, the centre kept.
        side: pixels that a colour is averaged over, or that a patch has.

    Raises:
        HarnessError: the sample holds too few different colours or patches.
    """
    count = book.clusters if isinstance(book, ClusterTarget) else book.vocabulary
    points = sample(book, data, image_size, side)
    return kmeans(points, count, iterations=book.iterations, seed=book.seed)[0].float()


def sample(book: KMeans, data: Data, image_size: int, side: int) -> Tensor:
    """The colours or patches that a codebook is learnt from, float64 [N, D]; arguments as for `learn`."""
    source = load(data, "pretrain")
    # The book's own seed: runs of all seeds predict the same classes. Sorted, so that files are read in order.
    chosen = permutation(book.seed, "k-means images", 0, len(source))[: book.images].sort().values
    batches = test_batches(
        _subset(source, chosen), image_size=image_size, crop=1.0, batch_size=64, device=torch.device("cpu"), workers=0
    )
    cut = colours if isinstance(book, ClusterTarget) else patches
    stream = seed_stream(book.seed, "k-means places")
    mean, std = (torch.tensor(values)[:, None, None] for values in (source.mean, source.std))
    found = []
    for numbers, (images, _) in zip(torch.split(chosen, 64), batches, strict=True):
        vectors = cut(raw(images, mean, std), side).flatten(1, 2)
        # Keyed by the number of the image in the set: the sample does not depend on the order of reading.
        order = words(stream, 0, numbers, vectors.shape[1]).argsort(dim=1, stable=True)[:, : book.per_image]
        found.append(vectors.gather(1, order[..., None].expand(-1, -1, vectors.shape[2])).flatten(0, 1))
    return torch.cat(found).double()


def raw(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Pixel values in [0, 1] of normalised images [B, C, H, W]; values that augmentation moved outside are clipped.

    Args:
        mean, std: float32 [C, 1, 1].
    """
    return (images.float() * std + mean).clamp(0, 1)


def _subset(source: ImageSet | FolderSet, chosen: Tensor) -> ImageSet | FolderSet:
    labels = source.labels[chosen]
    if isinstance(source, ImageSet):
        return dataclasses.replace(source, images=source.images[chosen], labels=labels)
    return dataclasses.replace(source, paths=tuple(source.paths[index] for index in chosen.tolist()), labels=labels)
