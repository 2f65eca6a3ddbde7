"""Locally normalised and low-pass images, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import DATA
from torch import Tensor

from harness.core.data.datasets import load
from harness.core.objective.pixels import local_statistics, low_pass
from harness.core.objective.targets import Targets
from harness.spec import Data, Images, LowPassTarget, NormPixelTarget, Target

GREY = Images(name="fashion-mnist-mini")
AREAS = [NormPixelTarget(size=8), NormPixelTarget(size=5, area="window")]


def images(count: int = 2, channels: int = 3) -> Tensor:
    return torch.randn(count, channels, 32, 32, generator=torch.Generator().manual_seed(0))


def targets(target: Target, data: Data = DATA) -> Targets:
    return Targets(target, data, image_size=32)


@pytest.mark.parametrize("size", [2, 4, 16, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_patches_against_numpy(size: int, channels: int) -> None:
    """MAE: unbiased variance, eps 1e-6, all values of a patch jointly."""
    x = images(channels=channels)
    found = targets(NormPixelTarget(size=size), DATA if channels == 3 else GREY)(x)
    wanted = np.empty(x.shape)
    for b in range(2):
        for i in range(0, 32, size):
            for j in range(0, 32, size):
                patch = x[b, :, i : i + size, j : j + size].double().numpy()
                wanted[b, :, i : i + size, j : j + size] = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-4)


def test_a_patch_by_hand() -> None:
    """0, 0, 0, 4 of one channel: mean 1, unbiased variance (3 + 9) / 3 = 4."""
    x = torch.tensor([[0.0, 0.0], [0.0, 4.0]]).view(1, 1, 2, 2)
    found = Targets(NormPixelTarget(size=2), GREY, image_size=2)(x)
    assert torch.allclose(found, torch.tensor([[-0.5, -0.5], [-0.5, 1.5]]).view(1, 1, 2, 2), atol=1e-5)


def test_windows_against_numpy() -> None:
    """Each channel by the pixels of its window that lie in the image."""
    x = images()
    found = targets(NormPixelTarget(size=5, area="window"))(x)
    wanted = np.empty(x.shape)
    values = x.double().numpy()
    for i in range(32):
        for j in range(32):
            part = values[:, :, max(0, i - 2) : i + 3, max(0, j - 2) : j + 3].reshape(2, 3, -1)
            wanted[:, :, i, j] = (values[:, :, i, j] - part.mean(2)) / np.sqrt(part.var(2, ddof=1) + 1e-6)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-4)


@pytest.mark.parametrize("target", AREAS, ids=["patch", "window"])
def test_flat_patches_become_zeros_and_brightness_changes_nothing(target: NormPixelTarget) -> None:
    assert not targets(target)(torch.full((1, 3, 32, 32), 0.25)).any()
    x = images()
    assert torch.allclose(targets(target)(x + 2.0), targets(target)(x), atol=1e-3)


@pytest.mark.parametrize("target", [*AREAS, LowPassTarget(radius=6), LowPassTarget(radius=6, patch=8)])
@pytest.mark.parametrize("data", [DATA, GREY], ids=["rgb", "grey"])
def test_a_perfect_prediction_looks_like_the_image(target: Target, data: Data) -> None:
    made, x = targets(target, data), images(channels=3 if data is DATA else 1)
    picture = made.picture(made(x), x)
    plain = target.replace(patch=None) if isinstance(target, LowPassTarget) else None
    assert picture is not None
    assert torch.allclose(picture, x if plain is None else targets(plain, data)(x), atol=1e-3)


def smoothed(values: np.ndarray, radius: float) -> np.ndarray:
    """PixMIM's filter as it is written, by NumPy's FFT."""
    height, width = values.shape[-2:]
    i, j = np.mgrid[:height, :width]
    disc = ((i - (height - 1) / 2) ** 2 + (j - (width - 1) / 2) ** 2) <= radius**2
    spectrum = np.fft.fftshift(np.fft.fft2(values), axes=(-2, -1)) * disc
    return np.abs(np.fft.ifft2(spectrum))


@pytest.mark.parametrize("radius", [1.0, 3.0, 7.5, 40.0])
def test_low_pass_against_numpy(radius: float) -> None:
    values = torch.rand(2, 3, 32, 24, generator=torch.Generator().manual_seed(0))
    found = low_pass(values, radius)
    np.testing.assert_allclose(found.numpy(), smoothed(values.double().numpy(), radius), atol=1e-5)


def test_the_whole_target_against_numpy() -> None:
    """Un-normalise, filter, normalise, and then the patches."""
    x = images()
    source = load(DATA, "pretrain")
    mean, std = (np.array(numbers).reshape(3, 1, 1) for numbers in (source.mean, source.std))
    wanted = (smoothed(x.double().numpy() * std + mean, 6.0) - mean) / std
    np.testing.assert_allclose(targets(LowPassTarget(radius=6))(x).numpy(), wanted, atol=1e-4)
    patches = wanted.reshape(2, 3, 4, 8, 4, 8)
    centred = patches - patches.mean((1, 3, 5), keepdims=True)
    whole = (centred / np.sqrt(patches.var((1, 3, 5), ddof=1, keepdims=True) + 1e-6)).reshape(2, 3, 32, 32)
    np.testing.assert_allclose(targets(LowPassTarget(radius=6, patch=8))(x).numpy(), whole, atol=1e-3)


def test_a_constant_passes_and_the_fastest_wave_does_not() -> None:
    """Frequency 0 lies sqrt(1/2) from the middle; a chessboard has the highest frequency of all."""
    flat = torch.full((1, 1, 16, 16), 0.7)
    assert torch.allclose(low_pass(flat, 1.0), flat, atol=1e-6)
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2
    assert low_pass(board[None, None].float() - 0.5, 7.0).abs().max() < 1e-6
    everything = torch.rand(1, 1, 16, 16)
    assert torch.allclose(low_pass(everything, 16.0), everything, atol=1e-5)


def test_statistics_are_of_float32_whatever_comes_in() -> None:
    mean, deviation = local_statistics(images().bfloat16(), 8, "patch")
    assert mean.dtype == deviation.dtype == torch.float32
    assert mean.shape == (2, 1, 32, 32)
