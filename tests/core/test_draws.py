"""Random inputs of steps, drawn ahead: those of each step alone, wherever the drawing begins."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import DATA, RECIPE, VIT, pretrain
from torch.optim.optimizer import register_optimizer_step_post_hook

from harness.core.data.batches import Batch
from harness.core.data.datasets import load
from harness.core.masks.masking import make_views
from harness.core.pretrain import draws
from harness.core.pretrain.draws import drawn_batches, masks_of
from harness.core.runtime.operators import Operators
from harness.core.runtime.session import Session
from harness.runs import compute
from harness.spec import (
    BlockMask,
    ComplementMask,
    Contrastive,
    FineTune,
    GuidedMask,
    MomentumEncoder,
    Pretrain,
    Run,
    Scratch,
    TokenMask,
    seed_stream,
)
from harness.store import Attempt, Store

CPU = torch.device("cpu")
QUICKSTART = Path(__file__).parents[2] / "studies" / "quickstart.py"
SWAPPED = Contrastive(hidden=8, out=8, crops="swapped", mask=TokenMask(size=4, ratio=0.5))
RUNS = {
    "one mask": pretrain(mask=BlockMask(size=4, ratio=0.5)),
    "two views": pretrain(mask=ComplementMask(size=8), seed=1),
    "two crops with masks of their own": pretrain(momentum=MomentumEncoder(), contrastive=SWAPPED),
    "guided, with an unguided mask": pretrain(
        mask=GuidedMask(size=8, ratio=0.5), momentum=MomentumEncoder(), contrastive=SWAPPED.replace(crops="two")
    ),
}


def batches_of(run: Pretrain, first: int, steps: int = 60) -> list[Batch]:
    session: Any = Session(attempt=None, device=CPU)  # type: ignore[arg-type]
    return list(drawn_batches(run, load(run.data, "pretrain"), session, steps, first))


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_a_resumed_training_draws_what_it_would_have_drawn(run: Pretrain) -> None:
    """From a step within a block on, to the last bit."""
    whole = batches_of(run, 0)
    for first in (1, 7, 37):
        resumed = batches_of(run, first)
        assert len(resumed) == 60 - first
        for one, other in zip(whole[first:], resumed, strict=True):
            assert one.step == other.step
            assert all(torch.equal(a, b) for a, b in zip(one[1:], other[1:], strict=True))


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_masks_drawn_ahead_are_those_of_each_step(run: Pretrain) -> None:
    unguided = {name: mask for name, mask in masks_of(run).items() if mask.scored_by is None}
    for batch in batches_of(run, 0):
        rows = slice(3, 11)
        part = Batch(batch.step, *(tensor[rows] for tensor in batch[1:]))
        found = draws._drawn(run, part)
        assert [*found] == [*unguided]
        for name, hidden in found.items():
            wanted = make_views(
                unguided[name],
                image_size=32,
                seed=run.seed if name == draws.FIRST else seed_stream(run.seed, name),
                step=batch.step,
                steps=60,
                positions=torch.arange(3, 11),
            )
            assert torch.equal(hidden, wanted)


def operators_a_step(run: Run, folder: Path) -> float:
    """Mean number over the steps of a run, drawing ahead, metrics lines and all."""
    counted, totals = Operators(), list[int]()
    hook = register_optimizer_step_post_hook(lambda *_: totals.append(counted.total))
    attempt = Store(folder).acquire(run)
    assert isinstance(attempt, Attempt)
    try:
        with counted:
            compute(run, Session(attempt, CPU))
    finally:
        hook.remove()
        attempt.release()
    return (totals[-1] - totals[0]) / (len(totals) - 1)


def test_operators_a_step_of_the_quickstart_s_pre_training(tmp_path: Path) -> None:
    """Each drawn and computed by itself, inputs made it 506."""
    study = runpy.run_path(str(QUICKSTART))
    (evaluation,) = study["cell"](study["MINI"], "masked area", 0.6, 0).values()
    run = evaluation.start
    assert isinstance(run, Pretrain)
    recipe = run.recipe.replace(epochs=1, warmup_epochs=0)
    run = run.replace(data=run.data.replace(train_images=64 * 40), recipe=recipe)
    assert operators_a_step(run, tmp_path) <= 160


def test_drop_path_takes_two_operators_a_layer(tmp_path: Path) -> None:
    """Of a fine-tuning with the blocks of ViT-B: timm's own takes 1.27 times the operators of none, ours no more."""
    deep = VIT.replace(args={"embed_dim": 24, "depth": 12, "num_heads": 2})
    data, start = DATA.replace(train=48), Scratch(backbone=deep, image_size=32)
    recipe = RECIPE.replace(epochs=2, batch_size=8, drop_path=0.0)
    without, with_it = (
        operators_a_step(
            FineTune(start=start, data=data, image_size=32, tested_epochs=1, recipe=recipe.replace(drop_path=rate)),
            tmp_path / str(rate),
        )
        for rate in (0.0, 0.1)
    )
    assert 1 < with_it / without <= 1.27
