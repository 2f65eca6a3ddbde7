"""Formats of checkpoints: recognised by the names of tensors, and renamed to timm's. Pure functions on dicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, assert_never

from torch import Tensor

from harness.core.weights.formats.mae import from_mae
from harness.core.weights.formats.mmpretrain import from_mmpretrain
from harness.core.weights.formats.official import from_official, to_official
from harness.core.weights.formats.positions import resized, resized_table
from harness.core.weights.formats.weights import BUFFERS, Weights, below, without_buffers

REST = ("momentum.", "projector.", "predictor.", "loss_predictor.")
"""Prefixes of a pre-training's tensors other than encoder, mask token, head and targets."""

Format = Literal["harness", "official", "mmpretrain", "mae", "timm"]

__all__ = [
    "BUFFERS",
    "Format",
    "Weights",
    "below",
    "named_as_timm",
    "recognise",
    "resized",
    "resized_table",
    "to_official",
]


def recognise(tensors: Mapping[str, Tensor]) -> Format:
    """Format of a checkpoint, recognised by the names of its tensors.

    harness: a pre-training of this package. official: microsoft/SimMIM's pre-training, or a Swin classifier as it and
    microsoft/Swin-Transformer save it (their ViT classifier has timm's names). mmpretrain: open-mmlab's. mae:
    facebookresearch/mae's pre-training with its decoder. timm: others.
    """
    # The order matters: a pre-training of this package also has names that begin with `encoder.`.
    if any(name.startswith("encoder.model.") for name in tensors):
        return "harness"
    if any(name.startswith("backbone.") for name in tensors):
        return "mmpretrain"
    if any(name.startswith("encoder.") for name in tensors) or "layers.0.downsample.reduction.weight" in tensors:
        return "official"
    if {"patch_embed.proj.weight", "mask_token", "decoder_pred.weight"} <= tensors.keys():
        return "mae"
    return "timm"


def named_as_timm(tensors: Mapping[str, Tensor]) -> Weights:
    """Parts of a checkpoint of any known format, with timm's names."""
    found = recognise(tensors)
    match found:
        case "harness":
            encoder, head, targets = (below(tensors, prefix) for prefix in ("encoder.model.", "head.", "targets."))
            rest = {name: tensor for name, tensor in tensors.items() if name.startswith(REST)}
            return Weights(encoder, tensors.get("mask_token"), head, targets, tensors.get("mask_gate"), rest)
        case "official":
            return from_official(tensors)
        case "mmpretrain":
            return from_mmpretrain(tensors)
        case "mae":
            return from_mae(tensors)
        case "timm":
            return Weights(without_buffers(tensors))
        case _:
            assert_never(found)
