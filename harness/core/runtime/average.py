"""Moving averages of weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def follow(averages: list[Tensor], weights: list[Tensor], keep: float) -> None:
    """average <- keep * average + (1 - keep) * weight, in place, for each pair."""
    torch._foreach_mul_(averages, keep)
    torch._foreach_add_(averages, weights, alpha=1 - keep)


class Averaged(nn.Module):
    """A model that is trained, and the moving average that is tested. A forward pass is the model's.

    To be made before anything in the model is replaced for training, such as its batch norms.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.average = copy.deepcopy(model).requires_grad_(False).eval()

    def forward(self, *inputs: Any) -> Any:
        """What the model gives."""
        return self.model(*inputs)

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """average = decay * average + (1 - decay) * weights; buffers are copied."""
        follow(list(self.average.parameters()), list(self.model.parameters()), decay)
        for buffer, current in zip(self.average.buffers(), self.model.buffers(), strict=True):
            buffer.copy_(current)
