"""Masks: counts, polarity, independence of the batch, uniformity; a user's own function."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

from harness.core.masks.masking import make_mask, spread
from harness.core.runtime.custom import load_function
from harness.spec import CustomMask, HarnessError, RandomMask


def masks(
    ratio: float, size: int = 32, image: int = 192, step: int = 0, seed: int = 0, first: int = 0, n: int = 8
) -> torch.Tensor:
    positions = torch.arange(first, first + n)
    mask = RandomMask(size=size, ratio=ratio)
    return make_mask(mask, image_size=image, seed=seed, step=step, steps=10, positions=positions)


@pytest.mark.parametrize(
    ("ratio", "hidden"),
    # SimMIM Table 1 at 192 px with units of 32 px, as the released generator's ceil gives them
    [(0.1, 4), (0.2, 8), (0.3, 11), (0.4, 15), (0.5, 18), (0.6, 22), (0.7, 26), (0.8, 29), (0.9, 33)],
)
def test_random_mask_hides_the_released_count(ratio: float, hidden: int) -> None:
    assert masks(ratio).flatten(1).sum(1).tolist() == [hidden] * 8


def test_vit_at_224_hides_30_of_49() -> None:
    found = masks(0.6, image=224)
    assert found.shape == (8, 7, 7)
    assert found.flatten(1).sum(1).tolist() == [30] * 8


def test_masks_differ_between_rows_steps_and_seeds() -> None:
    found = masks(0.5, n=64)
    assert len({tuple(row.flatten().tolist()) for row in found}) == 64
    assert not torch.equal(found, masks(0.5, n=64, step=1))
    assert not torch.equal(found, masks(0.5, n=64, seed=1))
    assert torch.equal(found, masks(0.5, n=64))


def test_every_unit_is_hidden_equally_often() -> None:
    draws = 20_000
    counts = masks(0.6, n=draws).flatten(1).sum(0).double()
    p = 22 / 36
    z = (counts - draws * p) / math.sqrt(draws * p * (1 - p))
    assert z.abs().max() < 4.5


def test_pairs_of_units_are_independent_but_for_the_fixed_count() -> None:
    draws, n, k = 40_000, 36, 18
    found = masks(0.5, n=draws).flatten(1).double()
    together = (found.T @ found) / draws
    expected = k * (k - 1) / (n * (n - 1))
    off = together[~torch.eye(n, dtype=torch.bool)]
    deviation = math.sqrt(expected * (1 - expected) / draws)
    assert (off - expected).abs().max() < 5 * deviation


def test_spread_repeats_units() -> None:
    units = torch.tensor([[[True, False], [False, True]]])
    wanted = torch.tensor([[[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]]).bool()
    assert torch.equal(spread(units, 4), wanted)


CUSTOM = """
import torch

def left(random, grid, step, steps, *, columns):
    rows, width = grid
    hidden = torch.zeros(len(random(1)), rows, width, dtype=torch.bool)
    hidden[:, :, :columns] = True
    return hidden

def noise(random, grid, step, steps):
    first, second = random(*grid), random(*grid)
    assert not torch.equal(first, second)
    return first < 0.5

def wrong(random, grid, step, steps):
    return torch.zeros(1, *grid)

def growing(random, grid, step, steps):
    share = torch.where(step > steps // 2, 0.9, step / 10)
    return random(*grid) < share
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_masks.py").write_text(CUSTOM)
    monkeypatch.syspath_prepend(tmp_path)
    load_function.cache_clear()
    monkeypatch.delitem(sys.modules, "own_masks", raising=False)
    return "own_masks"


def test_own_mask(module: str) -> None:
    mask = CustomMask(function=f"{module}:left", size=8, params={"columns": 1})
    found = make_mask(mask, image_size=32, seed=0, step=0, steps=1, positions=torch.arange(3))
    assert found.shape == (3, 4, 4)
    assert found[:, :, 0].all()
    assert not found[:, :, 1:].any()


def test_own_random_mask_is_stateless(module: str) -> None:
    mask = CustomMask(function=f"{module}:noise", size=8)
    whole = make_mask(mask, image_size=32, seed=0, step=3, steps=9, positions=torch.arange(6))
    part = make_mask(mask, image_size=32, seed=0, step=3, steps=9, positions=torch.arange(2, 5))
    assert torch.equal(whole[2:5], part)


def test_own_mask_of_many_steps_is_each_step_s_own(module: str) -> None:
    """The function sees the step of each row, as a tensor that broadcasts over the grid."""
    mask, values = CustomMask(function=f"{module}:growing", size=8), {"image_size": 32, "seed": 1, "steps": 8}
    steps, positions = torch.tensor([1, 1, 4, 4, 5, 5]), torch.tensor([2, 9, 2, 9, 2, 9])
    whole = make_mask(mask, step=steps, positions=positions, **values)  # type: ignore[arg-type]
    each = [make_mask(mask, step=step, positions=positions[:2], **values) for step in (1, 4, 5)]  # type: ignore[arg-type]
    assert torch.equal(whole, torch.cat(each))
    assert torch.equal(make_mask(mask, step=steps[2], positions=positions[:2], **values), each[1])  # type: ignore[arg-type]


def test_own_mask_of_another_shape_is_refused(module: str) -> None:
    mask = CustomMask(function=f"{module}:wrong", size=8)
    with pytest.raises(
        HarnessError, match=r"own_masks:wrong should return a bool tensor \[2, 4, 4\], not torch.float32"
    ):
        make_mask(mask, image_size=32, seed=0, step=0, steps=1, positions=torch.arange(2))


def test_own_mask_with_other_parameters_is_refused(module: str) -> None:
    mask = CustomMask(function=f"{module}:left", size=8, params={"colums": 1})
    with pytest.raises(HarnessError, match=r"own_masks:left: .*colums"):
        make_mask(mask, image_size=32, seed=0, step=0, steps=1, positions=torch.arange(2))


def test_changed_source_is_refused(module: str, tmp_path: Path) -> None:
    mask = CustomMask(function=f"{module}:left", size=16, params={"columns": 1})
    (tmp_path / "own_masks.py").write_text(CUSTOM + "\n# changed\n")
    with pytest.raises(HarnessError, match="changed since this run was planned"):
        make_mask(mask, image_size=32, seed=0, step=0, steps=1, positions=torch.arange(2))
    again = CustomMask(function=f"{module}:left", size=16, params={"columns": 1})
    assert again.digest != mask.digest
