"""Spectra of the feature maps of a model, layer by layer.

Definition as in Park and Kim (ICLR 2022) and A2MIM's analysis (Westlake-AI/A2MIM, analysis_tools/fourier_analysis).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models.beit import Beit
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from harness.analysis.chosen import chosen
from harness.analysis.sweep import sweep, write_arrays
from harness.core.data.batches import test_batches
from harness.core.data.datasets import load
from harness.core.evaluate.labelled import test_batch_size
from harness.core.evaluate.start import frozen_encoder
from harness.core.model.encoder import Encoder, as_map
from harness.core.runtime.session import Session
from harness.spec import Fourier

TINY = 1e-6
"""What the amplitude is raised by before its logarithm is taken."""


def fourier(run: Fourier, session: Session) -> None:
    """Publish the relative log amplitudes and variances of a model's layers, and write analysis.npz.

    Arrays, layers in the order of computation: names str [layers]; sides int64 [layers], of the maps; amplitude and
    error float64 [layers, frequencies], the mean over images of the relative log amplitude and its standard error, NaN
    beyond the highest frequency of a map; variance float64 [layers]. Frequency k of a map of side s is 2 pi k / s.
    The model computes in 32-bit floats.
    """
    source = load(run.data, "test")
    encoder = frozen_encoder(run, session, channels=source.channels)
    images = chosen(source, run.images, run.seed).to(session.device)
    size = test_batch_size(session)
    parts = math.ceil(len(images) / size)
    blank = torch.zeros(1, source.channels, run.image_size, run.image_size, device=session.device)
    names, sides = zip(*((name, found.shape[-1]) for name, found in maps(encoder, blank)), strict=True)
    shape = (parts, len(names), max(map(frequencies, sides)))
    sums = {name: torch.zeros(shape, dtype=torch.float64) for name in ("amplitude", "squares")}
    sums["variance"] = torch.zeros(shape[:2], dtype=torch.float64)

    def compute(part: int) -> None:
        batches = test_batches(
            images, image_size=run.image_size, crop=run.crop, batch_size=size, device=session.device,
            workers=session.workers, rank=part, size=parts,
        )  # fmt: skip
        inputs, _ = next(iter(batches))
        for layer, (_, features) in enumerate(maps(encoder, inputs)):
            amplitude = relative_log_amplitude(features).double()
            sums["amplitude"][part, layer, : amplitude.shape[1]] = amplitude.sum(0).cpu()
            sums["squares"][part, layer, : amplitude.shape[1]] = amplitude.square().sum(0).cpu()
            sums["variance"][part, layer] = variance(features).double().sum().cpu()

    seconds = sweep(session, parts=parts, found=sums, compute=compute, images=size)
    count = len(images)
    amplitude, squares, variances = (array.sum(0).numpy() / count for array in sums.values())
    error = np.sqrt(np.maximum(squares - amplitude**2, 0) / max(count - 1, 1))
    for layer, side in enumerate(sides):
        amplitude[layer, frequencies(side) :] = error[layer, frequencies(side) :] = math.nan
    write_arrays(session,
        names=np.array(names), sides=np.array(sides), amplitude=amplitude, error=error, variance=variances,
    )  # fmt: skip
    session.attempt.finish(_metrics(amplitude, variances, sides), seconds)


@torch.no_grad()
def maps(encoder: Encoder, images: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Name and feature map, float32 [B, C, h, w] without class tokens, of each layer that `Fourier` looks at."""
    model: Any = encoder.model
    vit = isinstance(model, VisionTransformer | Beit)
    middle: list[Tensor] = []
    # What comes into the norm before the MLP is the residual path after the attention.
    hooks = [
        block.norm2.register_forward_pre_hook(lambda _, given: middle.append(given[0]))
        for block in (model.blocks if vit else ())
    ]
    try:
        for place, (piece, features) in enumerate(encoder.maps(images)):
            if vit and piece.block is not None:
                yield f"attention {piece.block}", as_map(middle.pop(), piece, images).float()
                yield f"MLP {piece.block}", features.float()
            elif not vit and (place == 0 or piece.block is not None):
                yield "stem" if place == 0 else f"block {piece.block}", features.float()
    finally:
        for hook in hooks:
            hook.remove()


def frequencies(side: int) -> int:
    """Frequencies on the diagonal of a map, from zero up: 0, 2 pi / side, ...

    An even side's highest, pi, is left out, as the definition that this follows does.
    """
    return side - side // 2


def relative_log_amplitude(features: Tensor) -> Tensor:
    """Log amplitude of the DFT on the diagonal, averaged over channels, less that of frequency zero.

    Args:
        features: float [B, C, s, s].

    Returns:
        float [B, frequencies(s)].
    """
    amplitude = torch.log(torch.fft.fft2(features).abs() + TINY).mean(dim=1)
    diagonal = amplitude.diagonal(dim1=1, dim2=2)[:, : frequencies(features.shape[-1])]
    return diagonal - diagonal[:, :1]


def variance(features: Tensor) -> Tensor:
    """Variance of a map over its places, averaged over channels: float [B, C, h, w] -> float [B]."""
    return features.flatten(2).var(dim=2, correction=0).mean(dim=1)


def _metrics(amplitude: NDArray[np.float64], variances: NDArray[np.float64], sides: Sequence[int]) -> dict[str, float]:
    """Of the highest frequency and of the variance: the mean over layers and the last layer's."""
    high = [row[frequencies(side) - 1] for row, side in zip(amplitude, sides, strict=True)]
    return {
        "high_frequency": float(np.mean(high)),
        "high_frequency_last": float(high[-1]),
        "variance": float(np.mean(variances)),
        "variance_last": float(variances[-1]),
    }
