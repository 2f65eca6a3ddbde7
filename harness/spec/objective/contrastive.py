"""A contrastive loss beside the prediction error."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from harness.spec.base import Spec
from harness.spec.masks.masking import Mask


class Contrastive(Spec):
    """InfoNCE between the encoder and the momentum encoder, added to the prediction error.

    A query is what projector and predictor make of the mean of the encoder's features over all places that it computed,
    a key what the momentum encoder and its projector make of the same image; both have length 1. The image's own key is
    the positive, those of all other images of the global batch the negatives:
    2 * temperature * CE(queries * keys / temperature). Projector and predictor are MLPs without biases, with a batch
    norm behind every layer, the last of them without weights, and ReLU between them. All of this is MoCo v3's (Chen et
    al., ICCV 2021; mmpretrain, configs/mocov3 and models/heads/mocov3_head.py), which takes the class token where the
    mean is taken here.

    The batch norms take their statistics over the recipe's `batch_norm_group`. The loss compares all images of a batch,
    which micro-batches would cut apart: they are refused.

    weight: factor on it in the loss.
    temperature: 0.2 in MoCo v3.
    crops: `same`: both encoders see the same crop; `two`: the momentum encoder sees another crop of the image;
        `swapped`: as `two`, and the sum of that and of the loss with the crops swapped, each crop with a mask of its
        own, as MoCo v3 symmetrises it. Predictions are of the first crop alone.
    mask: mask of the momentum encoder: `none`, `same` (the encoder's mask of the other crop, in the
        momentum encoder's own crop), or a mask of its own.
    hidden, out: channels between the layers, and of queries and keys.
    projector_layers, predictor_layers: their numbers of layers.
    """

    weight: PositiveFloat = 1.0
    temperature: PositiveFloat = 0.2
    crops: Literal["same", "two", "swapped"] = "same"
    mask: Literal["none", "same"] | Mask = "none"
    hidden: PositiveInt = 4096
    out: PositiveInt = 256
    projector_layers: PositiveInt = 3
    predictor_layers: PositiveInt = 2
