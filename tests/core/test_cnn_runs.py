"""Whole runs of CNNs: pre-training with a token inside the network, then every evaluation of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_backbones import CONVNEXT, RESNET
from tiny import RECIPE, pretrain

from harness.core.weights.checkpoint import read_weights
from harness.launch.job import work
from harness.launch.resources import Resources
from harness.spec import (
    AfterStage,
    Backbone,
    Checkpoint,
    Corruption,
    FineTune,
    Knn,
    LinearProbe,
    Pretrain,
    RandomMask,
    Run,
    key,
)
from harness.spec.data.external_content import file_sha256
from harness.store import Store

CNNS = pytest.mark.parametrize("backbone", [RESNET, CONVNEXT], ids=["resnet", "convnext"])
Compute = Callable[..., dict[str, Any]]


@pytest.fixture
def compute(tmp_path: Path) -> Compute:
    """Compute runs in order in a fresh store; the last one's losses, metrics, digest of weights and store."""
    stores = itertools.count()

    def call(*runs: Run, **resources: Any) -> dict[str, Any]:
        store = Store(tmp_path / str(next(stores)))
        torch.set_num_threads(1)
        for run in runs:
            event = work(store, run, torch.device("cpu"), Resources(**resources), report=lambda event: None)
            assert event.kind == "done", event.text
        name = key(runs[-1])
        result = store.result(name)
        assert result is not None
        losses = [line["loss"] for line in store.metrics(name) if "loss" in line]
        return {"losses": losses, "metrics": result.metrics, "weights": result.weights, "store": store}

    return call


def pretraining(backbone: Backbone, **corruption: Any) -> Pretrain:
    values = {"fill": "image-mean", "token": "gated-add", "site": AfterStage(stage=2, stride=8), **corruption}
    return pretrain(backbone=backbone, corruption=Corruption(**values), mask=RandomMask(size=8, ratio=0.5))


@CNNS
def test_every_evaluation_of_a_cnn_computes(backbone: Backbone, compute: Compute) -> None:
    start = pretraining(backbone)
    recipe = RECIPE.replace(layer_decay=0.8, drop_path=0.1, batch_norm_group=8 if backbone is RESNET else None)
    tuned = FineTune(start=start, recipe=recipe, image_size=64, crop=1.0)
    evaluations = (
        tuned,
        LinearProbe(start=start, recipe=RECIPE, block=3),
        LinearProbe(start=start, recipe=RECIPE),
        Knn(start=start),
        Knn(start=start, block=1),
    )
    for run in evaluations:
        found = compute(start, run)
        assert 0 <= found["metrics"]["top1"] <= 100


@CNNS
def test_runs_repeat_and_slices_do_not_matter(backbone: Backbone, compute: Compute) -> None:
    """Noise that fills hidden pixels is that of the place in the global batch, however the batch is cut."""
    run = pretraining(backbone, fill="noise").replace(
        recipe=RECIPE.replace(batch_norm_group=4 if backbone is RESNET else None)
    )
    first, again, sliced = compute(run), compute(run), compute(run, micro_batch=4)
    assert (first["losses"], first["weights"]) == (again["losses"], again["weights"])
    assert sliced["losses"] == pytest.approx(first["losses"], rel=1e-4)
    other = compute(run.replace(seed=1))
    assert other["losses"] != first["losses"]


@CNNS
def test_a_pre_training_goes_on_from_a_checkpoint_with_its_token_and_gate(backbone: Backbone, compute: Compute) -> None:
    run = pretraining(backbone)
    done = compute(run)
    path = done["store"].weights(key(run))
    held = read_weights(path)
    assert {"mask_token", "mask_gate"} <= set(held)
    start = Checkpoint(path=str(path), sha256=file_sha256(path), backbone=backbone, image_size=32)
    recipe = RECIPE.replace(epochs=1, lr=1e-12, weight_decay=0.0)
    more = compute(run.replace(start=start, recipe=recipe))
    found = read_weights(more["store"].weights(key(run.replace(start=start, recipe=recipe))))
    for name in ("mask_token", "mask_gate"):
        torch.testing.assert_close(found[name], held[name], rtol=0, atol=1e-8)
