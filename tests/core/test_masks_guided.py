"""Masks from scores: which units, how many, which sign, and when the schedule looks at them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from harness.core.masks.masking import make_mask
from harness.spec import Backbone, GuidedMask, HardMask, HarnessError, Mask, Pretrain, Recipe, Shapes

N = 500


def drawn(mask: Mask, scores: torch.Tensor | None, *, step: int = 0, steps: int = 10, **changes: Any) -> torch.Tensor:
    n = 1 if scores is None else len(scores)
    values: dict[str, Any] = {"image_size": 64, "seed": 0, "positions": torch.arange(n), **changes}
    return make_mask(mask, step=step, steps=steps, scores=scores, **values)


@pytest.fixture(scope="module")
def scores() -> torch.Tensor:
    return torch.rand(N, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("hide", ["salient", "rest"])
def test_ranked_masks_hide_one_end_of_the_ranking(scores: torch.Tensor, hide: Any) -> None:
    found = drawn(GuidedMask(size=8, ratio=0.3, hide=hide), scores)
    for mask, score in zip(found.flatten(1).numpy(), scores.flatten(1).numpy(), strict=True):
        order = np.argsort(score)
        wanted = order[-19:] if hide == "salient" else order[:19]  # int(0.3 * 64)
        assert set(np.flatnonzero(mask)) == set(wanted)


def test_the_ratio_of_each_image_is_drawn(scores: torch.Tensor) -> None:
    mask = GuidedMask(size=8, ratio=0.3, ratio_spread=0.2)
    counts = drawn(mask, scores).flatten(1).sum(1)
    assert (int(counts.min()), int(counts.max()), mask.hidden_units(64)) == (6, 31, 32)
    assert float(counts.double().mean()) == pytest.approx(0.3 * 64 - 0.5, abs=1.0)  # rounded down
    assert torch.equal(drawn(mask, scores[40:50], positions=torch.arange(40, 50)), drawn(mask, scores)[40:50])


@pytest.mark.parametrize(
    "mask",
    [GuidedMask(size=8, ratio=0.3, ratio_spread=0.2, choose="drawn"), GuidedMask(size=8, ratio=0.5, reveal=0.1),
     HardMask(size=8, ratio=0.7, first=0.13, last=0.71)],
    ids=["drawn", "hint", "hard"],
)  # fmt: skip
def test_many_steps_in_one_call_are_each_step_s_own(scores: torch.Tensor, mask: Mask) -> None:
    steps, positions = range(0, 111, 10), torch.arange(40)
    rows: dict[str, Any] = {"step": torch.tensor(steps).repeat_interleave(40), "positions": positions.repeat(12)}
    whole = drawn(mask, scores[:40].repeat(12, 1, 1), steps=111, **rows)
    each = [drawn(mask, scores[:40], step=step, steps=111, positions=positions) for step in steps]
    assert torch.equal(whole, torch.cat(each))
    now = torch.tensor(30)
    assert torch.equal(drawn(mask, scores[:40], step=now, steps=111), each[3])  # type: ignore[arg-type]


def test_hints_are_among_the_most_salient_and_drawn_evenly(scores: torch.Tensor) -> None:
    plain = GuidedMask(size=8, ratio=0.5)
    hint = plain.replace(reveal=0.05, reveal_from=0.2)  # 3 of the 12 most salient
    full, found = drawn(plain, scores).flatten(1), drawn(hint, scores).flatten(1)
    assert found.sum(1).tolist() == [32 - 3] * N == [hint.hidden_units(64)] * N
    shown = full & ~found
    assert bool((found <= full).all())
    rank = scores.flatten(1).argsort(1, descending=True).argsort(1)
    ranks = rank[shown]
    counts = torch.bincount(ranks, minlength=64)
    assert int(ranks.max()) == 11
    # AttMask's own values: the smallest ratio, 0.3 - 0.2, is a little less than 0.1 in binary.
    own = GuidedMask(size=4, ratio=0.3, ratio_spread=0.2, reveal=0.05, reveal_from=0.1)
    assert drawn(own, scores.repeat_interleave(2, 1).repeat_interleave(2, 2)).flatten(1).sum(1).min() == 25 - 12
    assert bool((counts[:12] > 0.6 * 3 * N / 12).all())


@pytest.mark.parametrize(("hide", "first"), [("salient", True), ("rest", False)])
def test_drawing_without_replacement_is_in_proportion_to_the_score(hide: Any, first: bool) -> None:
    """One of four units is drawn: to be hidden, or to be kept; its frequencies are the scores' shares."""
    n, weights = 40_000, torch.tensor([1.0, 2.0, 3.0, 4.0])
    mask = GuidedMask(size=32, ratio=0.25 if first else 0.75, hide=hide, choose="drawn")
    found = drawn(mask, weights.view(1, 2, 2).expand(n, 2, 2)).flatten(1)
    chosen = found if first else ~found
    assert chosen.sum(1).tolist() == [1] * n
    assert torch.allclose(chosen.double().mean(0), (weights / 10).double(), atol=0.01)


def test_hard_masks_follow_their_schedule(scores: torch.Tensor) -> None:
    mask = HardMask(size=8)
    assert [mask.share(step, 200) for step in (0, 99, 199)] == [0.0025, 0.25, 0.5]
    for step, hardest in ((0, 2), (4, 12), (9, 24)):  # int(48 * (step + 1) / 10 * 0.5)
        found = drawn(mask, scores, step=step).flatten(1)
        assert found.sum(1).tolist() == [64 - int(64 * 0.25)] * N
        rank = scores.flatten(1).argsort(1, descending=True).argsort(1)
        frequency = torch.zeros(64).scatter_add_(0, rank.flatten(), found.float().flatten()) / N
        assert frequency[:hardest].tolist() == [1.0] * hardest
        others = (48 - hardest) / (64 - hardest)  # the rest of the hidden ones is random
        assert float((frequency[hardest:] - others).abs().max()) < 5 * (others * (1 - others) / N) ** 0.5


def test_hardest_only_is_a_ranking(scores: torch.Tensor) -> None:
    hard = drawn(HardMask(size=8, ratio=0.75, first=1.0, last=1.0), scores)
    assert torch.equal(hard, drawn(GuidedMask(size=8, ratio=0.75), scores))


def test_finer_scores_are_averaged_over_units_and_get_no_gradient() -> None:
    fine = torch.rand(4, 16, 16, generator=torch.Generator().manual_seed(2)).requires_grad_()
    mask = GuidedMask(size=16, ratio=0.5)
    coarse = torch.from_numpy(fine.detach().numpy().reshape(4, 4, 4, 4, 4).mean((2, 4)))
    assert torch.equal(drawn(mask, fine), drawn(mask, coarse))


@pytest.mark.parametrize("mask", [GuidedMask(size=8, ratio=0.5), HardMask(size=8)])
def test_missing_or_wrong_scores_are_refused(mask: Mask) -> None:
    with pytest.raises(HarnessError, match=r"needs scores \[B, 8, 8\] from a teacher"):
        drawn(mask, None)
    for wrong in (torch.rand(1, 8), torch.rand(1, 9, 9), torch.rand(1, 8, 16), torch.rand(1, 4, 4)):
        with pytest.raises(HarnessError, match=r"should be \[1, 8, 8\] or finer, not"):
            drawn(mask, wrong)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GuidedMask(size=8, ratio=0.3, ratio_spread=0.4), "below 0.3"),
        (lambda: GuidedMask(size=8, ratio=0.3, hide="rest", reveal=0.1), "hide='salient'"),
        (lambda: GuidedMask(size=8, ratio=0.3, reveal=0.2, reveal_from=0.1), "reveal_from"),
        (lambda: GuidedMask(size=8, ratio=0.3, reveal_from=0.2), "reveal_from .* shown again; set reveal too"),
        (lambda: GuidedMask(size=8, ratio=0.3).replace(reveal=0.0, reveal_from=0.2), "set reveal too"),
        (lambda: HardMask(size=8, first=0.0, last=0.0), "never looks"),
        (lambda: GuidedMask(size=8, ratio=0.01).check(64), "hides none of 64"),
        (lambda: HardMask(size=8, ratio=0.99).check(64), "hides all 64 units"),
    ],
)
def test_refusals(make: Any, message: str) -> None:
    with pytest.raises((ValidationError, ValueError), match=message):
        make()


def test_a_mask_that_shows_nothing_again_has_one_key() -> None:
    plain = GuidedMask(size=8, ratio=0.5)
    assert plain.replace(reveal=0.05, reveal_from=0.2).replace(reveal=0.0) == plain
    assert GuidedMask(size=8, ratio=0.5, reveal_from=0.1).digest == plain.digest


def test_a_model_without_a_teacher_is_refused() -> None:
    backbone = Backbone(name="vit_tiny_patch16_224", patch_size=8)
    recipe = Recipe(epochs=1, batch_size=8, lr=1e-3)
    with pytest.raises(ValidationError, match="the mask 'hard' needs a momentum encoder"):
        Pretrain(data=Shapes(), image_size=32, backbone=backbone, mask=HardMask(size=8), recipe=recipe)
