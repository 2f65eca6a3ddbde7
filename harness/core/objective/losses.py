"""Prediction error, and the denominators of all loss terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.core.runtime.custom import call, load_function
from harness.spec import AnyLoss, CustomLoss, HarnessError, Pretrain
from harness.spec.objective.loss import DISTANCES

TINY = 1e-12
"""Added to squared distances of spectra (released MFM), so that their roots have gradients; the least base of a power
below 1, for the same reason."""


def loss_weight(loss: AnyLoss, hidden: Tensor) -> Tensor:
    """Denominator of `prediction_loss`, up to a constant factor: hidden units, or all of them.

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


def loss_denominators(run: Pretrain, hidden: Tensor) -> dict[str, Tensor]:
    """Denominators of all loss terms: hidden units for the prediction error, images for the others.

    Args:
        hidden: bool [B, units, units], True = hidden.

    Returns:
        float64 scalars by the names that `MaskedImageModel` gives its losses.
    """
    first = loss_weight(run.loss, hidden)
    others = {"fourier": run.fourier, "contrastive": run.contrastive, "ranking": run.loss_predictor}
    images = {name: torch.full_like(first, len(hidden)) for name, spec in others.items() if spec is not None}
    return {"prediction": first, **images}


def total(losses: Mapping[str, Tensor]) -> Tensor:
    """Sum of losses by name; a scalar."""
    return torch.stack([*losses.values()]).sum()


def prediction_loss(loss: AnyLoss, prediction: Tensor, target: Tensor, hidden: Tensor | None = None) -> Tensor:
    """Mean prediction error: sum(error * w) / (sum(w) + 1e-5) / channels, as the released SimMIM (models/simmim.py).

    w is 1 at pixels in the scope of the loss, else 0. It counts a pixel once for all channels, hence the division by
    their number. Cross-entropy gives one error for each map of the target, and maps are averaged like channels (R, G
    and B for bins). A cosine gives one error for all channels. A frequency loss counts frequencies instead of pixels,
    with zero in the middle (torch.fft.fftshift).

    Args:
        prediction, target: [B, C, H, W]; for cross-entropy [B, C * classes, H, W], the classes of a map together, and
            int64 [B, C, H, W]. hidden: bool [B, H, W], True = hidden, or removed, of frequencies; needed where
            `loss.scope` is masked.

    Returns:
        A float32 scalar; over the masked area or the full image, as `loss.scope` says.
    """
    match loss.kind:
        case "custom":
            error = _custom(loss, prediction.float(), target, hidden)
        case "l1" | "l2" | "smooth-l1" | "focal-l1":
            error = distance_error(loss, (prediction.float() - target.float()).abs())
        case "cosine":
            # The squared distance of unit vectors.
            error = 2 - 2 * F.cosine_similarity(prediction.float(), target.float(), dim=1)[:, None]
        case "frequency":
            # The transform is linear: the spectrum of the difference is the difference of the spectra.
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
            # One channel, as with a mask: a pixel counts once for all of them.
            weight = torch.ones_like(error[:, :1])
        case _:
            assert_never(loss.scope)
    return (error * weight).sum() / (weight.sum() + 1e-5) / error.shape[1]


def _custom(loss: CustomLoss, prediction: Tensor, target: Tensor, hidden: Tensor | None) -> Tensor:
    """Error map float32 [B, K, H, W] of a user's own function; arguments as for `prediction_loss`."""
    function = load_function(loss.function, loss.source)
    made = call(function, loss.function, prediction, target, hidden, **dict(loss.params))
    batch, _, *size = target.shape
    if not isinstance(made, Tensor) or made.ndim != 4 or [len(made), *made.shape[2:]] != [batch, *size]:
        found = list(made.shape) if isinstance(made, Tensor) else type(made).__name__
        wanted = f"[{batch}, K, {', '.join(map(str, size))}]"
        raise HarnessError(f"{loss.function} should return an error map {wanted}, not {found}")
    if not made.is_floating_point() or made.device != prediction.device:
        raise HarnessError(
            f"{loss.function} should return floats on {prediction.device}, not {made.dtype} on {made.device}"
        )
    # Else the model would not be trained by it, in silence.
    if prediction.requires_grad and not made.requires_grad:
        raise HarnessError(f"{loss.function} returned an error without a gradient into the prediction")
    return made.float()


def distance_error(loss: AnyLoss, distance: Tensor) -> Tensor:
    """Error as a function of the absolute difference `distance` >= 0 of prediction and target; elementwise.

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
        case "cosine" | "frequency" | "cross-entropy" | "custom":
            raise ValueError(f"a {loss.kind} loss is no function of a distance; valid: {', '.join(DISTANCES)}")
        case _:
            assert_never(loss.kind)


def split_classes(prediction: Tensor, classes: int) -> Tensor:
    """[B, maps * classes, h, w] with the classes of a map together, as [B, classes, maps, h, w]."""
    batch, _, *size = prediction.shape
    return prediction.reshape(batch, -1, classes, *size).transpose(1, 2)
