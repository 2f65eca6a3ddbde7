"""What a prediction target costs in memory."""

from __future__ import annotations

from harness.spec.run import Pretrain
from harness.spec.targets import target_channels, target_classes, target_maps

FLOAT, INDEX = 4, 8
"""Bytes of a float32 and of an int64."""


def target_memory(run: Pretrain) -> int:
    """Bytes that the prediction, its gradient and the target of one whole batch take at the same time.

    batch * (image_size / downsample)^2 * (2 * 4 * K + b * M): K channels of the prediction, float32 as the loss has it,
    twice for the gradient; M maps of the target, with b = 4 bytes a value to regress or 8 bytes a class index. It is a
    floor, not the peak: the encoder, the head's inner layers, a teacher and what the loss keeps besides are left out.
    """
    channels = run.data.channels
    places = run.recipe.batch_size * (run.image_size // run.target.downsample) ** 2
    entry = FLOAT if target_classes(run.target) is None else INDEX
    return places * (2 * FLOAT * target_channels(run.target, channels) + entry * target_maps(run.target, channels))
