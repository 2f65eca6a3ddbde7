"""Features of an encoder as targets: a frozen teacher's, or the momentum encoder's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.core.model.encoder import Encoder, build
from harness.core.runtime.precision import alone_in
from harness.core.runtime.randomness import initialised
from harness.core.weights.checkpoint import checkpoint_weights, load_encoder
from harness.spec import FeatureTarget, HarnessError, MomentumTarget
from harness.spec.objective.targets import Norm


def teacher_of(target: FeatureTarget, channels: int) -> Encoder:
    """The frozen encoder of a feature target, with its weights, on the CPU.

    Raises:
        HarnessError: the file has changed, does not read or does not fit, or the features have another width.
    """
    spec = target.teacher
    # In a stream of its own: building a teacher draws nothing from the run's. The file's weights replace these.
    made = initialised(0, "teacher", lambda: build(spec.backbone, image_size=spec.image_size, channels=channels))
    load_encoder(made, checkpoint_weights(spec).encoder, spec.path)
    teacher = Encoder(made).eval().requires_grad_(False)
    # One pass over a blank image: a wrong width is refused before training starts.
    with torch.no_grad():
        found = teacher.features(torch.zeros(1, channels, spec.image_size, spec.image_size), target.block)
    _check(found, target.width, spec.image_size // spec.backbone.stride, spec.backbone.name)
    return teacher


def teacher_features(target: FeatureTarget, teacher: Encoder, images: Tensor) -> Tensor:
    """Features of the teacher, float32 [B, width, S / downsample, S / downsample].

    Computed in the target's precision, independent of the precision of training.

    Args:
        images: float [B, C, S, S], with the teacher's normalisation; resized to its image size if they differ, bicubic
            with antialiasing.
    """
    size = target.teacher.image_size
    with alone_in(target.precision, images.device):
        # The teacher sees what it was trained on: its own size, whatever that of the run.
        if size != images.shape[-1]:
            images = F.interpolate(images, size=size, mode="bicubic", antialias=True)
        return normalised(teacher.features(images, target.block).float(), target.norm)


def momentum_features(target: MomentumTarget, encoder: Encoder, images: Tensor) -> Tensor:
    """Features of the momentum encoder, float32 [B, width, S / downsample, S / downsample].

    Raises:
        HarnessError: the features have another width or resolution, or the last stage has fewer blocks.
    """
    found = mean_of_blocks(encoder.last_blocks(images, target.blocks), target.norm, target.mean_norm)
    _check(found, target.width, images.shape[-1] // target.downsample, "the encoder")
    return found


def mean_of_blocks(outputs: Sequence[Tensor], norm: Norm, mean_norm: Norm) -> Tensor:
    """Mean of the outputs of some blocks, float32; each is normalised by `norm`, and their mean by `mean_norm`.

    Args:
        outputs: [B, C, h, w] each.
    """
    whole = torch.stack([normalised(output.float(), norm) for output in outputs])
    return normalised(whole.mean(0), mean_norm)


def normalised(features: Tensor, norm: Norm) -> Tensor:
    """Features [B, C, h, w] normalised without parameters: `layer` over C, `instance` over h and w (eps 1e-5)."""
    match norm:
        case "none":
            return features
        case "layer":
            return F.layer_norm(features.movedim(1, -1), features.shape[1:2]).movedim(-1, 1)
        case "instance":
            return F.instance_norm(features)
        case _:
            assert_never(norm)


def _check(features: Tensor, width: int, side: int, name: str) -> None:
    found, places = features.shape[1], features.shape[2]
    if found != width:
        raise HarnessError(f"the features of {name} have {found} channels, not the stated {width}; set width={found}")
    if places != side:
        raise HarnessError(f"the features of {name} are {places} x {places}, where the target has {side} x {side}")
