"""Every shipped mask over 100,000 draws: counts, places, and what a mask must not depend on. Seeds are fixed."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from scipy import stats

from harness.core.masks.masking import make_mask, spread
from harness.papers import paper_table
from harness.spec import Backbone, BlockMask, Mask, Pretrain, RandomMask, Recipe, Shapes, SquareMask
from harness.testing import check_mask

DRAWS = 100_000
MASKS: dict[str, Mask] = {
    "random": RandomMask(size=32, ratio=0.6),
    "square": SquareMask(size=32, ratio=0.25),
    "block-wise": BlockMask(size=32, ratio=0.4),
    "block-wise, BEiT's count": BlockMask(size=32, ratio=0.4, count="beit"),
}
each_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)


def drawn(
    mask: Mask, positions: torch.Tensor | None = None, *, n: int = DRAWS, seed: int = 0, step: int = 0
) -> torch.Tensor:
    """Masks at 192 px: 6 x 6 units of 32 px."""
    places = torch.arange(n) if positions is None else positions
    return make_mask(mask, image_size=192, seed=seed, step=step, steps=9, positions=places)


@cache
def many(mask: Mask, n: int = DRAWS) -> torch.Tensor:
    """The first n masks, drawn in parts that fit the processor's cache."""
    return torch.cat([drawn(mask, torch.arange(first, first + 2000)) for first in range(0, n, 2000)])


@each_mask
def test_counts(mask: Mask) -> None:
    counts = many(mask).flatten(1).sum(1)
    wanted = {"random": 22, "square": 9, "block": 15}[mask.kind]
    assert int(counts.max()) == wanted
    assert (int(counts.min()) < wanted) is (isinstance(mask, BlockMask) and mask.count == "beit")


def test_every_unit_is_hidden_equally_often_by_random_masks() -> None:
    counts = many(MASKS["random"]).flatten(1).sum(0).double()
    n, k = 36, 22
    expected = DRAWS * k / n
    # Counts of a fixed number of units are correlated; this factor makes the sum chi-square with n - 1 degrees.
    statistic = float((counts - expected).square().sum()) * (n - 1) / (DRAWS * k * (n - k) / n)
    assert 1e-4 < stats.chi2.sf(statistic, n - 1) < 1 - 1e-4


@pytest.mark.parametrize(("ratio", "side"), [(0.11, 2), (0.25, 3), (0.44, 4)])
def test_places_of_squares_are_uniform_and_independent_from_row_to_row(ratio: float, side: int) -> None:
    found = many(SquareMask(size=32, ratio=ratio))
    top, left = found.any(2).int().argmax(1), found.any(1).int().argmax(1)
    block = torch.arange(6)
    rows, columns = ((block >= start[:, None]) & (block < start[:, None] + side) for start in (top, left))
    assert torch.equal(found, rows[:, :, None] & columns[:, None, :])
    places = 7 - side
    place = top * places + left
    assert stats.chisquare(torch.bincount(place, minlength=places**2).numpy()).pvalue > 1e-4
    pairs = torch.bincount(place[:-1] * places**2 + place[1:], minlength=places**4)
    assert stats.chisquare(pairs.numpy()).pvalue > 1e-4


@pytest.mark.parametrize("count", ["exact", "beit"])
@pytest.mark.parametrize("size", [16, 32])
def test_block_wise_masks_reach_every_border_and_look_the_same_from_all_sides(count: str, size: int) -> None:
    mask = BlockMask(size=size, ratio=0.4, count=count)  # type: ignore[arg-type]
    found = many(mask) if size == 32 else many(mask, 20_000)
    assert float(found.double().mean(0).min()) > 0.05, "the last row and column and the corners too"
    for other in (found.flip(1), found.flip(2), found.transpose(1, 2)):
        # Where a mask and its mirror image differ in a unit, each is as likely to be the one that hides it.
        only, differ = (found & ~other).sum(0), (found ^ other).sum(0)
        assert bool(((2 * only - differ).abs() <= 5 * differ.double().sqrt()).all())


@each_mask
def test_the_contract_holds(mask: Mask) -> None:
    check_mask(mask, image_size=192)


@each_mask
def test_rows_steps_and_seeds_are_unrelated(mask: Mask) -> None:
    """Two unrelated masks share as many hidden units as the units' own frequencies say."""
    n = 20_000
    first = many(mask)[:n]
    others = [first.roll(1, 0), drawn(mask, n=n, seed=1), drawn(mask, n=n, step=1), many(mask)[n : 2 * n]]
    frequency = first.double().mean(0)
    for other in others:
        shared = (first & other).flatten(1).sum(1).double()
        error = float(shared.std()) / math.sqrt(n)
        assert abs(float(shared.mean()) - float((frequency**2).sum())) < 5 * error
    assert torch.equal(first[:50], drawn(mask, n=50))


SPECS = {"random": RandomMask, "square": SquareMask}
TABLE = [
    (axes["mask_type"], int(axes["masked_patch_size"]), float(axes["mask_ratio"]), axes["masked_cells"])
    for axes, _ in paper_table("simmim_table1_masking").rows
    if axes["mask_type"] in SPECS
]


@pytest.mark.parametrize(("kind", "size", "ratio", "cells"), TABLE)
def test_counts_of_table_1(kind: str, size: int, ratio: float, cells: str) -> None:
    """Every random and square row of SimMIM Table 1 at 192 px with a patch of 4 px, units from 4 to 64 px."""
    hidden, units = map(int, cells.split("/"))
    mask = SPECS[kind](size=size, ratio=ratio)
    recipe = Recipe(epochs=1, batch_size=8, lr=1e-3)
    backbone = Backbone(name="swin_base_patch4_window7_224", patch_size=4, stride=32)
    Pretrain(data=Shapes(), image_size=192, backbone=backbone, mask=mask, recipe=recipe)
    found = drawn(mask, n=16)
    assert found.shape == (16, 192 // size, 192 // size)
    assert found[0].numel() == units
    assert found.flatten(1).sum(1).tolist() == [hidden] * 16
    assert mask.hidden_units(192) == hidden
    tokens = spread(found, 48)
    side = size // 4
    inside = tokens.unfold(1, side, side).unfold(2, side, side)  # [16, units, units, side, side]
    assert torch.equal(inside.all((3, 4)), found)
    assert torch.equal(inside.any(4).any(3), found)


def test_the_table_has_23_such_rows() -> None:
    assert len(TABLE) == 23
