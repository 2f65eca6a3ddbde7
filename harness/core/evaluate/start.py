"""Models that evaluations start from, with the weights that the run's `start` names."""

from __future__ import annotations

from typing import Any, Protocol, assert_never

import torch
from torch import nn

from harness.core.model.backbones import layers_for
from harness.core.model.encoder import Encoder, Family, build
from harness.core.model.memory_format import to_device
from harness.core.runtime.randomness import initialised
from harness.core.runtime.session import Session
from harness.core.weights.checkpoint import checkpoint_weights, load_encoder, load_own, read_weights
from harness.core.weights.finished_run import Trained, TrainedDense
from harness.core.weights.formats import below
from harness.spec import (
    Checkpoint,
    CustomBackbone,
    FineTune,
    HarnessError,
    Pretrain,
    Scratch,
    Snapshot,
    key,
)
from harness.spec.dense.base import Dense
from harness.spec.run import Evaluated
from harness.store import Store
from harness.store.snapshots import whole_snapshot

STD = 0.02
"""Deviation of a new classifier's weights, unless a spec says otherwise."""
AnyStart = Scratch | FineTune | Pretrain | Snapshot | Checkpoint


def classifier(run: FineTune, session: Session, *, channels: int, num_classes: int) -> Family:
    """Model to be fine-tuned, with the start's weights. Encoder and classifier are initialised from own streams."""

    def make() -> Family:
        return build(
            run.built,
            image_size=run.image_size,
            channels=channels,
            num_classes=num_classes,
            pool=run.pool,
            drop_path=run.recipe.drop_path,
        )

    model = initialised(run.seed, "encoder", make)
    # Drawn again: the weights of a new classifier must not depend on how many numbers the encoder drew.
    initialised(run.seed, "classifier", lambda: _reset(model.get_classifier(), classifier_scale(run)))
    load_start(run, model, session.attempt)
    return model


def frozen_encoder(run: Evaluated[Any], session: Session, *, channels: int) -> Encoder:
    """Frozen encoder of a run, in evaluation mode and without gradients."""
    start = run.start
    if isinstance(start, FineTune):
        return Encoder(fine_tuned(start, session, channels=channels))
    model = initialised(run.seed, "encoder", lambda: build(run.encoder, image_size=run.image_size, channels=channels))
    load_start(run, model, session.attempt)
    return to_device(Encoder(model), session.device).eval().requires_grad_(False)


def dense_encoder(run: Dense, session: Session, *, channels: int) -> Encoder:
    """Encoder of a run with a head at many places, with the start's weights; frozen if the run says so."""
    model = _new_dense(run, channels)
    load_start(run, model, session.attempt)
    encoder = to_device(Encoder(model), session.device)
    return encoder.eval().requires_grad_(False) if run.frozen else encoder


def encoder_below(trained: TrainedDense, device: torch.device) -> Encoder:
    """Encoder of a finished run with a head at many places, into which its weights are to be loaded.

    A frozen one is no part of these weights and has those of the run's start already.

    Raises:
        HarnessError: the start's weights are missing or damaged, or do not fit.
    """
    run = trained.run
    model = _new_dense(run, trained.facts.channels)
    if not run.frozen:
        return Encoder(model)
    load_start(run, model, trained)
    return to_device(Encoder(model), device).eval().requires_grad_(False)


def _new_dense(run: Dense, channels: int) -> Family:
    def make() -> Family:
        # What is trained is built as a fine-tuning builds it: a BEiT of variant `simmim` with a table in each block.
        pool = "" if run.frozen else "mean"
        return build(run.built, image_size=run.image_size, channels=channels, pool=pool, drop_path=run.recipe.drop_path)

    return initialised(run.seed, "encoder", make)


def fine_tuned(run: FineTune, session: Session, *, channels: int) -> Family:
    """Classifier of a finished fine-tuning that a run starts from, in evaluation mode and without gradients.

    Raises:
        HarnessError: its weights are missing or damaged, or do not fit the model of its spec.
    """
    name = key(run)
    tensors = read_weights(session.attempt.store.upstream_weights(name))
    # The number of classes is read from the weights: the data set need not be on this machine.
    classes = len(tensors[layers_for(run.built).classifier])
    model = initialised(
        run.seed,
        "encoder",
        lambda: build(run.built, image_size=run.image_size, channels=channels, num_classes=classes, pool=run.pool),
    )
    load_own(model, tensors, name)
    return to_device(model, session.device).eval().requires_grad_(False)


def classifier_of(trained: Trained, device: torch.device) -> Family:
    """Classifier of a finished fine-tuning that was opened by name or file, in evaluation mode.

    Raises:
        HarnessError: the run is a pre-training, or the weights do not fit.
    """
    run = trained.run
    if not isinstance(run, FineTune):
        raise HarnessError(
            f"{trained.name} is a pretrain, which knows no classes; predict with a finetune, a segment or a detect"
        )
    if not trained.num_classes:
        raise HarnessError(f"{trained.name} holds an encoder without a classifier; it is no file of a fine-tuning")
    model = build(
        run.built,
        image_size=run.image_size,
        channels=trained.facts.channels,
        num_classes=trained.num_classes,
        pool=run.pool,
    )
    load_own(model, trained.weights.encoder, trained.name)
    return model.to(device).eval().requires_grad_(False)


def encoder_of(trained: Trained, device: torch.device) -> Encoder:
    """Encoder of a finished pre-training or fine-tuning that was opened by name or file, in evaluation mode.

    Raises:
        HarnessError: the weights do not fit.
    """
    run = trained.run
    if isinstance(run, FineTune):
        return Encoder(classifier_of(trained, device))
    model = build(run.built, image_size=run.image_size, channels=trained.facts.channels)
    load_encoder(model, trained.weights.encoder, trained.name)
    return Encoder(model).to(device).eval().requires_grad_(False)


class _OfStore(Protocol):
    """An attempt or a finished run: what knows the store that its run's start lies in."""

    @property
    def store(self) -> Store: ...


def load_start(run: Evaluated[Any], model: Family, of: _OfStore) -> None:
    """Load the weights of a run's start into a model; a start from scratch has none, and no store is asked for any.

    Raises:
        HarnessError: the weights are missing or damaged, are not those that the key names, or do not fit.
    """
    start: AnyStart = run.start
    match start:
        case Scratch():
            return
        case FineTune():
            raise HarnessError(f"{key(start)} is a whole classifier, of which `fine_tuned` makes the model")
        case Pretrain():
            name = key(start)
            tensors = read_weights(of.store.upstream_weights(name))
            load_encoder(model, below(tensors, "encoder.model."), name)
        case Snapshot():
            name, epoch = key(start.pretrain), start.epoch
            tensors = read_weights(whole_snapshot(of.store, name, epoch))
            load_encoder(model, below(tensors, "encoder.model."), f"{name} after epoch {epoch}")
        case Checkpoint():
            load_encoder(model, checkpoint_weights(start).encoder, start.path)
        case _:
            assert_never(start)


def classifier_scale(run: FineTune) -> float:
    """Factor on a new classifier's weights, by default 1, and of a BEiT its `head_init_scale` or 0.001."""
    if run.classifier_std is not None:
        return run.classifier_std / STD
    backbone = run.built
    if isinstance(backbone, CustomBackbone) or not backbone.name.startswith("beit_"):
        return 1.0
    # timm scales a BEiT's classifier when it builds it, which drawing it again would undo.
    return float(dict(backbone.args).get("head_init_scale", 0.001))


def _reset(layer: nn.Module, scale: float = 1.0) -> None:
    """Initialise a classifier: normal of deviation STD, times `scale`; biases 0. Anything but a linear layer stays."""
    if isinstance(layer, nn.Linear):
        with torch.no_grad():
            nn.init.trunc_normal_(layer.weight, std=STD).mul_(scale)
            nn.init.zeros_(layer.bias)
