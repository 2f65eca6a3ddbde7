"""A moving average of a model's weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


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
        for mean, latest in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(latest, 1 - decay)
        for buffer, current in zip(self.average.buffers(), self.model.buffers(), strict=True):
            buffer.copy_(current)
