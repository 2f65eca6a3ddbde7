"""What an evaluation starts from: a timm model with the weights that its start names."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import torch
from torch import Tensor, nn

from harness.core.model.backbones import layers_named
from harness.core.model.encoder import Encoder, Family, build
from harness.core.model.memory_format import placed
from harness.core.runtime.randomness import initialised
from harness.core.runtime.session import Session
from harness.core.weights.checkpoint import load_encoder, read_weights
from harness.core.weights.formats import Weights, named_as_timm
from harness.spec import (
    Backbone,
    Checkpoint,
    CustomEvaluation,
    FineTune,
    Fourier,
    HarnessError,
    Knn,
    LinearProbe,
    Pretrain,
    Scratch,
    Snapshot,
    key,
)
from harness.spec.external_content import file_sha256
from harness.store.snapshots import whole_snapshot

if TYPE_CHECKING:
    from harness.core.pretrain.mim import MaskedImageModel

LOG = logging.getLogger(__name__)
Frozen = LinearProbe | Knn | CustomEvaluation | Fourier
"""Evaluations of an encoder as it is."""


def classifier(run: FineTune, session: Session, *, channels: int, num_classes: int) -> Family:
    """The model that is fine-tuned. Encoder and classifier draw from their own streams."""

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
    initialised(run.seed, "classifier", lambda: _reset(model.get_classifier(), classifier_scale(run.built)))
    load_start(run, model, session)
    return model


def frozen_encoder(run: Frozen, session: Session, *, channels: int) -> Encoder:
    """The encoder that is evaluated as it is, in evaluation mode and without gradients."""
    start = run.start
    if isinstance(start, FineTune):
        return Encoder(fine_tuned(start, session, channels=channels))
    model = initialised(
        run.seed, "encoder", lambda: build(start.backbone, image_size=run.image_size, channels=channels)
    )
    load_start(run, model, session)
    return placed(Encoder(model), session.device).eval().requires_grad_(False)


def fine_tuned(run: FineTune, session: Session, *, channels: int) -> Family:
    """The classifier that a fine-tuning made, in evaluation mode and without gradients.

    Raises:
        HarnessError: its weights are missing, damaged, or do not fit its own model.
    """
    name = key(run)
    tensors = read_weights(session.attempt.upstream_weights(name))
    classes = len(tensors[layers_named(run.built.name).classifier])
    model = initialised(
        run.seed,
        "encoder",
        lambda: build(run.built, image_size=run.image_size, channels=channels, num_classes=classes, pool=run.pool),
    )
    load_own(model, tensors, name)
    return placed(model, session.device).eval().requires_grad_(False)


def load_own(model: nn.Module, tensors: dict[str, Tensor], name: str) -> None:
    """Put the weights that a run left into a model that is built as it was.

    Raises:
        HarnessError: they do not fit.
    """
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise HarnessError(f"the weights of {name} do not fit its own model: {reason:.200}") from None


def load_start(run: FineTune | Frozen, model: Family, session: Session) -> None:
    """Put the start's weights into a model.

    Raises:
        HarnessError: weights are missing, damaged, other than the key says, or do not fit.
    """
    match run.start:
        case Scratch():
            return
        case FineTune():
            raise HarnessError(f"{key(run.start)} is a whole classifier, of which `fine_tuned` makes the model")
        case Pretrain():
            name = key(run.start)
            tensors = read_weights(session.attempt.upstream_weights(name))
            load_encoder(model, encoder_part(tensors), name)
        case Snapshot():
            name, epoch = key(run.start.pretrain), run.start.epoch
            tensors = read_weights(whole_snapshot(session.attempt.store, name, epoch))
            load_encoder(model, encoder_part(tensors), f"{name} after epoch {epoch}")
        case Checkpoint():
            load_encoder(model, checkpoint_weights(run.start).encoder, run.start.path)
        case _:
            assert_never(run.start)


def load_pretraining_start(start: Checkpoint, model: MaskedImageModel) -> None:
    """Put a checkpoint's weights into a model that is to be pre-trained further.

    The encoder has to fit. A mask token, its gate or a prediction head that the file lacks, or that has another shape,
    begins anew, which is logged.

    Raises:
        HarnessError: the file is other than the key says, or its encoder does not fit.
    """
    found = checkpoint_weights(start)
    load_encoder(model.encoder.model, found.encoder, start.path)
    for name, ours, theirs in (
        ("mask token", model.mask_token, found.mask_token),
        ("gate", model.mask_gate, found.mask_gate),
    ):
        _taken_over(name, ours, theirs, start.path)
    own = {name: tensor.shape for name, tensor in model.head.state_dict().items()}
    if own == {name: tensor.shape for name, tensor in found.head.items()}:
        model.head.load_state_dict(found.head)
    else:
        LOG.warning("%s has no prediction head of this shape: it begins anew", start.path)


@torch.no_grad()
def _taken_over(name: str, ours: Tensor | None, theirs: Tensor | None, path: str) -> None:
    if ours is None:
        return
    if theirs is not None and theirs.shape == ours.shape:
        ours.copy_(theirs)
    else:
        LOG.warning("%s has no %s of width %d: it begins anew", path, name, len(ours))


def checkpoint_weights(start: Checkpoint) -> Weights:
    """The parts of a checkpoint's file, whichever format it has.

    Raises:
        HarnessError: the file does not read, or is other than the key says.
    """
    file = Path(start.path).expanduser()
    if file_sha256(file) != start.sha256:
        raise HarnessError(f"{start.path} has changed since this run was planned; plan again")
    return named_as_timm(read_weights(file))


def encoder_part(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's weights under timm's names, out of a pre-training's."""
    prefix = "encoder.model."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def classifier_scale(backbone: Backbone) -> float:
    """Factor on the classifier's first weights: a BEiT's `head_init_scale`, which is 0.001 unless stated; else 1."""
    scale: float = dict(backbone.args).get("head_init_scale", 0.001) if backbone.name.startswith("beit_") else 1.0
    return scale


def _reset(layer: nn.Module, scale: float = 1.0) -> None:
    if isinstance(layer, nn.Linear):
        with torch.no_grad():
            nn.init.trunc_normal_(layer.weight, std=0.02).mul_(scale)
            nn.init.zeros_(layer.bias)
