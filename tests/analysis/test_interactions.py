"""J(m) on models whose interactions are known, its sampling, and its noise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.analysis.interactions import (
    contexts,
    estimate,
    forwards,
    image_interactions,
    pairs_of,
    reward,
    rewards,
    strength,
)
from harness.spec import FineTune, Interactions, Recipe, Scratch, Shapes
from harness.spec.model.backbone import Backbone

VIT = Backbone(name="vit_tiny_patch16_224", args={"embed_dim": 16, "depth": 2, "num_heads": 2}, patch_size=4)
START = FineTune(
    start=Scratch(backbone=VIT, image_size=16),
    data=Shapes(image_size=16),
    recipe=Recipe(epochs=1, batch_size=8, lr=1.0),
)


def run(**changes: object) -> Interactions:
    """Every pair of a 4 x 4 grid, few enough contexts that most orders are sampled."""
    values: dict[str, object] = {
        "start": START, "grid": 4, "orders": (0.0, 0.25, 0.5, 1.0), "pairs": 120, "contexts": 12, "reach": None,
        "band": (0.0, 1.0),
    }  # fmt: skip
    return Interactions(**{**values, **changes})  # type: ignore[arg-type]


def interaction_of(value: Callable[[Tensor], Tensor], spec: Interactions) -> dict[tuple[int, int], list[float]]:
    """The mean interaction of each pair at each order, by pair."""
    found = image_interactions(spec, 0, value)
    return {pair: [one.mean for one in row] for (_, pair), row in zip(pairs_of(spec, 0), found, strict=True)}


def test_a_product_of_two_patches_interacts_by_its_factor_at_every_order_and_no_other_pair_does() -> None:
    found = interaction_of(lambda seen: 3.0 * seen[:, 5].double() * seen[:, 6], run())
    assert len(found) == 120
    assert found.pop((5, 6)) == [3.0] * 4
    assert all(values == [0.0] * 4 for values in found.values())


def test_a_sum_of_patches_has_no_interactions() -> None:
    weights = torch.arange(16, dtype=torch.float64) - 7.25
    found = interaction_of(lambda seen: seen.double() @ weights + 2.0, run())
    assert all(np.allclose(values, 0.0, atol=1e-12) for values in found.values())


def test_a_product_of_three_patches_interacts_as_often_as_the_third_is_there() -> None:
    """I(m)(i, j) of x_i x_j x_k is P(k in S) = m / (n - 2); with all contexts of a 2 x 2 grid it is exact."""
    spec = run(grid=2, orders=(0.0, 0.5, 1.0), pairs=6)
    found = interaction_of(lambda seen: seen[:, :3].double().prod(dim=1), spec)
    assert found == {
        pair: [0.0, 0.5, 1.0] if 3 not in pair else [0.0, 0.0, 0.0] for pair in itertools.combinations(range(4), 2)
    }


def test_sampled_contexts_agree_with_the_closed_form_within_their_error() -> None:
    spec = run(contexts=400, pairs=1, reach=None, orders=(0.5,), band=(0.0, 1.0))
    ((_, (i, j)),) = pairs_of(spec, 0)
    k = next(player for player in range(16) if player not in (i, j))
    ((one,),) = image_interactions(spec, 0, lambda seen: (seen[:, i] & seen[:, j] & seen[:, k]).double())
    assert abs(one.mean - 0.5) < 4 * one.error
    assert one.error == pytest.approx(0.5 / math.sqrt(400), rel=0.05)  # of a coin's throws


def test_an_extreme_order_is_computed_once() -> None:
    seen: list[int] = []

    def value(visible: Tensor) -> Tensor:
        seen.append(len(visible))
        return visible.sum(dim=1).double()

    spec = run(pairs=7)
    row = image_interactions(spec, 0, value)[0]
    assert sum(seen) == forwards(spec) == 4 * 7 * (1 + 12 + 12 + 1)
    assert row[0].error == row[-1].error == 0.0
    assert len(contexts(spec, 0, (0, 1), 0)) == len(contexts(spec, 0, (0, 1), 14)) == 1


def test_the_published_size() -> None:
    published = Interactions(start=START.replace(start=START.start.replace(image_size=224), image_size=224))
    assert published.sizes == tuple(int(194 * r) for r in published.orders)
    assert published.sizes == (0, 9, 19, 38, 58, 77, 97, 116, 135, 155, 174, 184, 194)
    assert forwards(published) == 4 * 50 * (11 * 50 + 2)


def test_contexts_have_the_size_leave_out_the_pair_and_differ() -> None:
    spec = run(contexts=30)
    found = contexts(spec, 3, (2, 9), 7)
    assert found.shape == (30, 16)
    assert (found.sum(dim=1) == 7).all()
    assert not found[:, [2, 9]].any()
    assert len(set(map(tuple, found.tolist()))) > 25
    share = torch.cat([contexts(spec, place, (2, 9), 7) for place in range(200)]).double().mean(dim=0)
    others = [player for player in range(16) if player not in (2, 9)]
    assert share[others].sub(0.5).abs().max() < 4 * 0.5 / math.sqrt(6000)
    assert torch.equal(found, contexts(spec, 3, (2, 9), 7))
    assert not torch.equal(found, contexts(spec, 4, (2, 9), 7))
    assert not torch.equal(found, contexts(spec.replace(seed=1), 3, (2, 9), 7))


def test_pairs_are_near_distinct_and_of_their_own_image() -> None:
    spec = run(reach=1, pairs=20)
    assert len(spec.candidates) == 4 * 3 * 2 + 2 * 9  # rows and columns, then both diagonals
    first, second = ([pair for _, pair in pairs_of(spec, image)] for image in (0, 1))
    assert len(set(first)) == 20
    assert first != second
    for i, j in first:
        assert i < j
        assert max(abs(i // 4 - j // 4), abs(i % 4 - j % 4)) == 1


def test_noise_biases_the_size_upwards_and_the_halves_downwards() -> None:
    """On 4,000 pairs without and with an interaction, against the means that the normal distribution gives."""
    generator = torch.Generator().manual_seed(0)
    for truth in (0.0, 0.1):
        noise = torch.randn(4000, 50, generator=generator, dtype=torch.float64)
        zeros = torch.zeros(3 * 50, dtype=torch.float64)
        found = [estimate(torch.cat([truth + row, zeros]), complete=False) for row in noise]
        naive = np.mean([abs(one.mean) for one in found])
        sigma, upper = 1 / math.sqrt(50), truth
        folded = sigma * math.sqrt(2 / math.pi) * math.exp(-(truth**2) / (2 * sigma**2)) + upper * math.erf(
            truth / (sigma * math.sqrt(2))
        )
        assert naive == pytest.approx(folded, abs=4 * sigma / math.sqrt(4000))
        assert np.mean([one.halves for one in found]) <= truth + 4 * 0.2 / math.sqrt(4000) <= naive
        assert np.mean([one.error for one in found]) == pytest.approx(sigma, rel=0.02)
        total = strength(*(np.array([[[one[part]] for one in found]]) for part in (0, 1, 2)))
        assert total.noise[0] == pytest.approx(sigma * math.sqrt(2 / math.pi), rel=0.02)


def test_strength_is_normalised_over_the_orders_and_its_error_is_the_jackknife() -> None:
    mean = np.array([[[1.0, -2.0]], [[3.0, 2.0]], [[-5.0, 5.0]]])  # three images, a pair, two orders
    found = strength(mean, np.zeros_like(mean), np.abs(mean))
    assert found.interaction.tolist() == [3.0, 3.0]
    assert found.strength.tolist() == [1.0, 1.0]
    assert found.split_half.tolist() == [1.0, 1.0]
    # Leaving out one image: (4, 3.5), (3, 3.5), (2, 2) -> first order 8/7.5, 6/6.5, 1.
    left = np.array([8 / 7.5, 6 / 6.5, 1.0])
    assert found.error == pytest.approx(math.sqrt(2 / 3 * ((left - left.mean()) ** 2).sum()))
    assert np.isnan(strength(mean[:1], np.zeros((1, 1, 2)), mean[:1]).error).all()


def test_rewards_against_probabilities() -> None:
    logits = torch.tensor([[1.0, 2.0, -1.0], [0.0, 0.0, 5.0]])
    p = logits.softmax(dim=1)[:, 1]
    labels = torch.tensor([1, 1])
    assert torch.allclose(reward(logits, labels, "log-odds"), (p / (1 - p)).log())
    assert torch.allclose(reward(logits, labels, "log-probability"), p.log())
    assert torch.equal(reward(logits, labels, "logit"), logits[:, 1])


def test_absent_patches_are_zero_and_the_batch_changes_nothing() -> None:
    image = torch.arange(1.0, 33).view(2, 4, 4)
    inputs: list[Tensor] = []

    def model(images: Tensor) -> Tensor:
        inputs.append(images)
        return images.flatten(1)[:, :3]

    visible = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    found = [rewards(model, image, 0, visible, "logit", batch) for batch in (1, 2, 3)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    seen = inputs[-1]
    assert torch.equal(seen[2], image)
    assert not seen[1].any()
    assert torch.equal(seen[0, :, :2, :2], image[:, :2, :2])
    assert torch.equal(seen[0, :, 2:, 2:], image[:, 2:, 2:])
    assert not seen[0, :, :2, 2:].any()
    assert not seen[0, :, 2:, :2].any()
