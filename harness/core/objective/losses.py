"""The prediction error."""

from __future__ import annotations

from typing import assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.core.objective.targets import split_classes
from harness.spec import Loss, Pretrain
from harness.spec.loss import DISTANCES

TINY = 1e-12
"""Added to squared distances of spectra (released MFM), so that their roots have gradients; the least base of a power
below 1, for the same reason."""


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


def loss_weights(run: Pretrain, hidden: Tensor) -> Tensor:
    """`loss_weight`, and for each other loss that the run has, the number of images that it is a mean over.

    Args:
        hidden: bool [B, units, units], True = hidden.

    Returns:
        A float64 scalar, or float64 [T] of T losses.
    """
    first = loss_weight(run.loss, hidden)
    losses = (run.fourier, run.contrastive, run.loss_predictor)
    others = [torch.full_like(first, len(hidden)) for other in losses if other is not None]
    return torch.stack([first, *others]) if others else first


def prediction_loss(loss: Loss, prediction: Tensor, target: Tensor, hidden: Tensor | None = None) -> Tensor:
    """sum(error * w) / (sum(w) + 1e-5) / channels, w = 1 where it counts (released SimMIM, models/simmim.py).

    sum(w) counts pixels once, not once a channel, hence the division by the channels. Cross-entropy is one error a map
    of the target, and maps are averaged as channels are: R, G and B for bins. A cosine is one error for all channels. A
    frequency loss counts frequencies where the others count pixels; zero is in the middle (torch.fft.fftshift).

    Args:
        prediction, target: [B, C, H, W]; for cross-entropy [B, C * classes, H, W], the classes of a map together, and
            int64 [B, C, H, W]. hidden: bool [B, H, W], True = hidden, or removed, of frequencies; needed where
            `loss.scope` is masked.

    Returns:
        A float32 scalar; over the masked area or the full image, as `loss.scope` says.
    """
    match loss.kind:
        case "l1" | "l2" | "smooth-l1" | "focal-l1":
            error = distance_error(loss, (prediction.float() - target.float()).abs())
        case "cosine":
            error = 2 - 2 * F.cosine_similarity(prediction.float(), target.float(), dim=1)[:, None]
        case "frequency":
            difference = torch.fft.fft2(prediction.float() - target.float(), norm="ortho")
            power = difference.real.square() + difference.imag.square() + TINY
            error = torch.fft.fftshift(power ** ((loss.gamma or 1.0) / 2), dim=(-2, -1))
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


def distance_error(loss: Loss, distance: Tensor) -> Tensor:
    """The error of values that are some distance, at least 0, from what they should be; elementwise.

    Raises:
        ValueError: the loss is no function of a distance.
    """
    match loss.kind:
        case "l1":
            return distance
        case "l2":
            return distance.square()
        case "smooth-l1":
            return F.smooth_l1_loss(distance, torch.zeros_like(distance), reduction="none", beta=loss.beta or 1.0)
        case "focal-l1":  # 2 sigmoid(z) - 1 is tanh(z / 2)
            return distance * (distance * (loss.alpha or 0.2) / 2).tanh().clamp(min=TINY) ** (loss.gamma or 1.0)
        case "cosine" | "frequency" | "cross-entropy":
            raise ValueError(f"a {loss.kind} loss is no function of a distance; valid: {', '.join(DISTANCES)}")
        case _:
            assert_never(loss.kind)
