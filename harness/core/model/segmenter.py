"""A model that gives every pixel a class: maps of an encoder, and a head on them."""

from __future__ import annotations

from typing import assert_never

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.core.model.taps import Taps
from harness.core.model.upernet import UPerHead, resized
from harness.core.runtime.drop_path import Place
from harness.spec import LinearMap, UPerNet
from harness.spec.dense.segment import SegmentHead


class Segmenter(nn.Module):
    """Logits of every pixel of an image."""

    def __init__(self, taps: Taps, head: nn.Module) -> None:
        super().__init__()
        self.taps, self.head = taps, head

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits float32 [B, classes, H, W] of images [B, C, H, W]; in training also those of an auxiliary head."""
        logits, extra = self.head(self.taps(images))
        return enlarged(logits, images), None if extra is None else enlarged(extra, images)


def enlarged(logits: Tensor, like: Tensor) -> Tensor:
    """Logits as float32 at the size of images; out of autocast's reach, as sums of halves would lose digits."""
    return resized(logits.float(), like)


def build_segment_head(spec: SegmentHead, taps: Taps, classes: int, seed: int, place: Place) -> nn.Module:
    """A module from the maps of `taps` to logits [B, classes, h, w] and those of an auxiliary head, or None.

    Args:
        seed, place: of the run, and its position in training, from which dropout draws.
    """
    match spec:
        case LinearMap():
            return Linear(spec, sum(taps.widths), classes)
        case UPerNet():
            return UPerHead(spec, taps.widths, taps.strides, classes, seed, place)
        case _:
            assert_never(spec)


class Linear(nn.Module):
    """See `harness.spec.LinearMap`."""

    def __init__(self, spec: LinearMap, width: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, affine=False) if spec.batch_norm else nn.Identity()
        self.classify = nn.Conv2d(width, classes, 1)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(self.classify.bias)  # type: ignore[arg-type]

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, None]:
        """Logits [B, classes, h, w] at the size of the finest map."""
        found = torch.cat([resized(x, maps[0]) for x in maps], dim=1)
        return self.classify(self.norm(found)), None


def slide(model: nn.Module, images: Tensor, side: int, stride: int) -> Tensor:
    """Logits [B, classes, H, W] by windows of side x side, averaged where they overlap.

    Windows begin at every `stride` pixels; the last one of a row or column is moved back inside, as in mmsegmentation.
    Zeros fill the window of a smaller image.
    """
    height, width = images.shape[-2:]
    images = F.pad(images, (0, max(0, side - width), 0, max(0, side - height)))
    total, seen = torch.zeros(()), images.new_zeros(images.shape[-2:])
    for top in _starts(images.shape[-2], side, stride):
        for left in _starts(images.shape[-1], side, stride):
            window = (..., slice(top, top + side), slice(left, left + side))
            logits, _ = model(images[window])
            if not total.ndim:
                total = logits.new_zeros(len(images), logits.shape[1], *images.shape[-2:])
            total[window] += logits
            seen[window] += 1
    return (total / seen)[..., :height, :width]


def _starts(length: int, side: int, stride: int) -> list[int]:
    last = max(length - side, 0)
    return [*range(0, last, stride), last]
