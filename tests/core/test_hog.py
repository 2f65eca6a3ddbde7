"""Histograms of oriented gradients: against NumPy, on images of known direction, and what changes nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.core.objective.hog import hog, strokes
from harness.spec import HogTarget

MASKFEAT = HogTarget()
SMALL = HogTarget(cell=2, window=4)


def by_numpy(image: NDArray[np.float64], target: HogTarget) -> NDArray[np.float64]:
    """MaskFeat's definition, pixel by pixel, of an image [C, H, W]: [C * bins * cells * cells, h, w] of patches."""
    channels, height, width = image.shape
    bins, cell, window = target.bins, target.cell, target.window
    sobel = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    line = np.exp(-0.5 * ((np.arange(window) - (window - 1) / 2) / (window // 2)) ** 2)
    gaussian = np.outer(line, line) / np.outer(line, line).sum()
    histogram = np.zeros((channels, bins, height // cell, width // cell))
    for c in range(channels):
        padded = np.pad(image[c], 1, mode="reflect")
        for i in range(height):
            for j in range(width):
                around = padded[i : i + 3, j : j + 3]
                gx, gy = (around * sobel).sum(), (around * sobel.T).sum()
                number = math.floor(math.atan2(gx, gy) / math.pi * bins) % bins
                histogram[c, number, i // cell, j // cell] += math.hypot(gx, gy) * gaussian[i % window, j % window]
    size = np.sqrt((histogram**2).sum(1, keepdims=True))
    histogram = histogram / np.maximum(size, 1e-12)
    patches = []
    side = target.cells
    for i in range(height // cell // side):
        for j in range(width // cell // side):
            part = histogram[:, :, i * side : (i + 1) * side, j * side : (j + 1) * side]
            patches.append(part.reshape(-1))
    return np.stack(patches, -1).reshape(-1, height // cell // side, width // cell // side)


@pytest.mark.parametrize(
    "target",
    [MASKFEAT, SMALL, HogTarget(bins=6, cell=4, cells=1, window=8), HogTarget(cell=4, cells=4, window=32)],
    ids=["maskfeat", "small", "one cell", "many cells"],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_against_numpy(target: HogTarget, channels: int) -> None:
    images = torch.rand(2, channels, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = hog(images, target)
    assert found.dtype == torch.float32
    wanted = np.stack([by_numpy(image, target) for image in images.float().double().numpy()])
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)


def test_maskfeat_has_108_numbers_a_patch_of_16_pixels_and_36_of_a_grey_one() -> None:
    assert MASKFEAT.downsample == 16
    assert hog(torch.rand(1, 3, 224, 224), MASKFEAT).shape == (1, 108, 14, 14)
    assert hog(torch.rand(1, 1, 32, 32), MASKFEAT).shape == (1, 36, 2, 2)


def by_bin(found: Tensor, target: HogTarget = MASKFEAT) -> Tensor:
    """[C, bins, cells, cells] of the patch in the middle of one image."""
    middle = found.shape[-1] // 2
    return found[0, :, middle, middle].view(-1, target.bins, target.cells, target.cells)


@pytest.mark.parametrize("degrees", [0, 10, 30, 50, 70, 90, 110, 130, 150, 170, 190, 250, 350])
def test_a_ramp_votes_for_its_own_direction(degrees: int) -> None:
    """Brightness that falls along (sin a, cos a) of (column, row) has gx, gy in that direction: bin floor(a / 20)."""
    angle = math.radians(degrees)
    places = torch.arange(48.0)
    ramp = -(math.sin(angle) * places + math.cos(angle) * places[:, None])
    if degrees % 180 == 0:
        ramp = -math.cos(angle) * places[:, None].expand(48, 48)  # without the rounding of sin(pi)
    bins = by_bin(hog(ramp[None, None].double(), MASKFEAT))[0]
    if degrees % 20 == 10 or degrees % 180 == 0:  # middles of bins, and the one edge that is exact
        expected = torch.zeros(9)
        expected[degrees % 180 // 20] = 1.0
        assert torch.allclose(bins, expected[:, None, None].expand(9, 2, 2), atol=1e-5)
    assert bins.sum(0).allclose(torch.ones(2, 2), atol=1e-4)


def test_opposite_ramps_have_one_direction() -> None:
    places = torch.arange(48.0)
    ramp = (0.3 * places + 0.8 * places[:, None])[None, None]
    inner = by_bin(hog(ramp, MASKFEAT))
    assert torch.equal(by_bin(hog(-ramp, MASKFEAT)), inner)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -2.7182817, 1e6])
def test_a_constant_image_gives_exact_zeros(value: float) -> None:
    for target in (MASKFEAT, SMALL):
        assert not hog(torch.full((1, 3, 32, 32), value), target).any()


def test_a_brightness_shift_changes_nothing() -> None:
    """To the last bit, where the sums are exact: multiples of 1/256."""
    images = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0)) / 256
    found = hog(images, MASKFEAT)
    for shift in (0.5, -3.0, 100.0):
        assert torch.equal(hog(images + shift, MASKFEAT), found)


def test_contrast_of_a_channel_changes_nothing() -> None:
    images = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0)) / 256
    scaled = images * torch.tensor([2.0, 0.5, 8.0])[:, None, None]
    assert torch.allclose(hog(scaled, MASKFEAT), hog(images, MASKFEAT), atol=1e-6)


def test_every_cell_that_is_not_flat_has_norm_one() -> None:
    found = hog(torch.rand(2, 3, 32, 32), MASKFEAT).view(2, 3, 9, 2, 2, 2, 2)
    assert torch.allclose(found.norm(dim=2), torch.ones(2, 3, 2, 2, 2, 2), atol=1e-5)


def test_the_strokes_of_an_edge_lie_along_it() -> None:
    """A vertical edge is drawn as vertical strokes: bright in a column, dark beside it."""
    target = HogTarget(cells=1, window=8)
    image = torch.zeros(1, 1, 24, 24)
    image[..., 12:] = 1.0
    drawn = strokes(hog(image, target), target)
    assert drawn.shape == (1, 1, 24, 24)
    assert 0 <= drawn.min() <= drawn.max() <= 1
    cell = drawn[0, 0, 8:16, 8:16]
    assert cell[0, 3:5].max() > 0.3 > cell[3:5, 0].max()
    assert not strokes(torch.zeros(1, 9, 3, 3), target).any()
