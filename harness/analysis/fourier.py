"""Spectra of the feature maps of a model, layer by layer.

Definition as in Park and Kim (ICLR 2022) and A2MIM's analysis (Westlake-AI/A2MIM, analysis_tools/fourier_analysis).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models.beit import Beit
from timm.models.convnext import ConvNeXt
from timm.models.resnet import ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from harness.analysis.chosen import chosen
from harness.analysis.sweep import sweep, write_arrays
from harness.core.batches import test_batches
from harness.core.datasets import load
from harness.core.encoder import Family
from harness.core.labelled import test_batch_size
from harness.core.session import Session
from harness.core.start import frozen_encoder
from harness.spec import Fourier

TINY = 1e-6
"""What the amplitude is raised by before its logarithm is taken."""


class Tap(NamedTuple):
    """Where a feature map is read: what comes into a module, or goes out of it."""

    name: str
    module: nn.Module
    before: bool = False


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
    model, size = encoder.model, test_batch_size(session)
    parts = math.ceil(len(images) / size)
    layers = taps(model)
    blank = torch.zeros(1, source.channels, run.image_size, run.image_size, device=session.device)
    sides = [found.shape[-1] for found in maps(model, layers, blank)]
    shape = (parts, len(layers), max(map(frequencies, sides)))
    sums = {name: torch.zeros(shape, dtype=torch.float64) for name in ("amplitude", "squares")}
    sums["variance"] = torch.zeros(shape[:2], dtype=torch.float64)

    def compute(part: int) -> None:
        batches = test_batches(
            images, image_size=run.image_size, crop=run.crop, batch_size=size, device=session.device,
            workers=session.workers, rank=part, size=parts,
        )  # fmt: skip
        inputs, _ = next(iter(batches))
        for layer, features in enumerate(maps(model, layers, inputs)):
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
    names = np.array([layer.name for layer in layers])
    write_arrays(session,
        names=names, sides=np.array(sides), amplitude=amplitude, error=error, variance=variances,
    )  # fmt: skip
    session.attempt.finish(_metrics(amplitude, variances, sides), seconds)


def taps(model: Family) -> list[Tap]:
    """Where a model is looked at, in the order of computation; see `harness.spec.Fourier`."""
    parts: Any = model
    match model:
        case VisionTransformer() | Beit():
            # What comes into the norm before the MLP is the residual path after the attention.
            return [
                tap
                for number, block in enumerate(parts.blocks, start=1)
                for tap in (Tap(f"attention {number}", block.norm2, before=True), Tap(f"MLP {number}", block))
            ]
        case SwinTransformer() | SwinTransformerV2():
            blocks = [block for stage in parts.layers for block in stage.blocks]
            return [
                Tap("patches", parts.patch_embed),
                *(Tap(f"block {number}", block) for number, block in enumerate(blocks, start=1)),
            ]
        case ConvNeXt():
            blocks = [block for stage in parts.stages for block in stage.blocks]
            return [
                Tap("stem", parts.stem),
                *(Tap(f"block {number}", block) for number, block in enumerate(blocks, start=1)),
            ]
        case ResNet():
            blocks = [block for stage in (parts.layer1, parts.layer2, parts.layer3, parts.layer4) for block in stage]
            return [
                Tap("stem", parts.maxpool),
                *(Tap(f"block {number}", block) for number, block in enumerate(blocks, start=1)),
            ]
        case _:
            assert_never(model)


@torch.no_grad()
def maps(model: Family, layers: list[Tap], images: Tensor) -> list[Tensor]:
    """The feature maps of images, float32 [B, C, h, w] for each layer, without class tokens."""
    found: dict[int, Tensor] = {}

    def keep(number: int, value: Tensor) -> None:
        found[number] = _as_map(model, value).float()

    def hooks() -> Iterator[Any]:
        for number, layer in enumerate(layers):
            if layer.before:
                yield layer.module.register_forward_pre_hook(lambda _, given, n=number: keep(n, given[0]))
            else:
                yield layer.module.register_forward_hook(lambda _, given, made, n=number: keep(n, made))

    hung = list(hooks())
    try:
        model(images)
    finally:
        for hook in hung:
            hook.remove()
    return [found[number] for number in range(len(layers))]


def _as_map(model: Any, value: Tensor) -> Tensor:
    """Tokens [B, prefix + N, C], a Swin's map [B, h, w, C] or a CNN's map, as [B, C, h, w]."""
    if isinstance(model, ConvNeXt | ResNet):
        return value
    if value.ndim == 4:
        return value.permute(0, 3, 1, 2)
    rows, columns = model.patch_embed.grid_size
    tokens = value[:, value.shape[1] - rows * columns :]
    return tokens.transpose(1, 2).reshape(len(value), -1, rows, columns)


def frequencies(side: int) -> int:
    """Frequencies on the diagonal of a map, from zero up: 0, 2 pi / side, ... The highest of an even side is left out,

    as it is in what this follows.
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


def _metrics(amplitude: NDArray[np.float64], variances: NDArray[np.float64], sides: list[int]) -> dict[str, float]:
    """Of the highest frequency and of the variance: the mean over layers and the last layer's."""
    high = [row[frequencies(side) - 1] for row, side in zip(amplitude, sides, strict=True)]
    return {
        "high_frequency": float(np.mean(high)),
        "high_frequency_last": float(high[-1]),
        "variance": float(np.mean(variances)),
        "variance_last": float(variances[-1]),
    }
