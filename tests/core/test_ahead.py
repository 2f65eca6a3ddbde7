"""Draws of many steps in one call are those of each step alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from harness.core.runtime.ahead import STEPS, Ahead
from harness.core.runtime.drop_path import Place
from harness.core.runtime.randomness import uniform, words


def test_each_row_may_have_its_own_stream_and_step() -> None:
    """Steps and streams beyond 32 bits too: their high words count."""
    steps, streams = [0, 7, 2**33 + 7, 7], [5, 2**62 + 5, 5, 2**40]
    positions = torch.tensor([3, 2**34, 9, 0])
    drawn = words(torch.tensor(streams), torch.tensor(steps), positions, 6)
    assert drawn.dtype == torch.int64
    for row, (stream, step) in enumerate(zip(streams, steps, strict=True)):
        assert torch.equal(drawn[row], words(stream, step, positions[row : row + 1], 6)[0])
    scalar = uniform(5, torch.tensor(7), positions, 3)
    assert torch.equal(scalar, uniform(5, 7, positions, 3))


class Source:
    """Two draws, the second with two rows for each image; notes how many steps each call asks for."""

    def __init__(self, batch: int) -> None:
        self.batch, self.calls = batch, list[int]()

    def __call__(self, steps: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        self.calls.append(len(steps) // self.batch)
        views = words(2, steps, positions, 2).flatten()
        return uniform(1, steps, positions, 4), views


@pytest.mark.parametrize("first", [0, 1, 37, 50, 119])
def test_draws_do_not_depend_on_where_a_block_begins(first: int) -> None:
    positions, source = torch.tensor([4, 0, 7]), Source(3)
    ahead = Ahead(source, positions, steps=120)
    for step in range(first, 120):
        one, two = ahead.at(step)
        assert torch.equal(one, uniform(1, step, positions, 4))
        assert torch.equal(two, words(2, step, positions, 2).flatten())
    assert sum(source.calls) == 120 - first, "nothing is drawn beyond the end, nor twice"
    assert max(source.calls) <= STEPS


def test_a_block_stays_within_its_limit() -> None:
    source = Source(10)
    ahead = Ahead(source, torch.arange(10), limit=1000)  # a step takes 10 * (4 * 4 + 2 * 8) = 320 bytes
    for step in range(7):
        ahead.at(step)
    assert source.calls == [1, 3, 3]
    alone = Source(10)
    ahead = Ahead(alone, torch.arange(10), limit=1)
    for step in (5, 5, 6, 3):
        assert torch.equal(ahead.at(step)[0], uniform(1, step, torch.arange(10), 4))
    assert alone.calls == [1, 1, 1]


def test_kept_branches_are_those_of_each_layer_step_and_position_alone() -> None:
    """As each layer drew them by itself: kept where its own number is at least the rate."""
    streams, rates = [11, 2**61 + 3, 12], [0.1, 0.5, 0.9]
    place = Place(streams, rates, batch_size=40)
    address = 0
    for step in (0, 1, 2, 3, 60, 2):
        positions = torch.tensor([39, 3, 3, 17])
        place.move(step, positions)
        for layer, (stream, rate) in enumerate(zip(streams, rates, strict=True)):
            draws = uniform(stream, step, positions, 1)[:, 0]
            assert torch.equal(place.kept[layer], (draws >= rate).float() / (1.0 - rate))
        assert place.step.item() == step
        assert not address or address == place.kept.data_ptr(), "a captured step reads the same memory"
        address = place.kept.data_ptr()
