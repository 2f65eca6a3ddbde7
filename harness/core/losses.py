"""The prediction error."""

from __future__ import annotations

from typing import assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.core.targets import split_classes
from harness.spec import Loss


def prediction_loss(loss: Loss, prediction: Tensor, target: Tensor, hidden: Tensor | None = None) -> Tensor:
    """sum(error * w) / (sum(w) + 1e-5) / channels, w = 1 where it counts (released SimMIM, models/simmim.py).

    sum(w) counts pixels once, not once a channel, hence the division by the channels. Cross-entropy is one error a map
    of the target, and maps are averaged as channels are: R, G and B for bins.

    Args:
        prediction, target: [B, C, H, W]; for cross-entropy [B, C * classes, H, W], the classes of a map together, and
            int64 [B, C, H, W]. hidden: bool [B, H, W], True = hidden; needed where `loss.scope` is masked.

    Returns:
        A float32 scalar; over the masked area or the full image, as `loss.scope` says.
    """
    match loss.kind:
        case "l1":
            error = (prediction.float() - target.float()).abs()
        case "l2":
            error = (prediction.float() - target.float()).square()
        case "smooth-l1":
            error = F.smooth_l1_loss(prediction.float(), target.float(), reduction="none", beta=loss.beta or 1.0)
        case "cross-entropy":
            logits = split_classes(prediction.float(), prediction.shape[1] // target.shape[1])
            error = F.cross_entropy(logits, target, reduction="none")
        case _:
            assert_never(loss.kind)
    match loss.scope:
        case "masked":
            if hidden is None:
                raise ValueError("a loss over the masked area needs the mask")
            weight = hidden[:, None].to(error.dtype)
        case "full":
            weight = torch.ones_like(error[:, :1])
        case _:
            assert_never(loss.scope)
    return (error * weight).sum() / (weight.sum() + 1e-5) / error.shape[1]
