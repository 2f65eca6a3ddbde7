"""The difficulty of masks against brute force, and against values computed separately for the masks of many papers."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve

from harness.analysis.difficulty import Average, Difficulty, difficulty, measured, visible_neighbours
from harness.papers import compared_masks
from harness.spec import BlockMask, FrequencyMask, GuidedMask, HardMask, HarnessError, RandomMask


class Row(NamedTuple):
    """Ratio and isolated share in per cent, AvgDist in pixels of 224, visible neighbours, distinct masks of 400.

    digits: how many of the last three are printed after the point.
    """

    ratio: float
    avgdist: float
    visible: float
    isolated: float
    distinct: int
    digits: tuple[int, int, int] = (2, 2, 1)


# 224 px in patches of 16, 400 draws each: computed separately, by other code.
TABLE = {
    "checkerboard 1": Row(50.00, 3.40, 3.71, 0.0, 1),
    "checkerboard 1, random phase": Row(50.00, 3.40, 3.71, 0.0, 2),
    "checkerboard 2, phase 0": Row(48.98, 6.51, 1.75, 0.0, 1),
    "checkerboard 2, phase 1": Row(51.02, 7.12, 1.68, 4.0, 1),
    "checkerboard 4": Row(48.98, 12.50, 0.88, 31.2, 1),
    "checkerboard 7": Row(50.00, 37.83, 0.29, 73.5, 1),
    "grid": Row(75.00, 5.95, 1.24, 33.3, 1),
    "tokens 0.5": Row(50.00, 5.95, 1.87, 7.7, 400),
    "tokens 0.6": Row(60.20, 7.10, 1.49, 15.2, 400),
    "uniform": Row(75.00, 7.48, 1.10, 20.6, 400),
    "tokens 0.75": Row(75.00, 10.19, 0.93, 34.1, 400),
    "double units 0.5": Row(51.02, 12.5, 0.86, 32, 400, (1, 2, 0)),
    "double units 0.6": Row(61.22, 15.2, 0.68, 44, 400, (1, 2, 0)),
    "BEiT 75": Row(38.0, 20.2, 0.54, 55, 400, (1, 2, 0)),
    "BEiT 98": Row(49.7, 23.9, 0.44, 63, 400, (1, 2, 0)),
    "BEiT 147": Row(74.6, 35.5, 0.26, 77, 400, (1, 2, 0)),
    "BootMAE 120": Row(61.01, 25.37, 0.38, 67.3, 400),
    "central square": Row(51.02, 27.17, 0.40, 64.0, 1),
    "visible square": Row(75.00, 45.16, 0.18, 82.4, 49),
    "green": Row(75.00, 10.8, 0.85, 37, 400, (1, 2, 0)),
    "blue": Row(75.00, 9.0, 1.01, 29, 400, (1, 2, 0)),
    "purple": Row(75.00, 9.9, 1.03, 33, 400, (1, 2, 0)),
    "red": Row(75.00, 38.0, 0.26, 80, 400, (1, 2, 0)),
}


def agrees(found: Average, printed: float, digits: int, scale: float = 1.0) -> bool:
    """Within 3.5 standard errors of the difference of two such means, and the rounding of the printed one."""
    return abs(found.mean * scale - printed) <= 3.5 * math.sqrt(2) * found.error * scale + 0.5001 * 10.0**-digits


@pytest.mark.parametrize("draws", [40, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", TABLE)
def test_masks_are_as_difficult_as_computed_separately(name: str, draws: int) -> None:
    row, found = TABLE[name], difficulty(compared_masks()[name], 224, 16, draws=draws)
    assert agrees(found.ratio, row.ratio, 2 if name not in ("BEiT 75", "BEiT 98", "BEiT 147") else 1, 100)
    assert agrees(found.avgdist, row.avgdist, row.digits[0])
    assert agrees(found.visible, row.visible, row.digits[1])
    assert agrees(found.isolated, row.isolated, row.digits[2], 100)
    assert found.draws == draws
    if draws == 400 or row.distinct in (1, 2, 400):  # else the fewer draws need not bring all
        assert found.distinct == min(row.distinct, draws)


def test_every_compared_mask_has_a_difficulty() -> None:
    for name, mask in compared_masks(patch=2).items():
        mask.check(28)
        found = difficulty(mask, 28, 2, draws=8)
        assert 0.1 < found.ratio.mean < 0.95, name
        assert 0 <= found.visible.mean <= 4


def test_neighbours_against_a_convolution() -> None:
    hidden = torch.rand(30, 7, 9, generator=torch.Generator().manual_seed(0)) < 0.6
    cross = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    for mask, found in zip(hidden.numpy(), visible_neighbours(hidden).numpy(), strict=True):
        assert (found == convolve((~mask).astype(int), cross, mode="constant", cval=0)).all()


def test_by_hand() -> None:
    """Two masks of 3 x 3: the first row hidden, and all but the centre."""
    hidden = torch.zeros(3, 3, 3, dtype=torch.bool)
    hidden[0, 0], hidden[1] = True, True
    hidden[1, 1, 1] = False
    hidden[2] = hidden[0]
    found = measured(hidden, 2)
    assert found.ratio.mean == pytest.approx((3 + 8 + 3) / 27)
    # Hidden rows 0 and 1 are 2 and 1 px away. Around the centre: 4 sides of 2 x 2 px at 1, 2 and 4 corners.
    side, corner = 1.5, (math.sqrt(2) + 2 * math.sqrt(5) + math.sqrt(8)) / 4
    assert found.avgdist.mean == pytest.approx((1.5 + (side + corner) / 2 + 1.5) / 3)
    assert found.visible.mean == pytest.approx((1 + 4 / 8 + 1) / 3)
    assert found.isolated.mean == pytest.approx((0 + 4 / 8 + 0) / 3)
    assert (found.distinct, found.draws) == (2, 3)
    assert isinstance(found, Difficulty)
    assert math.isnan(measured(hidden[:1], 2).visible.error)


def test_neighbours_are_patches_not_units() -> None:
    mask = RandomMask(size=16, ratio=0.5)
    units, patches = difficulty(mask, 64, 16, draws=50), difficulty(mask, 64, 8, draws=50)
    assert units.avgdist == patches.avgdist
    assert patches.visible.mean < units.visible.mean


def test_masks_that_hide_nothing_count_for_the_ratio_alone() -> None:
    mask = BlockMask(size=2, ratio=0.7, count="beit", min_block=0.6)
    found = difficulty(mask, 12, 2, draws=300, seed=4)
    assert 0 < found.draws < 300
    assert found.ratio.mean < 0.7 * found.draws / 300 + 0.1


def test_refusals() -> None:
    for mask in (GuidedMask(size=16, ratio=0.5), HardMask(size=16), FrequencyMask()):
        with pytest.raises(HarnessError, match="hides no places that are known without the image"):
            difficulty(mask, 64, mask.size, draws=2)
    with pytest.raises(HarnessError, match="3 px does not divide"):
        difficulty(RandomMask(size=16, ratio=0.5), 64, 3, draws=2)
    with pytest.raises(HarnessError, match="none of 2 masks"):
        measured(torch.zeros(2, 3, 3, dtype=torch.bool), 2)
