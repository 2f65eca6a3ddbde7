"""Starting points other than a pre-training of this package: new weights, or a file of weights."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from harness.spec.base import Spec
from harness.spec.model.backbone import AnyBackbone
from harness.spec.user_code import UserFile


class Scratch(Spec):
    """A starting point without pre-training: the control that every pre-training has to beat.

    backbone: the encoder, with new weights of the run's seed.
    image_size: side of its input in pixels.
    """

    kind: Literal["scratch"] = "scratch"
    backbone: AnyBackbone
    image_size: PositiveInt


class Checkpoint(UserFile):
    """A starting point from a file of weights: safetensors, or a torch file of tensors and plain values.

    Its names may be timm's, those of the released SimMIM (a pre-training or a fine-tuned classifier) or MAE (with its
    decoder or without), mmpretrain's, or those of a pre-training of this package. Relative position tables of another
    window and absolute positions of another image size are resized. An evaluation takes the encoder, a pre-training the
    mask token and the prediction head too.

    backbone: the encoder whose weights these are; of a Swin V2 that was fine-tuned with other windows than pre-trained,
        with `pretrained_window_sizes` in its args, which a file does not hold.
    image_size: side of its input in pixels. It and the backbone's windows say on which scale a Swin V2 reads positions.
    """

    kind: Literal["checkpoint"] = "checkpoint"
    backbone: AnyBackbone
    image_size: PositiveInt
