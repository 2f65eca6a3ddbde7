"""UPerNet: pyramid pooling over the coarsest map, a feature pyramid over all, and an auxiliary head.

Xiao et al., ECCV 2018, with the layers of mmsegmentation (uper_head.py, psp_head.py, fcn_head.py), which are written
here anew: convolutions without bias, norm, ReLU; bilinear resizing with align_corners=False.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

from harness.core.runtime.drop_path import KeyedChannelDropout, Place
from harness.spec import HarnessError, UPerNet, seed_stream

Norm = Literal["batch", "layer"]
AUX_WIDTH = 256
SCALES = (4.0, 2.0, 1.0, 0.5)
"""Factors on the sides of the four maps of an encoder of one stride, the earliest first."""


class UPerHead(nn.Module):
    """Logits, and those of an auxiliary head, from maps of an encoder; see `harness.spec.UPerNet`."""

    def __init__(
        self, spec: UPerNet, widths: Sequence[int], strides: Sequence[int], classes: int, seed: int, place: Place
    ) -> None:
        """seed, place: of the run, and its position in training, from which dropout draws.

        Raises:
            HarnessError: the encoder has one stride and does not give four maps.
        """
        super().__init__()
        width, (*finer, last) = spec.width, widths
        self.rescale = _rescaling(spec.norm, widths, strides)
        self.pools = spec.pools
        self.pooled = nn.ModuleList(_conv(last, width, 1, spec.norm) for _ in spec.pools)
        self.coarsest = _conv(last + len(spec.pools) * width, width, 3, spec.norm)
        self.lateral = nn.ModuleList(_conv(channels, width, 1, spec.norm) for channels in finer)
        self.smooth = nn.ModuleList(_conv(width, width, 3, spec.norm) for _ in finer)
        self.fused = _conv(len(widths) * width, width, 3, spec.norm)
        streams = [seed_stream(seed, f"dropout {name}") for name in ("head", "auxiliary head")]
        self.classify = _classifier(width, classes, spec.dropout, streams[0], place)
        self.auxiliary: nn.Module | None = None
        if spec.aux:
            seen = finer[-1] if finer else last
            self.auxiliary = nn.Sequential(
                _conv(seen, AUX_WIDTH, 3, spec.norm),
                _classifier(AUX_WIDTH, classes, spec.dropout, streams[1], place),
            )

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Logits [B, classes, h, w] at the size of the finest map; those of the auxiliary head only in training."""
        maps = [rescale(found) for rescale, found in zip(self.rescale, maps, strict=True)]
        x = self._coarsest(maps[-1])
        levels = [x]
        for lateral, smooth, found in zip([*self.lateral][::-1], [*self.smooth][::-1], maps[-2::-1], strict=True):
            # The sum goes on to the next finer level, and only what leaves the pyramid is smoothed.
            x = lateral(found) + resized(x, found)
            levels.insert(0, smooth(x))
        fused = self.fused(torch.cat([resized(level, levels[0]) for level in levels], dim=1))
        seen = maps[-2] if len(maps) > 1 else maps[-1]
        extra = self.auxiliary(seen) if self.auxiliary is not None and self.training else None
        return self.classify(fused), extra

    def _coarsest(self, x: Tensor) -> Tensor:
        parts = [resized(conv(pooled(x, side)), x) for side, conv in zip(self.pools, self.pooled, strict=True)]
        found: Tensor = self.coarsest(torch.cat([x, *parts], dim=1))
        return found


def resized(x: Tensor, like: Tensor) -> Tensor:
    """A map [B, C, h, w] at the size of another, bilinear."""
    return x if x.shape[2:] == like.shape[2:] else F.interpolate(x, like.shape[2:], mode="bilinear")


def pooled(x: Tensor, side: int) -> Tensor:
    """Means of a map [B, C, h, w] over side x side windows, as torch's `adaptive_avg_pool2d`: [B, C, side, side]."""
    # By two matrices, as the backward pass of torch's own is not deterministic on GPUs.
    rows, columns = (_windows(length, side, x) for length in x.shape[2:])
    return rows @ x @ columns.mT


def _windows(length: int, side: int, like: Tensor) -> Tensor:
    """Weights [side, length] of the means over windows from floor(i length / side) to ceil((i + 1) length / side)."""
    places, windows = torch.arange(length, device=like.device), torch.arange(side, device=like.device)[:, None]
    inside = (places >= windows * length // side) & (places < -(-(windows + 1) * length // side))
    return inside.to(like.dtype) / inside.sum(1, keepdim=True)


def _rescaling(norm: Norm, widths: Sequence[int], strides: Sequence[int]) -> nn.ModuleList:
    """Modules that bring maps of one stride to four; identities where their strides differ already."""
    if len(set(strides)) > 1:
        return nn.ModuleList(nn.Identity() for _ in strides)
    if len(strides) != len(SCALES):
        raise HarnessError(f"UPerNet takes {len(SCALES)} maps of an encoder of one stride, not {len(strides)}")
    return nn.ModuleList(_rescaled(norm, width, scale) for width, scale in zip(widths, SCALES, strict=True))


def _rescaled(norm: Norm, width: int, scale: float) -> nn.Module:
    if scale == 1.0:
        return nn.Identity()
    if scale < 1.0:
        return nn.MaxPool2d(2)
    if scale == 2.0:
        return nn.ConvTranspose2d(width, width, 2, 2)
    return nn.Sequential(
        nn.ConvTranspose2d(width, width, 2, 2),
        _norm(norm, width),
        nn.GELU(),
        nn.ConvTranspose2d(width, width, 2, 2),
    )


def _conv(width: int, out: int, side: int, norm: Norm) -> nn.Sequential:
    layer = nn.Conv2d(width, out, side, padding=side // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(layer, _norm(norm, out), nn.ReLU())


def _norm(norm: Norm, width: int) -> nn.Module:
    return nn.BatchNorm2d(width) if norm == "batch" else LayerNorm2d(width)


def _classifier(width: int, classes: int, dropout: float, stream: int, place: Place) -> nn.Module:
    layer = nn.Conv2d(width, classes, 1)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(KeyedChannelDropout(stream, dropout, place), layer) if dropout else layer
