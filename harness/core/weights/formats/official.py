"""Key names of the released SimMIM (microsoft/SimMIM, models/ and utils.py), for its Swin and its ViT.

The ViT's names are those of timm's BEiT. The Swin's differ in two ways: patch merging ends a stage where timm's begins
the next, and the classifier is `head`, timm's `head.fc`. The order of the four merged neighbours is the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from harness.core.weights.formats.weights import Weights, below, without_buffers

_MERGING = re.compile(r"layers\.(\d+)\.downsample\.")


def from_official(tensors: Mapping[str, Tensor]) -> Weights:
    """A pre-training (`encoder.*`, `decoder.0.*`) or a classifier (no prefix)."""
    encoder = below(tensors, "encoder.")
    # Only a pre-training has this prefix, and then on every tensor of its encoder.
    if not encoder:
        return Weights(_to_timm(without_buffers(tensors)))
    token = encoder.pop("mask_token", None)
    return Weights(
        _to_timm(without_buffers(encoder)),
        None if token is None else token.flatten(),
        below(tensors, "decoder."),
    )


def to_official(weights: Weights, *, pretraining: bool) -> dict[str, Tensor]:
    """The released code's names: those of a pre-training, or of a classifier.

    The prediction head is expected to be linear; a buffer among the encoder's tensors is renamed like a parameter.
    """
    encoder = _from_timm(weights.encoder)
    if not pretraining:
        return encoder
    named = {f"encoder.{name}": tensor for name, tensor in encoder.items()}
    if weights.mask_token is not None:
        named = {"encoder.mask_token": weights.mask_token.reshape(1, 1, -1), **named}
    return named | {f"decoder.{name}": tensor for name, tensor in weights.head.items()}


def _to_timm(encoder: dict[str, Tensor]) -> dict[str, Tensor]:
    if not any(name.startswith("layers.") for name in encoder):
        return encoder  # a ViT, whose names are timm's
    return {_classifier(_moved(name, 1), "head.", "head.fc."): tensor for name, tensor in encoder.items()}


def _from_timm(encoder: dict[str, Tensor]) -> dict[str, Tensor]:
    if not any(name.startswith("layers.") for name in encoder):
        return dict(encoder)
    return {_classifier(_moved(name, -1), "head.fc.", "head."): tensor for name, tensor in encoder.items()}


def _moved(name: str, stages: int) -> str:
    """Name with its patch merging moved by some stages, which end with it in the released code and begin in timm."""
    return _MERGING.sub(lambda found: f"layers.{int(found[1]) + stages}.downsample.", name)


def _classifier(name: str, old: str, new: str) -> str:
    return new + name.removeprefix(old) if name.startswith(old) else name
