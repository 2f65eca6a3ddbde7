"""The stateless hash: what a number depends on, and that it looks random."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch
from scipy import stats

from harness.core.runtime.randomness import permutation, uniform, words
from harness.spec import seed_stream

STREAM = seed_stream(0, "test")


def test_a_stream_is_the_first_63_bits_of_a_hash_that_keeps_seed_and_purpose_apart() -> None:
    digest = hashlib.sha256(b"12\x00mask").digest()
    assert seed_stream(12, "mask") == int.from_bytes(digest[:8], "big") // 2
    assert seed_stream(1, "2mask") != seed_stream(12, "mask")


def test_words_fill_32_bits() -> None:
    drawn = words(STREAM, 0, torch.arange(4096), 8)
    assert drawn.dtype == torch.int64
    assert drawn.shape == (4096, 8)
    assert int(drawn.min()) >= 0
    assert int(drawn.max()) < 2**32
    ones = torch.stack([(drawn >> bit & 1).double().mean() for bit in range(32)])
    deviation = 5 * 0.5 / math.sqrt(drawn.numel())
    assert bool(((ones - 0.5).abs() < deviation).all()), "each bit is set half of the time"


@pytest.mark.parametrize("positions", [[5], [900, 5, 3], [5, 5, 2**40 + 1]])
def test_row_depends_on_its_position_alone(positions: list[int]) -> None:
    whole = words(STREAM, 7, torch.arange(1000), 16)
    drawn = words(STREAM, 7, torch.tensor(positions), 16)
    for row, position in zip(drawn, positions, strict=True):
        alone = words(STREAM, 7, torch.tensor([position]), 16)[0]
        assert torch.equal(row, alone)
        if position < 1000:
            assert torch.equal(row, whole[position])


def test_fewer_words_are_a_prefix_of_more() -> None:
    positions = torch.arange(10)
    assert torch.equal(words(STREAM, 1, positions, 3), words(STREAM, 1, positions, 9)[:, :3])


@pytest.mark.parametrize(
    ("stream", "step", "shift"),
    [
        (seed_stream(1, "test"), 0, 0),
        (seed_stream(0, "other"), 0, 0),
        (STREAM ^ (1 << 62), 0, 0),
        (STREAM, 1, 0),
        (STREAM, 2**33, 0),
        (STREAM, 0, 2**33),
    ],
)
def test_seed_purpose_step_and_high_bits_matter(stream: int, step: int, shift: int) -> None:
    base = words(STREAM, 0, torch.arange(2000), 4)
    other = words(stream, step, torch.arange(2000) + shift, 4)
    assert int((base == other).sum()) <= 1, "2 in a million by chance"
    correlation = torch.corrcoef(torch.stack([base.double().flatten(), other.double().flatten()]))[0, 1]
    assert abs(float(correlation)) < 5 / math.sqrt(base.numel())


def test_neighbouring_steps_and_positions_are_unrelated() -> None:
    a = uniform(STREAM, 3, torch.arange(20_000), 2).double()
    b = uniform(STREAM, 4, torch.arange(20_000), 2).double()
    pairs = [(a[:, 0], a[:, 1]), (a[:, 0], b[:, 0]), (a[:-1, 0], a[1:, 0]), (a[1:, 0], b[:-1, 0])]
    for left, right in pairs:
        table = torch.histogramdd(torch.stack([left, right], 1), bins=[8, 8], range=[0.0, 1.0, 0.0, 1.0]).hist
        assert stats.chisquare(table.flatten().numpy()).pvalue > 1e-4


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_uniform_by_chi_square(seed: int) -> None:
    drawn = uniform(seed_stream(seed, "chi"), 11, torch.arange(10_000), 10)
    assert drawn.dtype == torch.float32
    assert float(drawn.min()) >= 0
    assert float(drawn.max()) < 1
    counts = torch.histc(drawn, bins=100, min=0.0, max=1.0)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4


def test_uniform_has_24_bits() -> None:
    drawn = uniform(STREAM, 0, torch.arange(1000), 1).double() * 2**24
    assert torch.equal(drawn, drawn.round())
    assert bool((drawn % 2 == 1).any())


@pytest.mark.parametrize("length", [1, 2, 17, 1000])
def test_permutation_is_one(length: int) -> None:
    order = permutation(0, "order", 0, length)
    assert order.dtype == torch.int64
    assert order.sort().values.tolist() == list(range(length))


def test_permutations_of_three_are_equally_likely() -> None:
    counts: dict[tuple[int, ...], int] = {}
    for step in range(3000):
        found = tuple(permutation(0, "order", step, 3).tolist())
        counts[found] = counts.get(found, 0) + 1
    assert len(counts) == 6
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def test_global_generators_are_left_alone() -> None:
    before = torch.get_rng_state()
    words(STREAM, 0, torch.arange(10), 3)
    permutation(3, "order", 1, 50)
    assert torch.equal(before, torch.get_rng_state())
