"""Common parts of evaluations that train on labels: batches with soft targets, test accuracy, its summary."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Generator, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.core.data.augment import mix
from harness.core.data.batches import Batch, steps_per_epoch, test_batches, training_batches
from harness.core.data.datasets import FolderSet, ImageSet
from harness.core.runtime.precision import autocast
from harness.core.runtime.session import Ready, Session
from harness.spec import FineTune, LinearProbe
from harness.spec.run import Evaluated

TEST_BATCH = 512
"""Images in a test batch, unless the micro-batches that fit the device are smaller."""


def labelled_batches(
    run: FineTune | LinearProbe, images: ImageSet | FolderSet, session: Session, first_step: int
) -> Iterator[Batch]:
    """Training batches with soft targets float32 [B, classes], mixed and smoothed as the recipe says.

    A batch is mixed before it is cut into slices that fit the device; images mixed with each other are in one process.
    """
    recipe = run.recipe
    mixes = recipe.augment.mixes
    for batch in training_batches(
        images,
        recipe.augment,
        image_size=run.image_size,
        batch_size=recipe.batch_size,
        seed=run.seed,
        first_step=first_step,
        steps=recipe.total_steps(steps_per_epoch(images, recipe.batch_size)),
        device=session.device,
        workers=session.workers,
        # Image i is mixed with image B - 1 - i, so a process takes rows that mirror each other.
        rows=session.group.rows(recipe.batch_size, mirrored=mixes),
    ):
        mixed, targets = mix(
            batch.images,
            batch.labels,
            augment=recipe.augment,
            num_classes=images.num_classes,
            seed=run.seed,
            step=int(batch.step),
        )
        yield batch._replace(images=mixed, labels=targets)


def test_batch_size(session: Session) -> int:
    """Number of images in a test batch."""
    return min(TEST_BATCH, session.micro_batch or TEST_BATCH)


def whole_set(run: Evaluated[Any], images: ImageSet | FolderSet, session: Session) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and labels of a whole set with the preparation of testing, normalised, in batches that fit the device.

    With n processes, each gets every n-th batch.
    """
    return test_batches(
        images,
        image_size=run.tested_size,
        crop=run.crop,
        batch_size=test_batch_size(session),
        device=session.device,
        workers=session.workers,
        rank=session.group.rank,
        size=session.group.size,
    )


@torch.no_grad()
def accuracy(
    run: FineTune | LinearProbe,
    test: ImageSet | FolderSet,
    classify: Callable[[Tensor], Tensor],
    session: Session,
) -> Generator[Ready, None, dict[str, float]]:
    """Accuracies top1 and top5 in percent, and the mean cross-entropy, over all test images.

    A part of a recipe (`found = yield from accuracy(...)`), which hands over before the sums are read.

    Args:
        classify: normalised images [B, C, S, S] to logits [B, K].
    """
    # Summed on the device, so that the host waits once and not after every batch.
    sums = torch.zeros(3, dtype=torch.float64, device=session.device)
    for images, labels in whole_set(run, test, session):
        with autocast(run.recipe, session.device):
            logits = classify(images)
        # Out of autocast: sums of half-precision losses would lose digits.
        logits = logits.float()
        sums += sums_of(logits, labels)
    means = session.group.sum(sums) / len(test)
    yield session.mark()
    return accuracies(means)


def sums_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Sums over images, float64 [3]: label ranked first, label among the first five, cross-entropy.

    With five classes or fewer, all are among the first five.

    Args:
        logits: [B, K]. labels: int64 [B].
    """
    ranked = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
    loss = F.cross_entropy(logits, labels, reduction="sum")
    return torch.stack([ranked[:, 0].sum(), ranked.any(dim=1).sum(), loss]).double()


def accuracies(means: Tensor) -> dict[str, float]:
    """Metrics of a test set by name, accuracies in percent; means: `sums_of` all its images, over their number."""
    top1, top5, loss = means.tolist()
    return {"top1": 100 * top1, "top5": 100 * top5, "loss": loss}


def summary(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Metrics of a finished evaluation from its metrics lines: last, median of the last five, and best top1.

    The last one is reported: choosing the best epoch by test accuracy would be selection on the test set.
    """
    measured = [line for line in lines if "test_top1" in line]
    top1 = [line["test_top1"] for line in measured]
    return {
        "top1": top1[-1],
        "top5": measured[-1]["test_top5"],
        "top1_median5": statistics.median(top1[-5:]),
        "top1_best": max(top1),
        "loss": measured[-1]["test_loss"],
    }
