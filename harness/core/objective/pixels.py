"""Pixel targets: locally normalised images, and images without high frequencies."""

from __future__ import annotations

from typing import Literal, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-6
"""Added to variances (facebookresearch/mae, models_mae.py)."""

Area = Literal["patch", "window"]


def local_statistics(images: Tensor, size: int, area: Area) -> tuple[Tensor, Tensor]:
    """Local mean and deviation of each pixel; see `harness.spec.NormPixelTarget`.

    Args:
        images: float [B, C, H, W]. size: side of a patch, which divides H and W, or of a window, in pixels.

    Returns:
        Both float32 [B, 1, H, W] for patches, [B, C, H, W] for windows; the deviation is never 0.
    """
    images = images.float()
    match area:
        case "patch":
            batch, channels, height, width = images.shape
            patches = images.view(batch, channels, height // size, size, width // size, size)
            # Over all channels of a patch at once, and unbiased, as the released MAE normalises its targets.
            variance, mean = torch.var_mean(patches, dim=(1, 3, 5), correction=1)
            found = (mean, (variance + EPS).sqrt())
            mean, deviation = (value[:, None].repeat_interleave(size, 2).repeat_interleave(size, 3) for value in found)
            return mean, deviation
        case "window":
            # The mean of ones with the padding counted is the share of a window that lies inside the image.
            mean, square, share = (
                F.avg_pool2d(values, size, stride=1, padding=size // 2, count_include_pad=whole)
                for values, whole in ((images, False), (images.square(), False), (torch.ones_like(images), True))
            )
            # Windows at the border hold fewer pixels; the variance is unbiased for each count.
            count = share * size**2
            # The mean of squares less the square of the mean can round to below 0.
            variance = ((square - mean.square()) * count / (count - 1)).clamp(min=0)
            return mean, (variance + EPS).sqrt()
        case _:
            assert_never(area)


def low_pass(values: Tensor, radius: float) -> Tensor:
    """Low-pass filtered images, as absolute values: frequencies further than `radius` from zero are removed.

    Args:
        values: float [B, C, H, W], not normalised.
        radius: in places of the spectrum, from ((H - 1) / 2, (W - 1) / 2).

    Returns:
        float32 [B, C, H, W].
    """
    height, width = values.shape[-2:]
    rows, columns = (torch.arange(side, device=values.device) - (side - 1) / 2 for side in (height, width))
    kept = rows[:, None].square() + columns.square() <= radius**2
    spectrum = torch.fft.fftshift(torch.fft.fft2(values.float()), dim=(-2, -1))
    found: Tensor = torch.fft.ifft2(spectrum * kept).abs()  # not shifted back: that changes phases alone
    return found
