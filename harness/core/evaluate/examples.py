"""Test pictures with truth and prediction, stored as an artefact so that reports need no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from harness.core.runtime.session import Session

EXAMPLES = 4
"""Test pictures that are shown: the first ones, the same for all runs on a data set."""
FILE = "examples.npz"


def save_examples(session: Session, names: Sequence[str], shown: Sequence[Mapping[str, Tensor]]) -> None:
    """Write examples.npz: `names` of the classes, and of picture n what `shown` has of it, as `<name>_<n>`.

    Of each there is `picture` uint8 [H, W, C]. A segmentation has `truth` and `predicted`, uint8 [H, W], 255 = none. A
    detection has `truth_classes` [m], `truth_boxes` [m, 4], `truth_masks` [m, H, W], `predicted_classes`,
    `predicted_boxes`, `predicted_scores` [n] and, if it predicts them, `predicted_masks`.
    """
    arrays: dict[str, Any] = {"names": np.array(names, dtype=np.str_)}
    for number, one in enumerate(shown):
        arrays |= {f"{name}_{number}": tensor.cpu().numpy() for name, tensor in one.items()}
    np.savez_compressed(session.attempt.artefact(FILE), **arrays)
