"""Occlusion: what is dropped, in which order, and what the curve has to be at its ends."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.analysis.occlusion import count_correct, dropped, random_order, saliency
from harness.spec import Backbone, FineTune, Occlusion, Recipe, Scratch, Shapes

VIT = Backbone(name="vit_tiny_patch16_224", args={"embed_dim": 16, "depth": 2, "num_heads": 2}, patch_size=4)
START = FineTune(
    start=Scratch(backbone=VIT, image_size=16),
    data=Shapes(image_size=16),
    recipe=Recipe(epochs=1, batch_size=8, lr=1.0),
)
RUN = Occlusion(start=START, size=4, ratios=(0.0, 0.3, 0.5, 1.0), draws=2)


def images(count: int = 6) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0)) - 0.5


def test_counts_are_rounded_to_the_nearest() -> None:
    assert RUN.counts == (0, 5, 8, 16)  # 0.3 of 16 is 4.8
    assert RUN.replace(ratios=(0.03125, 0.5)).counts == (1, 8)  # a half goes up


def test_orders_are_permutations_of_their_own_image_and_draw() -> None:
    positions = torch.arange(40)
    order = random_order(RUN, 0, positions)
    assert order.sort(dim=1).values.equal(torch.arange(16).expand(40, 16))
    assert len(set(map(tuple, order.tolist()))) == 40
    assert not order.equal(random_order(RUN, 1, positions))
    assert not order.equal(random_order(RUN.replace(seed=1), 0, positions))
    assert order.equal(random_order(RUN, 0, positions))


def test_orders_depend_on_the_place_in_the_list_not_on_the_batch() -> None:
    whole = random_order(RUN, 1, torch.arange(10))
    parts = [random_order(RUN, 1, part) for part in torch.split(torch.arange(10), 3)]
    assert whole.equal(torch.cat(parts))


def test_patches_are_dropped_evenly() -> None:
    share = dropped(random_order(RUN, 0, torch.arange(4000)), 4).double().mean(dim=0)
    assert share.sub(0.25).abs().max() < 4 * (0.25 * 0.75 / 4000) ** 0.5


def test_what_is_dropped_stays_dropped_at_higher_ratios() -> None:
    order = random_order(RUN, 0, torch.arange(5))
    fewer, more = dropped(order, 5), dropped(order, 9)
    assert fewer.flatten(1).sum(dim=1).tolist() == [5] * 5
    assert more.flatten(1).sum(dim=1).tolist() == [9] * 5
    assert not (fewer & ~more).any()


def test_ends_of_the_curve() -> None:
    """Nothing dropped is the plain image; all dropped is the same blank for every image."""
    inputs, seen = images(), []

    def classify(given: Tensor) -> Tensor:
        seen.append(given)
        return given.flatten(1)[:, :10]

    labels = classify(inputs).argmax(dim=1)
    seen.clear()
    found = count_correct(RUN, classify, inputs, labels, random_order(RUN, 0, torch.arange(6)))
    assert found[0] == 6
    assert seen[0].equal(inputs)
    assert not seen[-1].any()
    assert found[-1] == (labels == 0).sum()  # argmax of equal logits: one class for all
    assert ((seen[1] == 0).all(dim=1).float().mean(dim=(1, 2)) == 5 / 16).all()


def test_saliency_is_the_absolute_gradient_of_the_predicted_class() -> None:
    """Of two classes with z = w . x the log-odds are z_0 - z_1, so the gradient is +-(w_0 - w_1)."""
    weights = torch.randn(2, 3 * 16 * 16, generator=torch.Generator().manual_seed(1))
    found = saliency(lambda given: given.flatten(1) @ weights.T, images(), 4)
    expected = (weights[0] - weights[1]).abs().view(3, 4, 4, 4, 4).sum(dim=(0, 2, 4)).flatten()
    assert torch.allclose(found, expected.expand(6, 16), rtol=1e-5)


def test_the_salient_go_first() -> None:
    """A model that reads one patch loses it with the first salient drop, and with the last non-salient one."""

    def classify(given: Tensor) -> Tensor:
        value = given[:, :, 4:8, 8:12].sum(dim=(1, 2, 3))
        return torch.stack([value, -value], dim=1)

    order = saliency(classify, images(), 4).argsort(dim=1, descending=True, stable=True)
    assert (order[:, 0] == 1 * 4 + 2).all()
    assert (order.flip(1)[:, -1] == 6).all()
