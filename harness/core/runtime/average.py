"""Moving averages of weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def follow(averages: list[Tensor], weights: list[Tensor], keep: float | Tensor) -> None:
    """Move averages towards weights in place: average <- keep * average + (1 - keep) * weight, for each pair.

    keep: share of the old average that stays, a number or a scalar tensor.
    """
    # Few fused calls for all tensors; a loop over parameters would launch two kernels for each.
    torch._foreach_mul_(averages, keep)
    if isinstance(keep, Tensor):
        torch._foreach_add_(averages, torch._foreach_mul(weights, 1 - keep))
    else:
        torch._foreach_add_(averages, weights, alpha=1 - keep)


class Averaged(nn.Module):
    """A trained model together with the moving average of its weights. The average is what is tested.

    Create it before anything in the model is replaced for training, such as its batch norms: the average is a deep
    copy and keeps torch's own layers.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.average = copy.deepcopy(model).requires_grad_(False).eval()

    def forward(self, *inputs: Any) -> Any:
        """Output of the trained model; the average takes no part in training."""
        return self.model(*inputs)

    @torch.no_grad()
    def follow(self, decay: float | Tensor) -> None:
        """average = decay * average + (1 - decay) * weights; buffers are copied."""
        follow(list(self.average.parameters()), list(self.model.parameters()), decay)
        # Buffers (running statistics, counters) are averages already or integers, so the latest values are taken.
        for buffer, current in zip(self.average.buffers(), self.model.buffers(), strict=True):
            buffer.copy_(current)
