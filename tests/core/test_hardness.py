"""Masks that look at the image in a training: attention of the momentum encoder, errors that a predictor expects."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from overfit import LEARNT, overfit
from tiny import BINS, CLASSES, SWIN, VIT, pretrain

from harness import audit
from harness.core.objective.hard_patches import attention_scores, patch_errors, ranking_loss
from harness.core.pretrain.mim import MaskedImageModel
from harness.launch import Resources
from harness.launch.job import work
from harness.spec import (
    Contrastive,
    Corruption,
    DecoderHead,
    GuidedMask,
    HardMask,
    HarnessError,
    LossPredictor,
    MomentumEncoder,
    Pretrain,
    RandomMask,
    key,
)
from harness.store import Store
from harness.use import reconstruct

DECODER = DecoderHead(depth=1, width=16, heads=2)
PREDICTOR = LossPredictor(decoder=DECODER)
ATTENTIVE = pretrain(mask=GuidedMask(size=8, ratio=0.5), momentum=MomentumEncoder(start=0.5))
HARD = pretrain(
    mask=HardMask(size=4, first=1.0, last=1.0),
    momentum=MomentumEncoder(start=0.5),
    loss_predictor=PREDICTOR,
    corruption=Corruption(token="drop"),
    head=DECODER,
)


# Scores


def test_attention_is_that_of_the_class_token_by_hand() -> None:
    model = MaskedImageModel(ATTENTIVE, 3).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    vit: Any = model.encoder.model
    with torch.no_grad():
        x = vit.blocks[0](vit._pos_embed(vit.patch_embed(images)))
        x = vit.blocks[1].norm1(x)
        found = attention_scores(model.encoder, images)
        for image in range(2):
            expected = torch.zeros(64)
            for head in range(2):
                weight, bias = vit.blocks[1].attn.qkv.weight, vit.blocks[1].attn.qkv.bias
                rows = slice(head * 16, head * 16 + 16)
                query = weight[:32][rows] @ x[image, 0] + bias[:32][rows]
                keys = x[image] @ weight[32:64][rows].T + bias[32:64][rows]
                scores = (keys @ query / math.sqrt(16)).exp()
                expected += (scores / scores.sum())[1:] / 2
            torch.testing.assert_close(found[image].flatten(), expected, rtol=1e-4, atol=1e-6)


def test_attention_is_not_rounded_under_autocast() -> None:
    """In bf16 values near 1/65 are a few, and of equal ones the first places would be hidden."""
    model = MaskedImageModel(ATTENTIVE, 3).eval()
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        found = attention_scores(model.encoder, images)
    assert found.dtype == torch.float32
    assert all(len(scores.unique()) > 60 for scores in found)


def test_runs_whose_attention_was_rounded_have_another_revision() -> None:
    for run, raised in ((ATTENTIVE, 4), (HARD, 0)):
        short = run.replace(recipe=run.recipe.replace(precision="bf16"))
        assert short.current_revision() - run.current_revision() == raised


def test_ranking_by_hand() -> None:
    """Three hidden patches and one that is not; two of them have equal errors."""
    predicted, errors = torch.tensor([[1.0, 3.0, 0.0, 9.0]]), torch.tensor([[2.0, 5.0, 2.0, 7.0]])
    hidden = torch.tensor([[True, True, True, False]])

    def cost(larger: float, smaller: float) -> float:
        return math.log(1 + math.exp(smaller - larger))

    expected = (cost(3, 1) + cost(3, 0)) / 2  # each pair twice, in both orders; the first and third are equal
    assert ranking_loss(predicted, errors, hidden).item() == pytest.approx(expected, rel=1e-5)
    nothing = ranking_loss(predicted, errors, torch.zeros_like(hidden))
    assert nothing.item() == 0.0


def test_errors_of_patches_by_hand() -> None:
    prediction, target = torch.zeros(1, 2, 4, 4), torch.arange(32.0).view(1, 2, 4, 4)
    expected = [
        sum(target[0, c, i, j].item() ** 2 for c in range(2) for i in rows for j in columns) / 8
        for rows in ((0, 1), (2, 3))
        for columns in ((0, 1), (2, 3))
    ]
    assert patch_errors(prediction, target, 2)[0].tolist() == pytest.approx(expected)


# Masks


def shifted(model: MaskedImageModel) -> MaskedImageModel:
    """A model whose momentum encoder is another than its encoder."""
    assert model.momentum is not None
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.momentum.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


@pytest.mark.parametrize("run", [ATTENTIVE, HARD], ids=["attention", "loss"])
def test_scores_are_the_momentum_encoder_s_of_the_whole_image(run: Pretrain) -> None:
    model = shifted(MaskedImageModel(run, 3)).train()
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    found = model.scores(images)
    assert found is not None
    assert found.shape == (3, 8, 8)
    assert not found.requires_grad
    with torch.no_grad():
        for parameter in (*model.encoder.parameters(), *model.loss_predictor.parameters()) if run is HARD else ():
            parameter.add_(1.0)  # the trained weights do not count
    again = model.scores(images)
    assert again is not None
    assert torch.equal(found, again)
    one = model.scores(images[1:2])
    assert one is not None
    torch.testing.assert_close(one, found[1:2], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "run",
    [
        ATTENTIVE,
        HARD,
        HARD.replace(mask=RandomMask(size=4, ratio=0.75), momentum=None),
        ATTENTIVE.replace(contrastive=Contrastive(hidden=16, out=8, crops="swapped")),
    ],
    ids=["attention", "loss", "predictor alone", "swapped"],
)
def test_everything_is_trained_and_a_batch_can_be_learnt(run: Pretrain) -> None:
    assert audit.dead_parameters(run) == []
    batch = audit.fixed_batch(run, 4)
    assert audit.is_masked(run, batch)
    assert overfit(run, batch)[0] <= LEARNT


def test_masks_hide_what_has_the_highest_scores() -> None:
    for run in (ATTENTIVE, HARD):
        batch = audit.fixed_batch(run, 4)
        scores = MaskedImageModel(run, 3).eval().scores(batch.images)
        assert scores is not None
        finer = scores.shape[1] // batch.units.shape[1]
        scores = torch.nn.functional.avg_pool2d(scores[:, None], finer)[:, 0]
        for units, score in zip(batch.units, scores, strict=True):
            assert score[units].min() >= score[~units].max()


def test_whole_runs_reconstruct_and_repeat(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    for run in (ATTENTIVE, HARD):
        digests = []
        for name in ("one", "other"):
            store = Store(tmp_path / name / run.mask.kind)
            event = work(store, run, torch.device("cpu"), Resources(), report=lambda event: None)
            assert event.kind == "done", event.text
            result = store.result(key(run))
            assert result is not None
            digests.append(result.weights)
        assert digests[0] == digests[1]
        picture = torch.randint(0, 255, (32, 32, 3), dtype=torch.uint8).numpy()
        own = reconstruct(key(run), picture, store=store.root, device="cpu")
        assert own.mask == run.mask
        other = RandomMask(size=8, ratio=0.5)
        assert reconstruct(key(run), picture, mask=other, store=store.root, device="cpu").mask == other


@pytest.mark.parametrize("run", [ATTENTIVE, HARD], ids=["attention", "loss"])
def test_masks_that_look_go_with_drop_path_and_slices(run: Pretrain, tmp_path: Path) -> None:
    """The momentum encoder drops nothing, so that an image's mask is the same in any slice."""
    torch.set_num_threads(1)
    run = run.replace(recipe=run.recipe.replace(drop_path=0.3))
    losses = []
    for size in (None, 5):
        store = Store(tmp_path / str(size))
        event = work(store, run, torch.device("cpu"), Resources(micro_batch=size), report=lambda event: None)
        assert event.kind == "done", event.text
        losses.append([line["loss"] for line in store.metrics(key(run))])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


# Refusals


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"momentum": None}, "the mask 'guided' needs a momentum encoder"),
        ({"mask": HardMask(size=4)}, "the mask 'hard' looks at predicted losses: set loss_predictor"),
        ({"backbone": SWIN, "image_size": 32}, "attention is read from a plain ViT"),
        ({"loss_predictor": PREDICTOR, "target": BINS, "loss": CLASSES}, "the target 'bins' has classes"),
        (
            {"loss_predictor": PREDICTOR, "backbone": SWIN, "mask": RandomMask(size=8, ratio=0.5), "momentum": None},
            "ranks places of 32 px, the encoder's stride: mask units of 8 px should be a multiple of that",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ATTENTIVE.replace(**changes)


def test_blocks_without_an_attention_of_their_own_are_refused_before_training() -> None:
    parallel = VIT.replace(name="vit_base_patch16_18x2_224")
    with pytest.raises(HarnessError, match="blocks with one attention each, not from ParallelThingsBlock"):
        MaskedImageModel(ATTENTIVE.replace(backbone=parallel), 3)
