"""Patterns, filtered noise, pairs: exact counts, polarity, geometry, and what no mask may depend on."""

from __future__ import annotations

import csv
import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter

from harness.core.masks.local import predicted_units
from harness.core.masks.masking import in_views, make_mask, make_views
from harness.core.masks.units import square_at
from harness.core.runtime.drop_path import KeyedDropPath, Place
from harness.papers import compared_masks
from harness.spec import (
    Backbone,
    BlockMask,
    CheckerboardMask,
    ColourMask,
    ComplementMask,
    DisjointMask,
    GridMask,
    LocalMask,
    Mask,
    Pretrain,
    Recipe,
    Shapes,
    SquareMask,
    TokenMask,
    UniformMask,
    VisibleSquareMask,
)
from harness.spec.masks.patterns import Board
from harness.testing import check_mask

MASKS: dict[str, Mask] = {
    **compared_masks(),
    "shared tokens": TokenMask(size=16, ratio=0.75, shared=True),
    "checkerboard, both phases": CheckerboardMask(size=16, square=2, phase="both"),
    "visible square, all places": VisibleSquareMask(size=16, places="all"),
    "disjoint, shared": DisjointMask(size=32, ratio=0.7, shared=True),
    "complement 0.25": ComplementMask(size=32, ratio=0.25),
    "local windows of each image": LocalMask(size=16, window=5, windows=2, shared=False),
    "iBOT, exact": BlockMask(size=16, ratio=0.3, ratio_spread=0.2),
    "BootMAE, exact": BlockMask(size=16, ratio=0.61, max_block=0.3),
}
each_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)


def drawn(mask: Mask, n: int = 200, positions: torch.Tensor | None = None, **changes: Any) -> torch.Tensor:
    """Masks at 224 px."""
    values = {"image_size": 224, "seed": 0, "step": 0, "steps": 10, **changes}
    return make_mask(mask, positions=torch.arange(n) if positions is None else positions, **values)


@each_mask
def test_counts_are_as_announced(mask: Mask) -> None:
    counts = torch.stack([drawn(mask, view=view) for view in range(mask.views)]).flatten(2).sum(2)
    announced = mask.hidden_units(224)
    assert announced is not None
    assert int(counts[0].max()) <= announced
    if not mask.varies(224):
        assert set(counts.flatten().tolist()) == {announced}
    elif not isinstance(mask, BlockMask):
        assert len(set(counts.flatten().tolist())) > 1


@each_mask
def test_the_contract_holds(mask: Mask) -> None:
    """Among others, a row depends neither on the size of the batch nor on which rows of it a process takes."""
    check_mask(mask, image_size=224)


@each_mask
def test_many_steps_in_one_call_are_each_step_s_own(mask: Mask) -> None:
    """Masks drawn ahead: each row has its own step, beyond 32 bits too, and nothing else changes."""
    steps, positions = [0, 6, 2**33 + 6], torch.arange(3, 15)
    rows = {"step": torch.tensor(steps).repeat_interleave(12), "positions": positions.repeat(3)}
    whole = make_views(mask, image_size=224, seed=3, steps=10, **rows)
    each = [make_views(mask, image_size=224, seed=3, step=step, steps=10, positions=positions) for step in steps]
    assert torch.equal(whole, torch.cat(each))


GOLDEN = Path(__file__).with_name("golden") / "masks.csv"


@pytest.mark.parametrize("name", MASKS)
def test_masks_are_what_they_were(name: str) -> None:
    """The key of a run stands for its masks, which no change of the code may change."""
    with GOLDEN.open() as file:
        recorded = {row["mask"]: row["sha256"] for row in csv.DictReader(file)}
    assert digest(MASKS[name]) == recorded[name]


def digest(mask: Mask) -> str:
    """First places of the SHA-256 of some masks."""
    found = hashlib.sha256()
    for step in (0, 3, 2**33 + 5):
        units = make_views(mask, image_size=224, seed=5, step=step, steps=10, positions=torch.arange(7, 157))
        found.update(units.numpy().tobytes())
    return found.hexdigest()[:16]


@each_mask
def test_masks_change_with_step_and_seed_and_come_back(mask: Mask) -> None:
    first = drawn(mask)
    fixed = len(first.flatten(1).unique(dim=0)) == 1 and not getattr(mask, "shared", False)
    assert torch.equal(first, drawn(mask))
    for other in (drawn(mask, step=1), drawn(mask, seed=1)):
        assert torch.equal(first, other) is fixed


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.6, 0.75, 0.9])
def test_tokens_keep_mae_s_count(ratio: float) -> None:
    for size in (16, 32):
        units = (224 // size) ** 2
        assert (~drawn(TokenMask(size=size, ratio=ratio))).flatten(1).sum(1).tolist() == [
            int(units * (1 - ratio))
        ] * 200


def test_shared_masks_are_one_a_step() -> None:
    found = torch.stack([drawn(TokenMask(size=16, ratio=0.75, shared=True), step=step) for step in range(9)])
    assert bool((found == found[:, :1]).all())
    assert len(found[:, 0].flatten(1).unique(dim=0)) == 9


def test_tokens_and_uniform_cells_are_hidden_equally_often() -> None:
    for mask in (TokenMask(size=16, ratio=0.75), UniformMask(size=16)):
        frequency = drawn(mask, 20_000).double().mean(0)
        assert float((frequency - 0.75).abs().max()) < 5 * math.sqrt(0.75 * 0.25 / 20_000)


def test_grid_and_uniform_keep_one_of_each_cell() -> None:
    for mask in (GridMask(size=16), UniformMask(size=16)):
        cells = (~drawn(mask)).view(-1, 7, 2, 7, 2)
        assert bool((cells.sum((2, 4)) == 1).all())
        kept = cells.sum((0, 1, 3))
        assert bool((kept > 0).all()) is isinstance(mask, UniformMask)
    assert bool((~drawn(GridMask(size=16)))[:, ::2, ::2].all())


@pytest.mark.parametrize("square", range(1, 8))
@pytest.mark.parametrize("side", [6, 7, 12, 14, 16])
def test_checkerboards_and_their_geometry_by_brute_force(side: int, square: int) -> None:
    if square >= side:
        return
    board = Board(side, square)
    i, j = np.indices((side, side)) // square
    for phase in (0, 1):
        wanted = (i + j + phase) % 2 == 1
        mask = CheckerboardMask(size=8, square=square, phase=phase)
        found = drawn(mask, 2, image_size=8 * side)[1].numpy()
        assert (found == wanted).all()
        assert board.hidden[phase] == wanted.sum() == mask.hidden_units(8 * side)
        for mirrored in (wanted[:, ::-1], wanted[::-1]):
            assert board.mirrored(phase) == pytest.approx((wanted & ~mirrored).sum() / wanted.sum())
    assert board.is_half is (board.hidden[0] * 2 == side * side)
    assert board.is_mirrored is (side % (2 * square) == 0)
    assert bool(CheckerboardMask(size=8, square=square).notes(8 * side)) is not board.is_mirrored


def test_phases() -> None:
    random = drawn(CheckerboardMask(size=16, phase="random"), 1000)
    first, second = (drawn(CheckerboardMask(size=16, phase=phase), 1)[0] for phase in (0, 1))
    assert 400 < int((random == first).flatten(1).all(1).sum()) < 600
    assert bool(((random == first).flatten(1).all(1) | (random == second).flatten(1).all(1)).all())
    both = CheckerboardMask(size=16, phase="both")
    found = make_views(both, image_size=224, seed=0, step=0, steps=1, positions=torch.arange(3))
    assert torch.equal(found, torch.stack([first, second] * 3))


def test_the_notes_of_a_board() -> None:
    """Published computation at 14 x 14: squares of 2 hide 96 or 100, and reflect onto themselves."""
    assert CheckerboardMask(size=16).notes(224) == ()
    assert CheckerboardMask(size=16, square=7).notes(224) == ()
    count, mirror = CheckerboardMask(size=16, square=2, phase="both").notes(224)
    assert count == "checkerboard of 2 x 2 on 14 x 14 units hides 96 of 196 (48.98%) or 100 of 196 (51.02%), not half"
    assert "0% of the hidden units reflect a visible one" in mirror
    (_, mirror) = CheckerboardMask(size=16, square=4).notes(224)
    assert "58%" in mirror
    assert [CheckerboardMask(size=16, square=square).notes(256) for square in (1, 2, 4)] == [(), (), ()]


def test_strict_boards_are_refused_where_they_are_not_half() -> None:
    with pytest.raises(ValueError, match=r"96 of 196 .* not half; strict boards on 14 units a side: square 1, 7"):
        CheckerboardMask(size=16, square=2, strict=True).check(224)
    CheckerboardMask(size=16, square=2, strict=True).check(192)


def test_squares() -> None:
    found = drawn(SquareMask(size=16, ratio=100 / 196, place="centre"))
    wanted = torch.zeros(14, 14, dtype=torch.bool)
    wanted[2:12, 2:12] = True
    assert bool((found == wanted).all())
    for places, starts in (("published", 7), ("all", 8)):
        visible = ~drawn(VisibleSquareMask(size=16, places=places), 5000)  # type: ignore[arg-type]
        top, left = visible.any(2).int().argmax(1), visible.any(1).int().argmax(1)
        counts = torch.bincount(top * starts + left, minlength=starts**2)
        assert len(counts) == starts**2
        assert int(counts.min()) > 0.5 * 5000 / starts**2
        assert bool((visible.flatten(1).sum(1) == 49).all())


@pytest.mark.parametrize(("colour", "sigma", "wide"), [("red", 2.0, None), ("blue", 1.0, None), ("green", 0.5, 2.0),
                                                       ("purple", 0.5, 2.0)])  # fmt: skip
def test_colours_have_the_spectrum_of_scipy_s_filters(colour: Any, sigma: float, wide: float | None) -> None:
    """The share of pairs of neighbours that are both visible, against masks of noise filtered by scipy."""
    found = ~drawn(ColourMask(size=16, colour=colour, sigma=sigma, wide=wide), 1000)
    assert bool((found.flatten(1).sum(1) == 49).all())
    noise = np.random.default_rng(0).standard_normal((1000, 40, 40))
    axes = {"axes": (1, 2)}
    narrow = gaussian_filter(noise, sigma, **axes)
    filtered = narrow - gaussian_filter(noise, wide, **axes) if wide else narrow
    values = (noise - filtered if colour in ("blue", "purple") else filtered)[:, 13:27, 13:27].reshape(1000, -1)
    kept = np.zeros_like(values, dtype=bool)
    np.put_along_axis(kept, values.argsort(1)[:, -49:], True, axis=1)
    grid = torch.from_numpy(kept).view(-1, 14, 14)
    for shift in (1, 2, 3):
        ours, theirs = ((visible[:, shift:] & visible[:, :-shift]).double().mean((1, 2)) for visible in (found, grid))
        error = math.hypot(float(ours.std()), float(theirs.std())) / math.sqrt(1000)
        assert abs(float(ours.mean() - theirs.mean())) < 4 * error


def test_red_noise_keeps_what_is_largest() -> None:
    """Not the smallest: the visible units of a ratio are among those of a lower one."""
    low, high = (drawn(ColourMask(size=16, ratio=ratio, colour="red", sigma=2.0)) for ratio in (0.5, 0.75))
    assert bool((low <= high).all())


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_complements(ratio: float) -> None:
    mask = ComplementMask(size=16, ratio=ratio)
    found = make_views(mask, image_size=224, seed=0, step=0, steps=1, positions=torch.arange(50)).view(50, 2, 14, 14)
    assert torch.equal(found[:, 0], ~found[:, 1])
    assert found[:, 0].flatten(1).sum(1).tolist() == [196 - int(196 * (1 - ratio))] * 50


@pytest.mark.parametrize(("ratio", "new"), [(0.6, 78), (0.75, 49), (0.5, 98), (0.3, 59)])
def test_disjoint_views_hide_what_the_other_shows(ratio: float, new: int) -> None:
    """new: hidden in the second view only; all that the first shows, or as many as it hides where that is fewer."""
    mask = DisjointMask(size=16, ratio=ratio)
    first, second = make_views(
        mask, image_size=224, seed=0, step=0, steps=1, positions=torch.arange(5000)
    ).view(5000, 2, -1).unbind(1)  # fmt: skip
    assert first.sum(1).tolist() == second.sum(1).tolist() == [mask.hidden_units(224)] * 5000
    assert (second & ~first).sum(1).tolist() == [new] * 5000
    if ratio > 0.5:
        assert bool((first | second).all())
    frequency = second.double().mean(0)
    expected = mask.hidden_units(224) / 196
    assert float((frequency - expected).abs().max()) < 5 * math.sqrt(expected * (1 - expected) / 5000)


def test_local_windows_show_and_predict_their_own_units_only() -> None:
    for shared in (True, False):
        mask = LocalMask(size=16, shared=shared)
        run = Pretrain(
            data=Shapes(),
            image_size=224,
            backbone=Backbone(name="vit_tiny_patch16_224", patch_size=16),
            mask=mask,
            recipe=Recipe(epochs=1, batch_size=8, lr=1e-3),
            seed=2,
        )
        positions = torch.arange(5, 305)
        units = make_views(mask, image_size=224, seed=2, step=6, steps=9, positions=positions)
        scored = predicted_units(run, units, Place().move(6, positions))
        inside = scored | ~units
        assert (~units).flatten(1).sum(1).tolist() == [49 - 39] * 1200
        assert scored.flatten(1).sum(1).tolist() == [39] * 1200
        top, left = inside.any(2).int().argmax(1), inside.any(1).int().argmax(1)
        assert bool((inside == square_at(torch.stack((top, left), 1), 7, 14)).all())
        of_views = torch.stack((top, left), 1).view(300, 4, 2)
        assert bool((of_views == of_views[:1]).all()) is shared
        assert len(units.view(300, 4, -1)[:, 0].unique(dim=0)) > 290
        if not shared:
            assert of_views.amin((0, 1)).tolist() == [0, 0]
            assert of_views.amax((0, 1)).tolist() == [7, 7]
    other = run.replace(mask=TokenMask(size=16, ratio=0.5))
    assert predicted_units(other, units, Place()) is units
    at_first = make_views(mask, image_size=224, seed=2, step=0, steps=9, positions=torch.arange(300))
    assert torch.equal(
        predicted_units(run, at_first, Place()), predicted_units(run, at_first, Place().move(0, torch.arange(300)))
    )
    for count in (299, 301, 1200):
        with pytest.raises(ValueError, match=f"masks of 1200 views at a place of {count} images"):
            predicted_units(run, at_first, Place().move(6, torch.arange(count)))


def test_images_and_their_views_lie_after_one_another() -> None:
    images = torch.arange(3.0).view(3, 1, 1, 1)
    assert in_views(ComplementMask(size=16), images).flatten().tolist() == [0, 0, 1, 1, 2, 2]
    assert in_views(TokenMask(size=16, ratio=0.5), images) is images
    place = Place([1], [0.5], 40).move(0, torch.arange(40))
    layer = KeyedDropPath(0, place).train()
    kept = layer(torch.ones(80, 3)).view(40, 2, 3)
    assert torch.equal(kept[:, 0], kept[:, 1])
    assert torch.equal(kept[:, 0], layer(torch.ones(40, 3)))


def test_ibot_draws_each_image_s_ratio() -> None:
    mask = BlockMask(size=16, ratio=0.3, ratio_spread=0.2)
    counts = drawn(mask, 3000).flatten(1).sum(1)
    assert (int(counts.min()), int(counts.max())) == (20, 98)
    assert float(counts.double().mean()) == pytest.approx(
        0.3 * 196 + 0.5, abs=4 * 0.4 / math.sqrt(12) * 196 / 3000**0.5
    )
    beit = drawn(mask.replace(count="beit"), 3000).flatten(1).sum(1)
    assert bool((beit <= counts).all())
    assert 0.1 < float((beit < counts - 1).double().mean()) < 0.6, "BEiT's count stops short of some targets"


def test_bootmae_s_blocks_are_no_larger_than_its_largest() -> None:
    """Its first block adds 60 units at most, so a mask has three blocks or more where BEiT's may have one."""
    small = BlockMask(size=16, ratio=120 / 196, count="beit", max_block=60 / 196, min_block=59.6 / 196)
    counts = drawn(small, 300).flatten(1).sum(1)
    assert small.smallest_block(224) == small.largest_block(224) == 60
    assert int(counts.max()) <= 120
    assert float(counts.double().mean()) > 100


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GridMask(size=16).check(112), "multiple of 2 units a side, not 7"),
        (lambda: UniformMask(size=16).check(112), "multiple of 2 units a side, not 7"),
        (lambda: CheckerboardMask(size=16, square=7).check(112), "covers all 7 units a side; at most 6"),
        (lambda: TokenMask(size=16, ratio=0.999).check(112), "hides all 49 units; at most 0.9795"),
        (lambda: DisjointMask(size=16, ratio=0.999).check(112), "hides all 49 units"),
        (lambda: VisibleSquareMask(size=16, ratio=0.999).check(112), r"leaves 0 x 0 of 7 x 7 units; valid: 0.2653"),
        (lambda: ColourMask(size=16, colour="green", sigma=1.0), "wide should be above sigma 1.0"),
        (lambda: ColourMask(size=16, colour="red", sigma=1.0, wide=2.0), "wide belongs to green and purple"),
        (lambda: LocalMask(size=16, window=9).check(112), "window 9 is longer than 7 units"),
        (lambda: LocalMask(size=16, window=1).check(112), "hides 0 of 1 units of a window"),
        (lambda: BlockMask(size=16, ratio=0.3, ratio_spread=0.3), "below 0.3"),
        (lambda: BlockMask(size=16, ratio=0.3, max_block=0.05), "max_block 0.05 is below min_block 0.08"),
    ],
)
def test_refusals(make: Any, message: str) -> None:
    with pytest.raises((ValidationError, ValueError), match=message):
        make()
