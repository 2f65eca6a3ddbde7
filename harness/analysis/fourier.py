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
from timm.models.beit import Block as BeitBlock
from timm.models.vision_transformer import Block
from torch import Tensor

from harness.analysis.sweep import SampleBatches, sweep, write_arrays
from harness.core.data.datasets import load
from harness.core.evaluate.start import frozen_encoder
from harness.core.model.encoder import Encoder, as_map
from harness.core.runtime.session import Session
from harness.spec import Fourier, HarnessError

TINY = 1e-6
"""Added to the amplitude before its logarithm, as the published code does."""


def fourier(run: Fourier, session: Session) -> None:
    """Compute the relative log amplitudes and variances of a model's layers; publish metrics, write analysis.npz.

    Arrays, layers in the order of computation: names str [layers]; sides int64 [layers], of the maps; amplitude and
    error float64 [layers, frequencies], the mean over images of the relative log amplitude and its standard error, NaN
    beyond the highest frequency of a map, and errors of a single image; variance float64 [layers]. Frequency k of a map
    of side s is 2 pi k / s. The model computes in 32-bit floats.

    Raises:
        HarnessError: no map has a frequency besides zero.
    """
    source = load(run.data, "test")
    encoder = frozen_encoder(run, session, channels=source.channels)
    batches = SampleBatches(run, source, session)
    # One image tells the names and sizes of all maps, which the arrays need before the sweep begins.
    blank = torch.zeros(1, source.channels, run.image_size, run.image_size, device=session.device)
    names, sides = zip(*((name, found.shape[-1]) for name, found in maps(encoder, blank)), strict=True)
    if max(map(frequencies, sides)) == 1:
        raise HarnessError(f"no feature map of {run.image_size} px has a frequency besides zero: give larger images")
    shape = (batches.parts, len(names), max(map(frequencies, sides)))
    sums = {name: torch.zeros(shape, dtype=torch.float64) for name in ("amplitude", "squares")}
    sums["variance"] = torch.zeros(shape[:2], dtype=torch.float64)

    def compute(part: int) -> None:
        inputs, *_ = batches.part(part)
        for layer, (_, features) in enumerate(maps(encoder, inputs)):
            amplitude = relative_log_amplitude(features).double()
            sums["amplitude"][part, layer, : amplitude.shape[1]] = amplitude.sum(0).cpu()
            sums["squares"][part, layer, : amplitude.shape[1]] = amplitude.square().sum(0).cpu()
            sums["variance"][part, layer] = variance(features).double().sum().cpu()

    seconds = sweep(
        session,
        parts=batches.parts,
        found=sums,
        compute=compute,
        images=batches.size,
        part_size=batches.size,
    )
    count = batches.count
    amplitude, squares, variances = (array.sum(0).numpy() / count for array in sums.values())
    # Rounding can make the variance of equal values slightly negative.
    error = np.sqrt(np.maximum(squares - amplitude**2, 0) / (count - 1 if count > 1 else math.nan))
    for layer, side in enumerate(sides):
        amplitude[layer, frequencies(side) :] = error[layer, frequencies(side) :] = math.nan
    write_arrays(session,
        names=np.array(names), sides=np.array(sides), amplitude=amplitude, error=error, variance=variances,
    )  # fmt: skip
    session.attempt.finish(_metrics(amplitude, variances, sides), seconds)


@torch.no_grad()
def maps(encoder: Encoder, images: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Name and feature map, float32 [B, C, h, w] without class tokens, of each layer that `Fourier` measures."""
    model: Any = encoder.model
    blocks = list(getattr(model, "blocks", ()))
    # Others have attention and MLP side by side, or no norm between them: they are looked at after the block.
    vit = bool(blocks) and all(type(block) in (Block, BeitBlock) for block in blocks)
    after_attention: list[Tensor] = []
    # timm gives no feature map between attention and MLP; the input of the norm before the MLP is that map.
    hooks = [
        block.norm2.register_forward_pre_hook(lambda _, given: after_attention.append(given[0]))
        for block in (blocks if vit else ())
    ]
    try:
        for place, (piece, features) in enumerate(encoder.maps(images)):
            if vit and piece.block is not None:
                yield f"attention {piece.block}", as_map(after_attention.pop(), piece, images).float()
                yield f"MLP {piece.block}", features.float()
            elif not vit and (place == 0 or piece.block is not None):
                yield "stem" if place == 0 else f"block {piece.block}", features.float()
    finally:  # also where the caller stops early
        for hook in hooks:
            hook.remove()


def frequencies(side: int) -> int:
    """Number of frequencies on the diagonal of a map: 0, 2 pi / side, ...

    The highest of an even side, pi, is left out as in the published definition.
    """
    return side - side // 2


def relative_log_amplitude(features: Tensor) -> Tensor:
    """Log amplitude of the DFT on the diagonal, averaged over channels, minus that of frequency zero.

    Args:
        features: float [B, C, s, s].

    Returns:
        float [B, frequencies(s)].
    """
    amplitude = torch.log(torch.fft.fft2(features).abs() + TINY).mean(dim=1)
    diagonal = amplitude.diagonal(dim1=1, dim2=2)[:, : frequencies(features.shape[-1])]
    return diagonal - diagonal[:, :1]


def variance(features: Tensor) -> Tensor:
    """Variance of a map over positions, averaged over channels: float [B, C, h, w] -> float [B]."""
    return features.flatten(2).var(dim=2, correction=0).mean(dim=1)


def _metrics(amplitude: NDArray[np.float64], variances: NDArray[np.float64], sides: Sequence[int]) -> dict[str, float]:
    """Amplitude of the highest frequency and variance: mean over layers, and of the last layer.

    The amplitude is that of layers whose map has a side of three or more: of a smaller one zero is the only frequency.
    """
    high = [row[frequencies(side) - 1] for row, side in zip(amplitude, sides, strict=True) if frequencies(side) > 1]
    return {
        "high_frequency": float(np.mean(high)),
        "high_frequency_last": float(high[-1]),
        "variance": float(np.mean(variances)),
        "variance_last": float(variances[-1]),
    }
