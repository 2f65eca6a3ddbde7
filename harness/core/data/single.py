"""Random crop and flip of a single image: the same words, box and flip as `augment` draws for a batch, without tensors.

An image from a file is prepared alone, and 170 operators on tensors of one row cost more than resizing it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from harness.core.data.augment import CROP_TRIES, central_box
from harness.core.runtime.randomness import stream_of, words_of_one
from harness.spec import Augment


def _uniform(stream: int, step: int, position: int, count: int) -> NDArray[np.float32]:
    return (words_of_one(stream, step, position, count) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def crop_box(
    height: int, width: int, augment: Augment, *, seed: int, step: int, position: int
) -> tuple[int, int, int, int]:
    """Box of a random resized crop: top, left, height, width in pixels; a row of `augment.crop_boxes`, to the bit.

    Args:
        height, width: of the image, in pixels.
        position: place in the global batch.
    """
    if augment.crop_scale == (1.0, 1.0):
        return 0, 0, height, width
    drawn = _uniform(stream_of(seed, "crop"), step, position, 4 * CROP_TRIES).reshape(CROP_TRIES, 4)
    low, high = augment.crop_scale
    area = np.float32(height * width) * (np.float32(low) + np.float32(high - low) * drawn[:, 0])
    low, high = (math.log(ratio) for ratio in augment.crop_ratio)
    # The one operation whose last bit libraries disagree on, so it is torch's.
    aspect = torch.from_numpy(np.float32(low) + np.float32(high - low) * drawn[:, 1]).exp().numpy()
    wide, tall = np.rint(np.sqrt(area * aspect)).tolist(), np.rint(np.sqrt(area / aspect)).tolist()
    for across, down, (_, _, vertical, horizontal) in zip(wide, tall, drawn, strict=True):
        if 0 < across <= width and 0 < down <= height:
            top = int(vertical * np.float32(height - int(down) + 1))
            left = int(horizontal * np.float32(width - int(across) + 1))
            return top, left, int(down), int(across)
    return central_box(height, width, augment.crop_ratio)


def is_flipped(augment: Augment, *, seed: int, step: int, position: int) -> bool:
    """True if the image is mirrored left to right; an element of `augment.flips`."""
    return bool(_uniform(stream_of(seed, "flip"), step, position, 1)[0] < np.float32(augment.flip))
