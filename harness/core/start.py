"""What an evaluation starts from: a timm model with the weights that its start names."""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

import torch
from torch import Tensor, nn

from harness.core.checkpoint import load_encoder, read_weights
from harness.core.encoder import Encoder, Family, build
from harness.core.randomness import initialised
from harness.core.session import Session
from harness.spec import Backbone, Checkpoint, Evaluation, FineTune, HarnessError, Pretrain, Scratch, key
from harness.spec.content import file_sha256


def classifier(run: FineTune, session: Session, *, channels: int, num_classes: int) -> Family:
    """The model that is fine-tuned. Encoder and classifier draw from their own streams."""

    def make() -> Family:
        return build(
            run.start.backbone,
            image_size=run.image_size,
            channels=channels,
            num_classes=num_classes,
            pool=run.pool,
            drop_path=run.recipe.drop_path,
        )

    model = initialised(run.seed, "encoder", make)
    initialised(run.seed, "classifier", lambda: _reset(model.get_classifier(), classifier_scale(run.start.backbone)))
    load_start(run, model, session)
    return model


def frozen_encoder(run: Evaluation, session: Session, *, channels: int) -> Encoder:
    """The encoder that is evaluated as it is, in evaluation mode and without gradients."""
    model = initialised(
        run.seed, "encoder", lambda: build(run.start.backbone, image_size=run.image_size, channels=channels)
    )
    load_start(run, model, session)
    return Encoder(model).to(session.device).eval().requires_grad_(False)


def load_start(run: Evaluation, model: Family, session: Session) -> None:
    """Put the start's weights into a model.

    Raises:
        HarnessError: weights are missing, damaged, other than the key says, or do not fit.
    """
    match run.start:
        case Scratch():
            return
        case Pretrain():
            name = key(run.start)
            tensors = read_weights(session.attempt.upstream_weights(name))
            load_encoder(model, encoder_part(tensors), name)
        case Checkpoint(path=path, sha256=expected):
            file = Path(path).expanduser()
            if file_sha256(file) != expected:
                raise HarnessError(f"{path} has changed since this run was planned; plan again")
            load_encoder(model, read_weights(file), path)
        case _:
            assert_never(run.start)


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
