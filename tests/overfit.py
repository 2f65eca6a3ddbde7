"""Whether a pre-training can learn at all: thirty steps on one batch and one mask."""

from __future__ import annotations

import torch

from harness import audit
from harness.core.mim import MaskedImageModel


def overfit(model: MaskedImageModel, batch: audit.Batch) -> tuple[float, audit.Step]:
    """The loss after 30 steps as a share of the first, and the first step."""
    optimiser = torch.optim.AdamW(model.train().parameters(), lr=4e-3)
    losses, first = [], None
    for _ in range(31):
        optimiser.zero_grad()
        loss = model(batch.images, batch.units)[1].sum()
        loss.backward()
        losses.append(loss.item())
        if first is None:
            gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
            first = audit.Step(losses[0], gradients)
        optimiser.step()
    assert first is not None
    return losses[-1] / losses[0], first
