"""Whether a pre-training can learn at all: up to thirty steps on one batch and one mask, at a constant rate."""

from __future__ import annotations

import torch

from harness import audit
from harness.core.objective.losses import total
from harness.core.pretrain.mim import MaskedImageModel
from harness.spec import Pretrain

STEPS = 30
RATES = (2e-3, 1e-3)
"""Tried in this order until one will do: a head of transformer blocks wants the smaller one."""

LEARNT = 0.8
"""A loss that is this share of the first one or less is learnt."""


def overfit(run: Pretrain, batch: audit.Batch) -> tuple[float, audit.Step]:
    """Loss after up to 30 steps of AdamW as a share of the first, and the first step. Stops once it is learnt."""
    for rate in RATES:
        share, first = _steps(run, batch, rate)
        if share <= LEARNT:
            break
    return share, first


def _steps(run: Pretrain, batch: audit.Batch, rate: float) -> tuple[float, audit.Step]:
    model = MaskedImageModel(run, batch.images.shape[1]).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate)
    losses: list[float] = []
    for step in range(STEPS + 1):
        optimiser.zero_grad()
        loss = total(model(*batch.inputs)[1])
        losses.append(loss.item())
        if losses[-1] <= LEARNT * losses[0]:
            break
        torch.autograd.backward(loss)
        if step == 0:
            gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
            first = audit.Step(losses[0], gradients)
        optimiser.step()
    return losses[-1] / losses[0], first
