"""k-means and the sample that it learns from."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.cluster.vq import kmeans2
from scipy.spatial.distance import cdist
from tiny import DATA

from harness.core.data.datasets import load
from harness.core.objective.codebook import colours, kmeans, learn, nearest, patches, raw, sample
from harness.spec import ClusterTarget, HarnessError, ImageFolder, PatchWords, Shapes


def points(count: int = 500, size: int = 3) -> torch.Tensor:
    return torch.rand(count, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [1, 3, 48])
def test_nearest_by_brute_force(size: int) -> None:
    found, codebook = points(300, size), points(20, size).flip(0)
    index, distance = nearest(found.view(3, 100, size), codebook)
    brute = cdist(found.numpy(), codebook.numpy(), "sqeuclidean")
    assert index.shape == (3, 100)
    assert (index.flatten().numpy() == brute.argmin(1)).all()
    np.testing.assert_allclose(distance.flatten().numpy(), brute.min(1), atol=1e-12)


def test_the_first_of_equals_is_nearest() -> None:
    book = torch.tensor([[1.0], [0.0], [0.0]])
    assert nearest(torch.tensor([[0.25], [0.5], [1.0]]), book)[0].tolist() == [1, 0, 0]


def test_large_codebooks_are_searched_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = nearest(points(), points(7))[0]
    monkeypatch.setattr("harness.core.objective.codebook.ENTRIES", 50)
    assert torch.equal(nearest(points(), points(7))[0], whole)


def test_the_objective_never_rises_and_falls_at_first() -> None:
    errors = kmeans(points(), 16, iterations=30, seed=0)[1]
    assert all(after <= before * (1 + 1e-12) for before, after in pairwise(errors))
    assert errors[-1] < 0.9 * errors[0]


def test_rounds_agree_with_scipy() -> None:
    """From the same first centres scipy's Lloyd rounds give the same centres."""
    start = kmeans(points(), 8, iterations=1, seed=3)[0]  # after the first round
    ours = kmeans(points(), 8, iterations=6, seed=3)[0]
    theirs, _ = kmeans2(points().numpy(), start.numpy(), iter=5, minit="matrix")
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-9)


def test_kmeans_repeats_and_follows_its_seed() -> None:
    first, again, other = (kmeans(points(), 16, iterations=5, seed=seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_separate_heaps_are_found_by_their_means() -> None:
    heaps = torch.tensor([[0.0, 0.0], [0.0, 0.2], [9.0, 9.0], [9.0, 9.4]], dtype=torch.float64)
    centres = kmeans(heaps, 2, iterations=10, seed=0)[0]
    np.testing.assert_allclose(sorted(centres.tolist()), [[0.0, 0.1], [9.0, 9.2]], atol=1e-12)


def test_as_many_centres_as_different_points_and_no_more() -> None:
    repeated = torch.tensor([[1.0], [0.0], [1.0], [2.0], [0.0]], dtype=torch.float64)
    centres, errors = kmeans(repeated, 3, iterations=4, seed=0)
    assert sorted(centres.flatten().tolist()) == [0.0, 1.0, 2.0]
    assert errors == [0.0]  # nothing moves: one round
    with pytest.raises(HarnessError, match="find 4 centres among 3 different points"):
        kmeans(repeated, 4, iterations=4, seed=0)


def test_colours_and_patches_by_hand() -> None:
    values = torch.arange(32.0).view(1, 2, 4, 4)
    assert colours(values, 2)[0, 1, 0].tolist() == [(8 + 9 + 12 + 13) / 4, (24 + 25 + 28 + 29) / 4]
    assert patches(values, 2)[0, 1, 0].tolist() == [8, 9, 12, 13, 24, 25, 28, 29]


def test_raw_undoes_the_normalisation() -> None:
    images = torch.tensor([-1.0, 0.0, 9.0]).view(1, 1, 1, 3)
    assert raw(images, torch.tensor(0.5), torch.tensor(0.25)).flatten().tolist() == [0.25, 0.5, 1.0]


def test_a_sample_holds_true_pixels_in_the_numbers_asked_for() -> None:
    book = ClusterTarget(clusters=4, images=5, per_image=7)
    found = sample(book, DATA, 32, 1)
    assert found.shape == (35, 3)
    there = {tuple(pixel) for pixel in load(DATA, "pretrain").images.permute(0, 2, 3, 1).reshape(-1, 3).tolist()}  # type: ignore[union-attr]
    assert {tuple(pixel) for pixel in (found * 255).round().long().tolist()} <= there
    assert len(sample(book.replace(images=999), DATA, 32, 1)) == 64 * 7  # there are 64 images
    assert len(sample(book.replace(per_image=999), DATA, 32, 8)) == 5 * 16  # and 16 squares in each


def test_every_field_of_the_sample_is_live() -> None:
    book = PatchWords(vocabulary=4, images=20, per_image=7, iterations=3)
    changes: tuple[dict[str, int], ...] = (
        {},
        {"images": 21},
        {"per_image": 8},
        {"iterations": 1},
        {"seed": 1},
        {"vocabulary": 5},
    )
    found = [learn(book.replace(**change), DATA, 32, 4) for change in changes]
    assert len({(tuple(code.shape), code.numpy().tobytes()) for code in found}) == len(changes)
    assert found[0].shape == (4, 3 * 4 * 4)
    assert found[0].dtype == torch.float32
    assert not torch.equal(found[0], learn(book, Shapes(image_size=32, train=64, test=32, seed=5), 32, 4))


def test_a_palette_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, colour in enumerate([(255, 0, 0), (0, 0, 255), (255, 0, 0)]):
        path = tmp_path / "train" / f"class{number}" / "a.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (20, 30), colour).save(path)
    monkeypatch.setenv("HARNESS_DATA_TWO_COLOURS", str(tmp_path))
    found = learn(ClusterTarget(clusters=2), ImageFolder(name="two-colours"), 16, 1)
    np.testing.assert_allclose(sorted(found.tolist()), [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], atol=1e-6)
