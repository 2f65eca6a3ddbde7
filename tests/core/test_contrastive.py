"""The contrastive loss: InfoNCE against hand-computed values, its pairs, its projections, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from overfit import LEARNT, overfit
from tiny import RECIPE, pretrain
from torch import Tensor, nn

from harness import audit
from harness.core.objective.contrastive import (
    MOMENTUM,
    SECOND,
    SWAPPED,
    info_nce,
    info_nce_over_views,
    mlp,
    of_all,
    require_whole_batch,
)
from harness.core.objective.losses import total
from harness.core.pretrain.draws import FIRST, draw_masks, masks_of
from harness.core.pretrain.mim import MaskedImageModel
from harness.core.runtime.distributed import Group
from harness.core.runtime.session import Session
from harness.spec import (
    CheckerboardMask,
    ComplementMask,
    Contrastive,
    Corruption,
    DecoderHead,
    FrequencyMask,
    HarnessError,
    MomentumEncoder,
    Pretrain,
    RandomMask,
    TokenMask,
)

SMALL = Contrastive(hidden=16, out=8, weight=0.5)


def contrasted(contrastive: Contrastive = SMALL, **changes: Any) -> Pretrain:
    return pretrain(**{"contrastive": contrastive, "momentum": MomentumEncoder(), **changes})


# InfoNCE


def test_info_nce_by_hand() -> None:
    """Three queries along the axes and a diagonal, two keys along the axes, temperature 1/2."""
    queries, keys = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]]), torch.tensor([[5.0, 0.0], [0.0, 0.1]])
    # cosines (1, 0), (0, 1), (r, r) with r = 1 / sqrt 2; divided by 1/2; own keys 0, 0, 1
    losses = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(2)), math.log(2)]
    found = info_nce(queries, keys, torch.tensor([0, 0, 1]), 0.5)
    assert found.item() == pytest.approx(2 * 0.5 * sum(losses) / 3, abs=1e-6)


def test_info_nce_of_equal_keys_is_the_logarithm_of_their_number() -> None:
    found = info_nce(torch.randn(5, 4), torch.ones(7, 4), torch.arange(5), 0.2)
    assert found.item() == pytest.approx(0.4 * math.log(7), rel=1e-5)


def by_hand(queries: Tensor, keys: Tensor, temperature: float) -> float:
    """One query and one key an image, one number after the other."""
    total = 0.0
    for i, query in enumerate(queries.tolist()):
        scores = []
        for key in keys.tolist():
            norms = math.sqrt(sum(q * q for q in query)) * math.sqrt(sum(k * k for k in key))
            scores.append(math.exp(sum(q * k for q, k in zip(query, key, strict=True)) / norms / temperature))
        total -= math.log(scores[i] / sum(scores))
    return 2 * temperature * total / len(queries)


@pytest.mark.parametrize("ways", [1, 2])
def test_several_queries_of_an_image_are_no_negatives_of_each_other(ways: int) -> None:
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(4, 2, 3, generator=generator)
    keys = torch.randn(4, ways, 3, generator=generator)
    expected = (by_hand(queries[:, 0], keys[:, 0], 0.2) + by_hand(queries[:, 1], keys[:, ways - 1], 0.2)) / 2
    found = info_nce_over_views(
        queries.flatten(0, 1),
        keys.flatten(0, 1),
        views=2,
        temperature=0.2,
        of_all=lambda mine: of_all(mine, torch.arange(4), 4, Group()),
    )
    assert found.item() == pytest.approx(expected, rel=1e-5)


# The model


def test_the_projections_are_those_of_moco_v3() -> None:
    """Linear without bias and batch norm thrice, the last without weights; and twice."""
    layers = mlp(3, 768, 4096, 256)
    assert [type(layer) for layer in layers] == [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2 + [nn.Linear, nn.BatchNorm1d]
    assert sum(parameter.numel() for parameter in layers.parameters()) == (
        768 * 4096 + 2 * 4096 + 4096 * 4096 + 2 * 4096 + 4096 * 256
    )
    shapes = [tuple(layer.weight.shape) for layer in mlp(2, 256, 4096, 256) if isinstance(layer, nn.Linear)]
    assert shapes == [(4096, 256), (256, 4096)]


def standardised(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()


def projected(x: Tensor, layers: nn.Sequential) -> Tensor:
    """At its first weights: linear, standardise, ReLU, ..."""
    matrices = [layer.weight for layer in layers if isinstance(layer, nn.Linear)]
    for number, weight in enumerate(matrices):
        x = standardised(x @ weight.T)
        x = x.relu() if number < len(matrices) - 1 else x
    return x


def test_the_loss_of_a_model_by_hand() -> None:
    """Another crop for the momentum encoder, whose mask is none; then the same mask."""
    for mask in ("none", "same"):
        run = contrasted(SMALL.replace(crops="two", mask=mask))
        batch = audit.fixed_batch(run, 4)
        model = MaskedImageModel(run, 3).train()
        assert model.momentum is not None
        assert batch.pairs is not None
        assert batch.pairs.second is not None
        assert not torch.equal(batch.pairs.second, batch.images)
        with torch.no_grad():
            for parameter in model.momentum.encoder.parameters():  # type: ignore[union-attr]
                parameter.mul_(1.5)
            features = model.encode(batch.images, batch.units).mean((2, 3))
            encoder, token = model.momentum.encoder, model.momentum.mask_token
            hidden = batch.units.repeat_interleave(2, 1).repeat_interleave(2, 2) if mask == "same" else None
            keys = encoder(batch.pairs.second, hidden, token).mean((2, 3))  # type: ignore[operator]
            queries = projected(projected(features, model.projector), model.predictor)
            expected = by_hand(queries, projected(keys, model.momentum.projector), 0.2)  # type: ignore[arg-type]
            losses = model(*batch.inputs)[1]
        assert list(losses) == ["prediction", "contrastive"]
        assert losses["contrastive"].item() == pytest.approx(0.5 * expected, rel=1e-4)
        assert losses["prediction"].item() == pytest.approx(total(model(batch.images, batch.units)[1]).item())


def test_swapped_crops_are_both_ways() -> None:
    run = contrasted(SMALL.replace(crops="swapped", weight=1.0))
    batch = audit.fixed_batch(run, 4)
    model = MaskedImageModel(run, 3).train()
    assert batch.pairs is not None
    assert batch.pairs.units is not None
    assert not torch.equal(batch.pairs.units, batch.units)
    forth = model(batch.images, batch.units, batch.pairs._replace(units=None))[1]["contrastive"]
    assert batch.pairs.second is not None
    back = model(batch.pairs.second, batch.pairs.units, batch.pairs._replace(second=batch.images, units=None))[1][
        "contrastive"
    ]
    both = model(*batch.inputs)[1]["contrastive"]
    assert both.item() == pytest.approx((forth + back).item(), rel=1e-5)


@pytest.mark.parametrize(
    "run",
    [
        contrasted(),
        contrasted(SMALL.replace(crops="two", mask="same")),
        contrasted(SMALL.replace(crops="swapped", mask=CheckerboardMask(size=8, square=2))),
        contrasted(mask=ComplementMask(size=8)),
        contrasted(SMALL.replace(mask="same"), mask=CheckerboardMask(size=4, phase="both")),
        contrasted(
            SMALL.replace(crops="swapped", mask=TokenMask(size=4, ratio=0.5)),
            corruption=Corruption(token="drop"),
            head=DecoderHead(depth=1, width=16, heads=2),
        ),
    ],
    ids=["plain", "two crops", "swapped", "complement", "both phases", "dropped"],
)
def test_everything_is_trained_and_a_batch_can_be_learnt(run: Pretrain) -> None:
    assert audit.dead_parameters(run) == []
    batch = audit.fixed_batch(run, 4)
    assert audit.is_masked(run, batch)
    assert overfit(run, batch)[0] <= LEARNT


def test_every_choice_makes_a_difference() -> None:
    runs = [
        contrasted(SMALL.replace(**changes))
        for changes in (
            {},
            {"weight": 1.0},
            {"temperature": 0.1},
            {"crops": "two"},
            {"crops": "swapped"},
            {"mask": "same"},
            {"mask": RandomMask(size=8, ratio=0.5)},
            {"hidden": 8},
            {"out": 16},
            {"projector_layers": 2},
            {"predictor_layers": 1},
        )
    ]
    steps = [audit.first_step(run) for run in (*runs, pretrain())]
    for number, step in enumerate(steps):
        assert not any(step.same_as(other) for other in steps[:number])


def test_other_losses_do_not_move_the_first_weights() -> None:
    with_it, without = (MaskedImageModel(run, 3).state_dict() for run in (contrasted(), pretrain()))
    assert all(torch.equal(with_it[name], tensor) for name, tensor in without.items())


def test_masks_of_the_momentum_encoder_depend_on_the_place_alone() -> None:
    run = contrasted(SMALL.replace(crops="swapped", mask=TokenMask(size=4, ratio=0.5)))
    positions = torch.arange(8)
    whole = draw_masks(run, masks_of(run), step=3, steps=9, positions=positions)
    part = draw_masks(run, masks_of(run), step=3, steps=9, positions=positions[5:])
    assert [*whole] == [FIRST, SECOND, MOMENTUM, SWAPPED]
    assert all(torch.equal(whole[name][5:], part[name]) for name in whole)
    assert len({tuple(hidden.flatten().tolist()) for hidden in whole.values()}) == 4, "each has a stream of its own"


# Refusals


def test_micro_batches_are_refused(tmp_path: Path) -> None:
    session = Session(None, torch.device("cpu"), micro_batch=8)  # type: ignore[arg-type]
    with pytest.raises(HarnessError, match="compares all images of a batch: 16 at a time in each of 1 process"):
        require_whole_batch(contrasted(), session)
    session.group = Group(0, 2)
    require_whole_batch(contrasted(), session)
    require_whole_batch(pretrain(), Session(None, torch.device("cpu"), micro_batch=1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: contrasted(momentum=None), "contrastive needs a momentum encoder"),
        (lambda: contrasted(recipe=RECIPE.replace(batch_size=1)), "batch_size should be 2 or more"),
        (lambda: contrasted(SMALL.replace(mask=RandomMask(size=6, ratio=0.5))), "a momentum encoder's mask unit of 6"),
        (lambda: contrasted(SMALL.replace(mask=ComplementMask(size=8))), "does not look at the image, once; not comp"),
        (lambda: contrasted(SMALL.replace(mask=FrequencyMask(radius=4.0))), "'none' or 'same' where frequencies"),
        (lambda: Contrastive(temperature=0.0), "temperature"),
        (lambda: Contrastive(mask="both"), "mask"),  # type: ignore[arg-type]
    ],
)
def test_what_does_not_fit_is_refused(make: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()
