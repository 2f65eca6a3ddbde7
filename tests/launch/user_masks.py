"""Masks as a user would write them, which misbehave while a file says so."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

VARIABLE = "TEST_TROUBLE"


def trouble(name: str) -> bool:
    """Whether the tests ask for this kind of trouble."""
    folder = os.environ.get(VARIABLE)
    return bool(folder) and (Path(str(folder)) / name).exists()


def raising(random: Callable[..., Tensor], grid: tuple[int, int], step: Tensor, steps: int) -> Tensor:
    """Raises in the middle."""
    if bool((step == 2).any()) and trouble("raise"):
        raise ValueError("the mask has a hole")
    return random(*grid) < 0.5


def deadly(random: Callable[..., Tensor], grid: tuple[int, int], step: Tensor, steps: int) -> Tensor:
    """Kills its process in the middle."""
    if bool((step == 2).any()) and trouble("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    return random(*grid) < 0.5


class _Faint(nn.Module):
    def __init__(self, channels: int, values: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels, values, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = torch.as_tensor(1e-9) * self.layer(x)
        return found


def faint(in_channels: int, out_channels: int) -> nn.Module:
    """A head that shows the same colour everywhere, but for nothing that can be seen."""
    return _Faint(in_channels, out_channels)


def deadly_to_others(random: Callable[..., Tensor], grid: tuple[int, int], step: Tensor, steps: int) -> Tensor:
    """Kills the second process of a run in the middle."""
    if bool((step == 2).any()) and torch.distributed.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return random(*grid) < 0.5
