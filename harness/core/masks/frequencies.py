"""Masks of frequencies, and images with these frequencies removed. True = removed."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.core.masks.units import Draw
from harness.spec import FrequencyMask


def removed_frequencies(mask: FrequencyMask, draw: Draw) -> Tensor:
    """Removed frequencies, bool [B, S, S], on the grid of the shifted spectrum, zero at S // 2; see `FrequencyMask`."""
    apart = torch.arange(draw.image_size, device=draw.positions.device) - draw.image_size // 2
    low = apart[:, None].square() + apart.square() < mask.radius**2
    low_pass = draw.uniform("mask", 1)[:, 0] < mask.low_pass
    # A low-pass removes all but the low frequencies; a high-pass removes the low ones.
    return low ^ low_pass[:, None, None]


def without_frequencies(images: Tensor, removed: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Images without some frequencies; filtering works on pixel values in [0, 1], and the result is clipped to them.

    Args:
        images: float [B, C, S, S], normalised with mean and std, float [C]. removed: bool [B, S, S].

    Returns:
        Like `images`.
    """
    scale, shift = std[:, None, None], mean[:, None, None]
    # In float32: half-precision transforms take only sides that are powers of two.
    spectrum = torch.fft.fft2(images.float() * scale + shift)
    # The mask has frequency zero in the middle, torch.fft at the first place.
    kept = torch.fft.ifftshift(~removed, dim=(-2, -1))[:, None]
    values = torch.fft.ifft2(spectrum * kept).real.clamp(0, 1)
    found: Tensor = (values - shift) / scale
    return found.to(images.dtype)
