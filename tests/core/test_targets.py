"""Targets and the pictures of predictions, against values computed by hand and by numpy and scipy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from tiny import DATA, SWIN, VIT, pretrain
from torch import Tensor

from harness.core.data.datasets import IMAGENET_COLOURS, load
from harness.core.objective.losses import split_classes
from harness.core.objective.targets import Targets, bin_of
from harness.core.pretrain.mim import MaskedImageModel
from harness.spec import (
    Backbone,
    BinTarget,
    ClusterTarget,
    CustomTarget,
    Data,
    Images,
    Loss,
    PatchWords,
    PixelTarget,
    RandomMask,
    Target,
    TokenTarget,
)

FEW: dict[str, Any] = {"images": 32, "per_image": 16, "iterations": 3}
CLUSTERS = ClusterTarget(clusters=8, **FEW)
WORDS = TokenTarget(tokenizer=PatchWords(vocabulary=8, **FEW), downsample=4)
GREY = Images(name="fashion-mnist-mini")
GREYS = torch.zeros(1, 1, 32, 32)


def targets(target: Target, data: Data = DATA) -> Targets:
    return Targets(target, data, image_size=32)


def normalised(values: Tensor, data: Data = DATA) -> Tensor:
    """Values [B, C, H, W] in [0, 1] as the network sees them."""
    source = load(data, "pretrain")
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (source.mean, source.std))
    return (values - mean) / std


@pytest.mark.parametrize("downsample", [1, 2, 4, 8, 16, 32])
def test_pixels_are_means_of_squares(downsample: int) -> None:
    """All six resolutions of SimMIM Table 3, on 64 pixels."""
    images = torch.randn(2, 3, 64, 64)
    found = targets(PixelTarget(downsample=downsample))(images)
    side = 64 // downsample
    by_numpy = images.numpy().astype(np.float64).reshape(2, 3, side, downsample, side, downsample).mean((3, 5))
    assert found.shape == (2, 3, side, side)
    np.testing.assert_allclose(found.numpy(), by_numpy, atol=1e-6)


def test_bins_by_hand() -> None:
    """Eight bins are [0, 1/8), [1/8, 2/8), ... and the last takes 1 in."""
    values = torch.tensor([0.0, 0.1249, 0.125, 0.5, 0.6249, 0.875, 0.9999, 1.0])
    assert bin_of(values, 8).tolist() == [0, 0, 1, 4, 4, 7, 7, 7]
    assert bin_of(torch.tensor([0.0, 0.49, 0.5, 1.0]), 2).tolist() == [0, 0, 1, 1]


def test_two_hundred_and_fifty_six_bins_are_the_bytes() -> None:
    """A byte survives normalisation with ImageNet's colours and its undoing, 0 and 255 included."""
    made = targets(BinTarget(bins=256))
    made.colours = torch.tensor(IMAGENET_COLOURS)
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in IMAGENET_COLOURS)
    levels = torch.arange(256).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(made((levels / 255 - mean) / std), levels)
    made.target = BinTarget(bins=8)
    assert torch.equal(made((levels / 255 - mean) / std), levels // 32)


def test_bins_are_of_each_channel_and_of_the_averaged_colour() -> None:
    values = torch.zeros(1, 3, 2, 2)
    values[0, 0] = torch.tensor([[1.0, 1.0], [0.0, 0.0]])  # mean 0.5
    values[0, 1] = torch.tensor([[0.2, 0.2], [0.2, 0.3]])  # mean 0.225
    values[0, 2] = 1.0
    made = targets(BinTarget(bins=8, downsample=2))(normalised(values))
    assert made.dtype == torch.int64
    assert made[0, :, 0, 0].tolist() == [4, 1, 7]


def test_values_that_augmentation_pushed_beyond_belong_to_the_outer_bins() -> None:
    values = torch.tensor([-0.2, 1.2]).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    assert targets(BinTarget(bins=8))(normalised(values))[0, 0, 0].tolist() == [0, 7]


def test_classes_of_a_map_lie_together() -> None:
    """Channel c and class k of the prediction are its channel c * classes + k."""
    found = split_classes(torch.arange(12.0).view(1, 12, 1, 1), 4)
    assert found.shape == (1, 4, 3, 1, 1)
    assert found[0, 2, 1].item() == 1 * 4 + 2


@pytest.mark.parametrize("downsample", [1, 4])
def test_clusters_are_the_nearest_colours_by_brute_force(downsample: int) -> None:
    made = targets(CLUSTERS.replace(downsample=downsample))
    assert made.codebook is not None
    values = torch.rand(3, 3, 32, 32)
    side = 32 // downsample
    colours = values.double().numpy().reshape(3, 3, side, downsample, side, downsample).mean((3, 5))
    flat = colours.transpose(0, 2, 3, 1).reshape(-1, 3)
    distances = cdist(flat, made.codebook.double().numpy(), "sqeuclidean")
    found = made(normalised(values)).numpy().reshape(-1)
    assert found.dtype == np.int64
    chosen = distances[np.arange(len(flat)), found]
    np.testing.assert_allclose(chosen, distances.min(1), atol=1e-6)  # ties within rounding may go either way
    assert (found == distances.argmin(1)).mean() > 0.999


def test_tokens_are_the_nearest_words_by_hand() -> None:
    """Words: black, white, and the left half white."""
    made = targets(WORDS)
    black, white, left = torch.zeros(3, 4, 4), torch.ones(3, 4, 4), torch.zeros(3, 4, 4)
    left[:, :, :2] = 1.0
    made.codebook = torch.stack([black, white, left]).flatten(1)
    image = torch.cat([torch.cat([left, white], 2), torch.cat([black, 0.9 * left], 2)], 1)[None]
    assert made(normalised(image)).tolist() == [[[[2, 1], [0, 2]]]]


def test_codebooks_are_part_of_the_weights_and_others_are_not() -> None:
    names = set(MaskedImageModel(pretrain(), 3).state_dict())
    for target in (CLUSTERS, WORDS):
        run = pretrain(target=target, loss=Loss(kind="cross-entropy"))
        assert {name for name in MaskedImageModel(run, 3).state_dict() if name not in names} == {"targets.codebook"}


def test_the_palette_is_the_same_for_every_seed_and_another_for_its_own() -> None:
    loss = Loss(kind="cross-entropy")
    books = [
        MaskedImageModel(pretrain(target=target, loss=loss, seed=seed), 3).state_dict()["targets.codebook"]
        for target, seed in ((CLUSTERS, 0), (CLUSTERS, 1), (CLUSTERS.replace(seed=1), 0))
    ]
    assert torch.equal(books[0], books[1])
    assert not torch.equal(books[0], books[2])


@pytest.mark.parametrize("target", [BinTarget(bins=8), CLUSTERS, WORDS], ids=["bins", "clusters", "words"])
@pytest.mark.parametrize("data", [DATA, GREY], ids=["rgb", "grey"])
def test_a_perfect_prediction_looks_like_its_target(target: Target, data: Data) -> None:
    made = targets(target, data)
    images = normalised(torch.rand(2, 1 if data is GREY else 3, 32, 32), data)
    wanted = made(images)
    classes = target.prediction_channels(wanted.shape[1]) // wanted.shape[1]
    # certain of the right class: [B, maps, h, w] to [B, maps * classes, h, w]
    sure = 100.0 * torch.nn.functional.one_hot(wanted, classes).permute(0, 1, 4, 2, 3).flatten(1, 2)
    picture = made.picture(sure, images)
    assert picture is not None
    assert picture.shape == images.shape
    assert torch.equal(made(picture), wanted)  # a shown colour or word is its own nearest


def test_the_picture_of_bins_is_the_expected_colour() -> None:
    made = targets(BinTarget(bins=2), GREY)
    even = made.picture(torch.zeros(1, 2, 4, 4), GREYS)
    assert even is not None
    assert torch.allclose(even, normalised(torch.full((1, 1, 4, 4), 0.5), GREY), atol=1e-6)
    odds = made.picture(torch.tensor([0.0, np.log(3.0)]).view(1, 2, 1, 1), GREYS)  # 1/4 of 0.25 and 3/4 of 0.75
    assert odds is not None
    assert torch.allclose(odds, normalised(torch.full((1, 1, 1, 1), 0.625), GREY), atol=1e-6)


def test_a_user_s_own_target_has_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_target.py").write_text("def same(images):\n    return images\n")
    monkeypatch.syspath_prepend(tmp_path)
    made = targets(CustomTarget(function="own_target:same", channels=3))
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(made(images), images)
    assert made.picture(images, images) is None


@pytest.mark.parametrize(
    "target", [BinTarget(bins=8, downsample=2), CLUSTERS, WORDS], ids=["bins", "clusters", "words"]
)
def test_autocast_chooses_no_class(target: Target) -> None:
    made, images = targets(target), torch.randn(4, 3, 32, 32)
    plain = made(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(made(images), plain)


@pytest.mark.parametrize("backbone", [VIT, SWIN], ids=["vit", "swin"])
@pytest.mark.parametrize(
    ("target", "channels"),
    [(BinTarget(bins=8, downsample=2), 24), (CLUSTERS, 8), (WORDS, 8)],
    ids=["bins", "clusters", "words"],
)
def test_the_head_predicts_every_class_at_the_targets_resolution(
    backbone: Backbone, target: Target, channels: int
) -> None:
    run = pretrain(
        backbone=backbone, target=target, loss=Loss(kind="cross-entropy"), mask=RandomMask(size=16, ratio=0.5)
    )
    units = torch.tensor([[[True, False], [True, False]]]).expand(2, 2, 2)
    prediction, losses = MaskedImageModel(run, 3)(torch.randn(2, 3, 32, 32), units)
    side = 32 // target.downsample
    assert prediction.shape == (2, channels, side, side)
    assert losses["prediction"].ndim == 0


def test_memory_by_hand() -> None:
    """SimMIM Table 5 at 192 px: 256 bins of three channels, a batch of 16."""
    recipe = pretrain().recipe
    big = Backbone(name="swin", patch_size=4, stride=32)
    classes = Loss(kind="cross-entropy")

    def bytes_of(target: Target, loss: Loss) -> int:
        mask = RandomMask(size=32, ratio=0.5)
        return pretrain(image_size=192, backbone=big, mask=mask, target=target, loss=loss).target_memory

    assert recipe.batch_size == 16
    places = 16 * 192 * 192
    assert bytes_of(BinTarget(bins=256), classes) == places * (768 * 4 + 768 * 4 + 3 * 8)
    assert bytes_of(BinTarget(bins=256, downsample=4), classes) * 16 == bytes_of(BinTarget(bins=256), classes)
    assert bytes_of(ClusterTarget(clusters=512), classes) == places * (512 * 8 + 8)
    assert bytes_of(PixelTarget(), Loss()) == places * 3 * (4 + 4 + 4)
