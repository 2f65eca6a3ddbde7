"""Targets and the prediction error."""

from __future__ import annotations

from typing import assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.core.custom import call, load_function
from harness.spec import CustomTarget, HarnessError, Loss, PixelTarget, Target


def target_channels(target: Target, channels: int) -> int:
    """Channels of a target for images of `channels` channels."""
    match target:
        case PixelTarget():
            return channels
        case CustomTarget():
            return target.channels
        case _:
            assert_never(target)


@torch.no_grad()
def make_target(target: Target, images: Tensor) -> Tensor:
    """The target of clean normalised images.

    Args:
        images: float [B, C, S, S].

    Returns:
        float32 [B, K, S / downsample, S / downsample].
    """
    match target:
        case PixelTarget():
            return F.avg_pool2d(images, target.downsample) if target.downsample > 1 else images
        case CustomTarget():
            made = call(load_function(target.function, target.source), target.function, images, **dict(target.params))
            side = images.shape[-1] // target.downsample
            wanted = (images.shape[0], target.channels, side, side)
            if not isinstance(made, Tensor) or tuple(made.shape) != wanted:
                found = list(made.shape) if isinstance(made, Tensor) else type(made).__name__
                raise HarnessError(f"{target.function} should return a tensor {list(wanted)}, not {found}")
            return made.detach().float()
        case _:
            assert_never(target)


def loss_weight(loss: Loss, hidden: Tensor) -> Tensor:
    """What `prediction_loss` divides by, up to a constant factor: over how much of some images it is a mean.

    Args:
        hidden: bool [B, units, units], True = hidden.

    Returns:
        A float64 scalar.
    """
    match loss.scope:
        case "masked":
            return hidden.sum(dtype=torch.float64)
        case "full":
            return torch.full_like(hidden, True).sum(dtype=torch.float64)
        case _:
            assert_never(loss.scope)


def prediction_loss(loss: Loss, prediction: Tensor, target: Tensor, hidden: Tensor | None = None) -> Tensor:
    """sum(error * w) / (sum(w) + 1e-5) / channels, w = 1 where it counts (released SimMIM, models/simmim.py).

    sum(w) counts pixels once, not once a channel, hence the division by the channels.

    Args:
        prediction, target: [B, C, H, W]. hidden: bool [B, H, W], True = hidden; needed where `loss.scope` is masked.

    Returns:
        A float32 scalar; over the masked area or the full image, as `loss.scope` says.
    """
    difference = prediction.float() - target.float()
    match loss.kind:
        case "l1":
            error = difference.abs()
        case "l2":
            error = difference.square()
        case "smooth-l1":
            error = F.smooth_l1_loss(prediction.float(), target.float(), reduction="none", beta=loss.beta or 1.0)
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
