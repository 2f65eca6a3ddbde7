"""Pyramids: strides, sizes, layers and refusals."""

from __future__ import annotations

import pytest
import torch

from harness.core.model.pyramid import Simple, build_pyramid
from harness.spec import Fpn, HarnessError, SimplePyramid


def test_strides_of_vitdets_pyramid_at_patch_16() -> None:
    pyramid = build_pyramid(SimplePyramid(width=32), [48] * 4, [16] * 4)
    assert pyramid.strides == (4, 8, 16, 32, 64)
    maps = pyramid([torch.randn(2, 48, 8, 8)])  # of 128 pixels
    assert [made.shape for made in maps] == [(2, 32, side, side) for side in (32, 16, 8, 4, 2)]


def test_layers_of_vitdets_pyramid() -> None:
    # Of C channels to width W: transposed convolutions 2x2 with bias, norms of two numbers a channel, no other bias.
    c, w = 768, 256

    def up(given: int, made: int) -> int:
        return 4 * given * made + made

    def out(given: int) -> int:
        return given * w + 2 * w + 9 * w * w + 2 * w

    four = up(c, c // 2) + 2 * (c // 2) + up(c // 2, c // 4) + out(c // 4)
    wanted = four + up(c, c // 2) + out(c // 2) + 2 * out(c)
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in Simple(c, 16, w).parameters()) == wanted


def test_an_odd_side_keeps_the_larger_half() -> None:
    maps = build_pyramid(SimplePyramid(width=8), [16], [8])([torch.randn(1, 16, 7, 7)])
    assert [made.shape[-1] for made in maps] == [28, 14, 7, 4, 2]


def test_a_network_sums_maps_of_any_sides() -> None:
    # ConvNeXt floors: 90 x 150 pixels give 22 x 37, 11 x 18, 5 x 9, 2 x 4.
    sides = ((22, 37), (11, 18), (5, 9), (2, 4))
    widths, strides = (8, 16, 32, 64), (4, 8, 16, 32)
    pyramid = build_pyramid(Fpn(width=24), widths, strides)
    maps = pyramid([torch.randn(1, width, *side) for width, side in zip(widths, sides, strict=True)])
    assert pyramid.strides == (4, 8, 16, 32, 64)
    assert [made.shape for made in maps] == [(1, 24, *side) for side in (*sides, (1, 2))]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(HarnessError, match=r"have one stride takes SimplePyramid\(\)"):
        build_pyramid(Fpn(), [48] * 4, [16] * 4)
    with pytest.raises(HarnessError, match="4 does not divide: 14"):
        build_pyramid(SimplePyramid(), [48], [14])
