"""Scores of segmentation by hand, and against torchmetrics."""

from __future__ import annotations

import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from harness.core.evaluate.confusion import Confusion
from harness.spec import HarnessError

CPU = torch.device("cpu")


def scores(classes: int, *maps: tuple[torch.Tensor, torch.Tensor]) -> dict[str, float]:
    confusion = Confusion(classes, CPU)
    for truth, predicted in maps:
        confusion.add(truth, predicted)
    return confusion.scores()


def test_by_hand() -> None:
    """One pixel is ignored; class 3 is nowhere; class 4 is predicted and absent, and so counts 0."""
    truth = torch.tensor([[0, 0, 0, 0], [0, 1, 1, 0], [2, 1, 1, 0], [2, 2, 0, 255]])
    found = torch.tensor([[0, 0, 0, 0], [0, 1, 1, 0], [2, 2, 1, 4], [2, 0, 0, 1]])
    wanted = {
        # Class 0: 7 of 8, and one pixel of class 2 besides; 1: 3 of 4; 2: 2 of 3, and one of class 1; 4: one of 0.
        "miou": 100 * (7 / 9 + 3 / 4 + 2 / 4 + 0) / 4,
        "macc": 100 * (7 / 8 + 3 / 4 + 2 / 3) / 3,
        "aacc": 100 * 12 / 15,
        # All 15 called 0: 8 of 15 for it, 0 for the two others.
        "miou_one_class": 100 * (8 / 15) / 3,
    }
    assert scores(5, (truth, found)) == pytest.approx(wanted)
    rows = [(truth[row], found[row]) for row in range(4)]
    assert scores(5, *rows) == pytest.approx(wanted), "over the whole set, not a mean over pictures"


def test_against_torchmetrics_on_200_random_cases() -> None:
    random = torch.Generator().manual_seed(0)
    for _ in range(200):
        classes = int(torch.randint(2, 8, (), generator=random))
        truth, found = (torch.randint(0, classes, (3, 6, 7), generator=random) for _ in range(2))
        few = torch.randint(1, classes + 1, (), generator=random)  # so that some classes are absent, or never predicted
        truth, found = truth.clamp(max=few - 1), found.clamp(min=classes // 3)
        truth[torch.rand(truth.shape, generator=random) < 0.2] = 255
        ours = scores(classes, (truth[:2], found[:2]), (truth[2:], found[2:]))
        theirs = MulticlassJaccardIndex(classes, ignore_index=255)(found, truth)
        assert ours["miou"] == pytest.approx(100 * theirs.item(), rel=1e-5)
        pixels = MulticlassAccuracy(classes, average="micro", ignore_index=255)(found, truth)
        assert ours["aacc"] == pytest.approx(100 * pixels.item(), rel=1e-5)


def test_a_set_without_a_known_pixel_is_refused() -> None:
    with pytest.raises(HarnessError, match="no pixel of the test pictures has a known class"):
        scores(3, (torch.full((2, 2), 255), torch.zeros(2, 2, dtype=torch.int64)))
