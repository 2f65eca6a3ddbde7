"""Scores of semantic segmentation from one confusion matrix over all pixels of a set."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.core.data.scene_crops import IGNORED
from harness.spec import HarnessError


class Confusion:
    """Counts of pixels by true and predicted class.

    Attributes:
        counts: int64 [K, K], row = true class, column = predicted class.
    """

    def __init__(self, classes: int, device: torch.device) -> None:
        self.counts = torch.zeros(classes, classes, dtype=torch.int64, device=device)

    def add(self, truth: Tensor, predicted: Tensor) -> None:
        """Count pixels: int64 of one shape each; pixels whose truth is IGNORED are left out."""
        known = truth != IGNORED
        # No bincount, which waits for the device to know the largest value.
        places = torch.where(known, truth * len(self.counts) + predicted, 0)
        self.counts.view(-1).scatter_add_(0, places.flatten(), known.flatten().long())

    def scores(self) -> dict[str, float]:
        """miou, macc, aacc and miou_one_class in percent; see `harness.spec.Segment`.

        A class that is in neither truth nor predictions is left out; one that is predicted alone counts 0.

        Raises:
            HarnessError: no pixel has a known class.
        """
        counts = self.counts.double()
        right, true, said = counts.diagonal(), counts.sum(1), counts.sum(0)
        if not (total := true.sum()):
            raise HarnessError("no pixel of the test pictures has a known class")
        union, there = true + said - right, true > 0
        # Who says the most frequent class everywhere has its share of the pixels as IoU, and 0 for all other classes.
        found = {
            "miou": (right / union)[union > 0].mean(),
            "macc": (right / true)[there].mean(),
            "aacc": right.sum() / total,
            "miou_one_class": true.max() / total / there.sum(),
        }
        return {name: 100 * value.item() for name, value in found.items()}
