"""Randomness as a stateless function of (seed, purpose, step, position in the global batch).

Nothing here keeps a state, so a random number depends neither on the slicing of a batch, nor on loader workers, nor
on the number of processes, nor on the step at which a run was resumed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.spec import seed_stream

_WORD = 0xFFFFFFFF
T = TypeVar("T")
Words = TypeVar("Words", int, Tensor)


def _mix(x: Words) -> Words:
    """A bijection of 32-bit words with good avalanche (two multiply-xorshift rounds). int64 in, int64 out."""
    x = (x ^ (x >> 16)) * 0x7FEB352D & _WORD
    x = (x ^ (x >> 15)) * 0x846CA68B & _WORD
    return x ^ (x >> 16)


def words(stream: int | Tensor, step: int | Tensor, positions: Tensor, count: int) -> Tensor:
    """Hashed 32-bit words.

    Args:
        stream: from `seed_stream(seed, purpose)`; int64 [B] gives each row its own.
        step: index of the optimisation step (or of the epoch, for a shuffle); int64 [B] gives each row its own.
        positions: int64 [B], place of each image in the global batch.
        count: words for each image.

    Returns:
        int64 [B, count] in [0, 2**32), on the device of `positions`. Row i depends on stream,
        step and positions[i] alone.

    Where a row and a column share no set bit the word is 0: about 1 of 6,000 words is, in some columns 1 of 300. The
    chance of a patch to be hidden moves by less than 0.2 points (400,000 masks of 36, 49 and 196 patches). Lists of
    many thousands go down a column: see `ranks`.
    """
    # Products may wrap in int64; the low 32 bits, which alone are kept, are right all the same.
    low = stream & _WORD
    high = (stream >> 32) & _WORD
    rows = _mix(positions + low & _WORD)
    rows = _mix((rows ^ high) + step & _WORD)
    rows = _mix(rows ^ (positions >> 32 & _WORD) ^ (step >> 32 & _WORD))
    # An odd multiplier (2**32 over the golden ratio) gives each column a word of its own before it is mixed.
    columns = _mix(torch.arange(count, device=positions.device) * 0x9E3779B9 + 0x85EBCA6B & _WORD)
    return _mix(rows[:, None] ^ columns[None, :]) ^ _mix(rows[:, None] + columns[None, :] & _WORD)


@cache
def stream_of(seed: int, purpose: str) -> int:
    """`seed_stream`, computed once."""
    return seed_stream(seed, purpose)


def words_of_one(stream: int, step: int, position: int, count: int) -> NDArray[np.uint32]:
    """One row of `words`, uint32 [count], computed without tensors.

    For a single row the forty operators of `words` take longer than what the numbers are for.
    """
    row = _mix(position + stream & _WORD)
    row = _mix((row ^ (stream >> 32 & _WORD)) + step & _WORD)
    row = _mix(row ^ (position >> 32 & _WORD) ^ (step >> 32 & _WORD))
    columns, mine = _columns(count), np.uint32(row)
    return _mixed(mine ^ columns) ^ _mixed(columns + mine)


@cache
def _columns(count: int) -> NDArray[np.uint32]:
    return np.array([_mix(column * 0x9E3779B9 + 0x85EBCA6B & _WORD) for column in range(count)], dtype=np.uint32)


def _mixed(x: NDArray[np.uint32]) -> NDArray[np.uint32]:
    # Products of uint32 arrays keep the low 32 bits, which is what is wanted.
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def uniform(stream: int | Tensor, step: int | Tensor, positions: Tensor, count: int) -> Tensor:
    """Uniform float32 numbers [B, count] in [0, 1), with 24 random bits; arguments as for `words`."""
    return (words(stream, step, positions, count) >> 8).to(torch.float32) * 2.0**-24


def ranks(stream: int, step: int | Tensor, positions: Tensor) -> Tensor:
    """Numbers whose order is a random one: int64 [B] of 63 random bits; equal ones are improbable.

    Args:
        stream, step: as for `words`. positions: int64 [B], place of each item in its list.
    """
    high = words(stream, step, positions, 2)
    return (high[:, 0] << 31) | (high[:, 1] >> 1)


def permutation(seed: int, purpose: str, step: int, length: int) -> Tensor:
    """A permutation of range(length), int64, on the CPU."""
    stream = seed_stream(seed, purpose)
    return torch.argsort(ranks(stream, step, torch.arange(length)), stable=True)


def initialised(seed: int, component: str, build: Callable[[], T]) -> T:
    """Result of `build`, with initial weights drawn from the component's own random stream.

    Each component (encoder, mask token, head, classifier) has its own stream, so that a deeper head leaves the initial
    weights of the encoder unchanged. torch's global generator is left untouched.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_stream(seed, f"initialise {component}"))
        return build()
