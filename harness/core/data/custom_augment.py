"""Augmentation by a user's own function, behind crop and flip."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.core.data.augment import normalise
from harness.core.data.datasets import FolderSet, ImageSet
from harness.core.runtime.custom import call, load_function, random_source, steps_of
from harness.spec import CustomAugment, HarnessError


def custom_augment(
    augment: CustomAugment,
    images: Tensor,
    source: ImageSet | FolderSet,
    *,
    seed: int,
    step: int | Tensor,
    steps: int,
    positions: Tensor,
) -> Tensor:
    """Normalised images of a user's function.

    Args:
        images: float32 [B, C, S, S], normalised with the mean and deviation of `source`.
        step: one for all images, or int64 [B]. positions: int64 [B], places in the global batch.

    Returns:
        float32 [B, C, S, S], normalised.

    Raises:
        HarnessError: the function returns another shape, dtype or device.
    """
    mean, std = (torch.tensor(numbers, device=images.device).view(-1, 1, 1) for numbers in (source.mean, source.std))
    values = (images * std + mean).clamp(0, 1)  # rounding aside, the values that were normalised
    random = random_source(seed, "augment", step, positions)
    function = load_function(augment.function, augment.source)
    made = call(function, augment.function, values, random, steps_of(step, positions, 4), steps, **dict(augment.params))
    wanted = f"{images.dtype} {list(images.shape)} on {images.device}"
    found = f"{made.dtype} {list(made.shape)} on {made.device}" if isinstance(made, Tensor) else type(made).__name__
    if not isinstance(made, Tensor) or found != wanted:
        raise HarnessError(f"{augment.function} should return images {wanted}, not {found}")
    return normalise(made, source.mean, source.std)
