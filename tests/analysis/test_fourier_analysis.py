"""Spectra against NumPy and against waves of known frequency; what is read from a model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.analysis.fourier import TINY, frequencies, maps, relative_log_amplitude, variance
from harness.core.model.encoder import Encoder, build
from harness.spec import Backbone

ARGS = {"embed_dim": 16, "depth": 2, "num_heads": 2}
VIT = Backbone(name="vit_tiny_patch16_224", args=ARGS, patch_size=4)
BEIT = Backbone(name="beit_base_patch16_224", args=ARGS, patch_size=4, variant="simmim")
SWIN = Backbone(
    name="swin_tiny_patch4_window7_224",
    args={"embed_dim": 16, "depths": (1, 2), "num_heads": (1, 2), "window_size": 2},
    patch_size=4,
    stride=8,
)

RESNET = Backbone(name="resnet18", args={"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32)}, patch_size=4, stride=32)

CONVNEXT = Backbone(
    name="convnext_atto", args={"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}, patch_size=4, stride=32
)


def published(found: np.ndarray) -> np.ndarray:
    """Log amplitude of [B, C, s, s], rolled by half a side, averaged over both, its diagonal from the middle."""
    side = found.shape[-1]
    amplitude = np.log(np.abs(np.fft.fft2(found)) + 1e-6)
    amplitude = np.roll(amplitude, (side // 2, side // 2), axis=(2, 3)).mean(axis=(0, 1))
    diagonal = np.diag(amplitude)[side // 2 :]
    curve: np.ndarray = diagonal - diagonal[0]
    return curve


@pytest.mark.parametrize("side", [1, 4, 6, 7, 14])
def test_against_numpy(side: int) -> None:
    found = np.random.default_rng(side).standard_normal((3, 5, side, side))
    ours = relative_log_amplitude(torch.tensor(found)).mean(dim=0)
    assert len(ours) == frequencies(side)
    np.testing.assert_allclose(ours.numpy(), published(found), atol=1e-9)


def test_a_wave_along_the_diagonal_has_its_one_frequency() -> None:
    places = torch.arange(8, dtype=torch.float64)
    wave = torch.cos(2 * math.pi * 2 * (places[:, None] + places[None, :]) / 8)
    found = relative_log_amplitude((3.0 * wave + 1.0)[None, None])[0]
    # fft2 of 3 cos(2 pi 2 (x + y) / 8) + 1: 3 * 64 / 2 at frequency 2, 64 at 0, nothing elsewhere.
    zero = math.log(64 + TINY)
    expected = [0.0, math.log(TINY) - zero, math.log(96 + TINY) - zero, math.log(TINY) - zero]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_variance_over_places() -> None:
    features_ = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    expected = features_.numpy().reshape(2, 3, 16).var(axis=2).mean(axis=1)
    np.testing.assert_allclose(variance(features_).numpy(), expected)


def images(size: int = 16) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def read(backbone: Backbone, size: int = 16) -> tuple[Encoder, list[str], list[Tensor]]:
    encoder = Encoder(build(backbone, image_size=size, channels=3)).eval()
    names, found = zip(*maps(encoder, images(size)), strict=True)
    return encoder, list(names), list(found)


@pytest.mark.parametrize("backbone", [VIT, BEIT], ids=["vit", "beit"])
@torch.no_grad()
def test_a_vit_is_read_after_each_attention_and_mlp(backbone: Backbone) -> None:
    encoder, names, found = read(backbone)
    assert names == ["attention 1", "MLP 1", "attention 2", "MLP 2"]
    assert {tuple(one.shape) for one in found} == {(2, 16, 4, 4)}
    for block in (1, 2):
        assert torch.allclose(found[2 * block - 1], encoder.features(images(), block), atol=1e-6)
    model: Any = encoder.model
    layer = model.blocks[1]  # what the MLP adds is what lies between the two
    gamma = getattr(layer, "gamma_2", None)
    middle = found[2].flatten(2).transpose(1, 2)
    added = layer.mlp(layer.norm2(middle)) * (1 if gamma is None else gamma)
    assert torch.allclose(middle + added, found[3].flatten(2).transpose(1, 2), atol=1e-5)
    assert not layer.norm2._forward_pre_hooks


@pytest.mark.parametrize(
    "name", ["vit_base_patch16_rpn_224", "vit_small_patch16_18x2_224", "vit_dpwee_patch16_reg1_gap_256"]
)
@torch.no_grad()
def test_a_vit_of_other_blocks_is_read_after_each(name: str) -> None:
    """In whose blocks no norm stands between attention and MLP, or these are side by side."""
    encoder, names, found = read(Backbone(name=name, args=ARGS, patch_size=4))
    assert names == ["stem", "block 1", "block 2"]
    for block in (1, 2):
        assert torch.allclose(found[block], encoder.features(images(), block), atol=1e-6)


@torch.no_grad()
def test_a_swin_is_read_after_its_patches_and_each_block() -> None:
    encoder, names, found = read(SWIN)
    assert names == ["stem", "block 1", "block 2", "block 3"]
    assert [tuple(one.shape) for one in found] == [(2, 16, 4, 4), (2, 16, 4, 4), (2, 32, 2, 2), (2, 32, 2, 2)]
    for block in (1, 2, 3):
        assert torch.allclose(found[block], encoder.features(images(), block), atol=1e-6)


@pytest.mark.parametrize("backbone", [RESNET, CONVNEXT], ids=["resnet", "convnext"])
@torch.no_grad()
def test_a_cnn_is_read_after_its_stem_and_each_block(backbone: Backbone) -> None:
    encoder, names, found = read(backbone, 32)
    assert names == ["stem", *(f"block {number}" for number in range(1, len(names)))]
    assert [one.shape[-1] for one in found][:2] == [8, 8]
    assert found[-1].shape[-1] == 1
    for block in range(1, len(names)):
        assert torch.allclose(found[block], encoder.features(images(32), block), atol=1e-6)


@torch.no_grad()
def test_the_stem_of_a_resnet_ends_with_its_pooling() -> None:
    encoder, _, found = read(RESNET, 32)
    model: Any = encoder.model
    assert torch.equal(found[0], model.maxpool(model.act1(model.bn1(model.conv1(images(32))))))
