"""AvgDist against brute force, against masks that can all be gone through, and against values computed separately."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.analysis.difficulty import Average, difficulty, exact_average_distance, mask_distance
from harness.core.masks.masking import make_mask, spread
from harness.core.runtime.custom import load_function
from harness.spec import BlockMask, CustomMask, HarnessError, Mask, RandomMask, SquareMask


def average_distance(mask: Mask, image_size: int, *, draws: int, seed: int = 0) -> Average:
    return difficulty(mask, image_size, mask.size, draws=draws, seed=seed).avgdist


def brute_force(hidden: np.ndarray) -> float:
    """The definition, pixel by pixel."""
    pixels = list(product(range(len(hidden)), repeat=2))
    visible = [place for place in pixels if not hidden[place]]
    return float(np.mean([min(math.dist(place, other) for other in visible) for place in pixels if hidden[place]]))


def test_by_hand() -> None:
    hidden = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 0]], dtype=bool)
    # Distances from the last corner: 2 sqrt 2, sqrt 5, 2 / sqrt 5, sqrt 2, 1 / 2, 1
    by_hand = (2 * math.sqrt(2) + 2 * math.sqrt(5) + 2 * 2 + math.sqrt(2) + 2 * 1) / 8
    assert mask_distance(hidden) == pytest.approx(by_hand, rel=1e-12)
    assert brute_force(hidden) == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_by_brute_force(share: float) -> None:
    noise = torch.rand(20, 9, 9, generator=torch.Generator().manual_seed(0))
    for hidden in (noise < share).numpy():
        assert mask_distance(hidden) == pytest.approx(brute_force(hidden), rel=1e-12)


def test_average_and_spread_are_over_masks_not_over_pixels() -> None:
    mask = BlockMask(size=2, ratio=0.8, count="beit")
    units = make_mask(mask, image_size=12, seed=4, step=0, steps=1, positions=torch.arange(300))
    assert len(set(units.flatten(1).sum(1).tolist())) > 1
    each = [brute_force(pixels) for pixels in spread(units, 12).numpy()[:300]]
    found = average_distance(mask, 12, draws=300, seed=4)
    assert found.mean == pytest.approx(np.mean(each), rel=1e-9)
    assert found.error == pytest.approx(np.std(each, ddof=1) / math.sqrt(300), rel=1e-9)
    assert average_distance(mask, 12, draws=300, seed=5).mean != found.mean


# All places of a square, all combinations of units: exact, computed separately, in pixels of 192.
@pytest.mark.parametrize(
    ("mask", "value"),
    [
        (SquareMask(size=32, ratio=0.11), 14.157),
        (SquareMask(size=32, ratio=0.25), 22.502),
        (SquareMask(size=32, ratio=0.44), 33.687),
        (RandomMask(size=64, ratio=0.1), 17.095),
        (RandomMask(size=64, ratio=0.2), 19.465),
    ],
)
def test_exact_distances_of_table_1_and_draws_agree(mask: SquareMask | RandomMask, value: float) -> None:
    exact = exact_average_distance(mask, 192)
    assert exact == pytest.approx(value, abs=6e-4)
    found = average_distance(mask, 192, draws=300)
    assert abs(found.mean - value) < 4 * found.error


# (unit, ratio) -> mean and sd over 2,000 masks, computed separately with scipy and the released generator's masks.
RANDOM = {
    (4, 0.4): (1.63, 0.02),
    (8, 0.4): (2.76, 0.09),
    (16, 0.4): (5.21, 0.36),
    (4, 0.6): (2.08, 0.03),
    (8, 0.6): (3.70, 0.14),
    (16, 0.6): (7.27, 0.62),
    (4, 0.8): (3.25, 0.07),
    (8, 0.8): (6.10, 0.28),
    (16, 0.8): (12.49, 1.33),
    (32, 0.1): (7.70, 1.29),
    (32, 0.2): (8.69, 1.32),
    (32, 0.3): (9.60, 1.51),
    (32, 0.4): (11.05, 1.67),
    (32, 0.5): (12.55, 1.94),
    (32, 0.6): (15.46, 2.75),
    (32, 0.7): (20.05, 3.56),
    (32, 0.8): (26.25, 5.15),
    (32, 0.9): (46.22, 9.43),
}


@pytest.mark.parametrize(("size", "ratio"), RANDOM)
def test_random_masks_of_table_1(size: int, ratio: float) -> None:
    mean, sd = RANDOM[size, ratio]
    mask = RandomMask(size=size, ratio=ratio)
    found = average_distance(mask, 192, draws=200)
    assert abs(found.mean - mean) < 4 * math.hypot(found.error, sd / math.sqrt(2000)) + 0.005  # printed to 0.01
    assert exact_average_distance(mask, 192) is None


@pytest.mark.parametrize("size", [16, 32])
def test_block_wise_masks_lie_between_random_ones_and_squares(size: int) -> None:
    block = average_distance(BlockMask(size=size, ratio=0.4), 192, draws=200).mean
    assert average_distance(RandomMask(size=size, ratio=0.4), 192, draws=200).mean + 5 < block
    assert block < exact_average_distance(SquareMask(size=size, ratio=0.4), 192) - 5  # type: ignore[operator]
    assert exact_average_distance(BlockMask(size=size, ratio=0.4), 192) is None


CUSTOM = """
import torch

def left(random, grid, step, steps, *, columns):
    hidden = torch.zeros(len(random(1)), *grid, dtype=torch.bool)
    hidden[:, :, :columns] = True
    return hidden
"""


def test_a_mask_of_a_user_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_stripes.py").write_text(CUSTOM)
    monkeypatch.syspath_prepend(tmp_path)
    load_function.cache_clear()
    mask = CustomMask(function="own_stripes:left", size=8, params={"columns": 2})
    found = average_distance(mask, 32, draws=3)
    assert (found.mean, found.error) == (8.5, 0.0)  # columns 16, 15, ... 1 pixels away
    assert exact_average_distance(mask, 32) is None
    assert math.isnan(average_distance(mask, 32, draws=1).error)
    for columns, message in ((0, "none of 3 masks hides any"), (4, "hides all of the image")):
        with pytest.raises(HarnessError, match=message):
            average_distance(mask.replace(params={"columns": columns}), 32, draws=3)


def test_masks_that_hide_nothing_are_left_out() -> None:
    mask = BlockMask(size=2, ratio=0.7, count="beit", min_block=0.6)
    units = make_mask(mask, image_size=12, seed=4, step=0, steps=1, positions=torch.arange(300))
    kept = [pixels for pixels in spread(units, 12).numpy() if pixels.any()]
    assert 0 < len(kept) < 300
    found = difficulty(mask, 12, mask.size, draws=300, seed=4)
    assert found.draws == len(kept)
    assert found.avgdist.mean == pytest.approx(np.mean([mask_distance(one) for one in kept]))
