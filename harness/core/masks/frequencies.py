"""Masks of frequencies, and what is left of an image without them. True = removed."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.core.runtime.draws import Draw
from harness.spec import FrequencyMask


def removed_frequencies(mask: FrequencyMask, draw: Draw) -> Tensor:
    """Bool [B, S, S] on the grid of the shifted spectrum, zero at S // 2; see `FrequencyMask`."""
    apart = torch.arange(draw.image_size, device=draw.positions.device) - draw.image_size // 2
    low = apart[:, None].square() + apart.square() < mask.radius**2
    low_pass = draw.uniform("mask", 1)[:, 0] < mask.low_pass
    return low ^ low_pass[:, None, None]


def without_frequencies(images: Tensor, removed: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Images without some frequencies: of pixel values in [0, 1], and cut to that range again.

    Args:
        images: float [B, C, S, S], normalised with mean and std, float [C]. removed: bool [B, S, S].

    Returns:
        Like `images`.
    """
    scale, shift = std[:, None, None], mean[:, None, None]
    spectrum = torch.fft.fft2(images.float() * scale + shift)
    kept = torch.fft.ifftshift(~removed, dim=(-2, -1))[:, None]
    values = torch.fft.ifft2(spectrum * kept).real.clamp(0, 1)
    found: Tensor = (values - shift) / scale
    return found.to(images.dtype)
