"""Momentum encoder: moving averages of a model's parts, without gradient."""

from __future__ import annotations

import copy
import math
from typing import Self, assert_never

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.core.runtime.average import follow
from harness.spec import MomentumEncoder


def momentum_at(momentum: MomentumEncoder, step: int, steps: int, steps_per_epoch: int) -> float:
    """Momentum at a step counted from 0; see `MomentumEncoder`.

    Args:
        steps: number of steps of the whole training.
    """
    length = steps if momentum.epochs is None else momentum.epochs * steps_per_epoch
    # Where the rise is shorter than the training, momentum stays at its end.
    done = min(step / length, 1.0)
    match momentum.schedule:
        case "cosine":
            left = (1 + math.cos(math.pi * done)) / 2
        case "linear":
            left = 1 - done
        case _:
            assert_never(momentum.schedule)
    return momentum.end - (momentum.end - momentum.start) * left


class Momentum(nn.Module):
    """Moving averages of some parts of a model, under the parts' own names; checkpoints of the model include them.

    They compute in evaluation mode except batch norms, which use the statistics of the batch while the model trains, as
    the momentum branch of MoCo v3 does.

    Args:
        model: whose parts are copied now.
        parts: names of modules or parameters of the model, or of attributes that are None.
    """

    def __init__(self, momentum: MomentumEncoder, model: nn.Module, *parts: str) -> None:
        super().__init__()
        self.spec = momentum
        for part in parts:
            setattr(self, part, copy.deepcopy(getattr(model, part)))
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        # torch calls this for all parts of a model in training; drop path and dropout stay off nevertheless.
        super().train(False)
        self.training = mode
        for layer in self.modules():
            if isinstance(layer, _BatchNorm):
                layer.train(mode)
        return self

    @torch.no_grad()
    def restart(self, model: nn.Module) -> None:
        """Copy the model's weights again, after weights were loaded into it."""
        for name, own in (*self.named_parameters(), *self.named_buffers()):
            own.copy_(model.get_parameter(name) if isinstance(own, nn.Parameter) else model.get_buffer(name))

    @torch.no_grad()
    def follow(self, model: nn.Module, rate: float | Tensor) -> None:
        """k <- m * k + (1 - m) * q for every parameter, at the end of a step; buffers are copied.

        All processes of a run have the same parameters, and so the same averages.

        Args:
            rate: the momentum m.
        """
        # By name: the copies are some parts of the model, which may be in another order there.
        own = dict(self.named_parameters())
        follow([*own.values()], [model.get_parameter(name) for name in own], rate)
        for name, buffer in self.named_buffers():
            buffer.copy_(model.get_buffer(name))
