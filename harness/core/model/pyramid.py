"""Feature pyramids of detectors: maps at four strides, each half as fine as the last, and a fifth for large boxes.

An encoder with several strides gets a feature pyramid network (Lin et al., CVPR 2017, as torchvision has it), one with
a single stride ViTDet's simple pyramid (Li et al., ECCV 2022, detectron2's `SimpleFeaturePyramid`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import torch.nn.functional as F
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from harness.spec import Fpn, HarnessError, SimplePyramid


class Pyramid(nn.Module):
    """Maps [B, width, h, w] made of an encoder's maps, the finest first; the last is the one before it at half size.

    Attributes:
        strides: side in image pixels of a position of each map, the last included.
        width: channels of each map.
    """

    def __init__(self, strides: Sequence[int], width: int) -> None:
        super().__init__()
        self.strides, self.width = (*strides, 2 * strides[-1]), width

    def levels(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """All maps but the last."""
        raise NotImplementedError

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps of all `strides` of an encoder's maps [B, C', h, w]."""
        found = self.levels(maps)
        return [*found, F.max_pool2d(found[-1], kernel_size=1, stride=2)]


class Network(Pyramid):
    """A feature pyramid network: 1x1 convolutions to one width, sums from coarse to fine, 3x3 convolutions."""

    def __init__(self, widths: Sequence[int], strides: Sequence[int], width: int) -> None:
        super().__init__(strides, width)
        self.network = FeaturePyramidNetwork([*widths], width)

    def levels(self, maps: Sequence[Tensor]) -> list[Tensor]:
        named = {str(number): made for number, made in enumerate(maps)}
        return [*self.network(named).values()]


class Simple(Pyramid):
    """ViTDet's pyramid: the last map at 4, 2, 1 and 1/2 times its size, each by layers of its own.

    4 times: two transposed convolutions, to 1/2 and 1/4 of the channels, a layer norm and GELU between them; twice: the
    first of them; half: a max-pool. Then a 1x1 and a 3x3 convolution without bias to `width`, a layer norm behind each.
    """

    def __init__(self, channels: int, stride: int, width: int) -> None:
        if stride % 4:
            raise HarnessError(f"a simple pyramid begins at a quarter of the stride, which 4 does not divide: {stride}")
        super().__init__((stride // 4, stride // 2, stride, stride * 2), width)
        half, quarter = channels // 2, channels // 4
        up = [_doubled(channels, half), LayerNorm2d(half), nn.GELU(), _doubled(half, quarter)]
        resized: tuple[tuple[list[nn.Module], int], ...] = (
            (up, quarter),
            ([_doubled(channels, half)], half),
            ([], channels),
            ([nn.MaxPool2d(2, ceil_mode=True)], channels),
        )
        self.branches = nn.ModuleList(
            nn.Sequential(
                *layers,
                nn.Conv2d(given, width, 1, bias=False),
                LayerNorm2d(width),
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                LayerNorm2d(width),
            )
            for layers, given in resized
        )

    def levels(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [branch(maps[-1]) for branch in self.branches]


def _doubled(channels: int, width: int) -> nn.Module:
    return nn.ConvTranspose2d(channels, width, kernel_size=2, stride=2)


def build_pyramid(pyramid: Fpn | SimplePyramid, widths: Sequence[int], strides: Sequence[int]) -> Pyramid:
    """Pyramid over an encoder's maps of these widths and strides, the finest first.

    Raises:
        HarnessError: the maps of a network have one stride, or 4 does not divide the stride of a simple pyramid.
    """
    match pyramid:
        case Fpn():
            if len(set(strides)) < len(strides) or len(strides) < 2:
                raise HarnessError("an encoder whose maps have one stride takes SimplePyramid(), not Fpn()")
            return Network(widths, strides, pyramid.width)
        case SimplePyramid():
            return Simple(widths[-1], strides[-1], pyramid.width)
        case _:
            assert_never(pyramid)
