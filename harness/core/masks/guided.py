"""Masks from a score of each unit: a teacher's attention, or the loss that a predictor expects. True = hidden."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from harness.core.masks.units import Draw, listed, order_of
from harness.spec import GuidedMask, HardMask, HarnessError


def unit_scores(scores: Tensor | None, kind: str, batch: int, units: int) -> Tensor:
    """Score of each unit, the mean over its tokens.

    Args:
        scores: float [B, h, h], h a multiple of units.

    Returns:
        float32 [B, units * units], without a gradient.

    Raises:
        HarnessError: there are no scores, or not of this shape.
    """
    if scores is None:
        raise HarnessError(f"a {kind} mask needs scores [B, {units}, {units}] from a teacher; there are none here")
    if scores.ndim != 3 or len(scores) != batch or scores.shape[1] != scores.shape[2] or scores.shape[1] % units:
        raise HarnessError(f"scores should be [{batch}, {units}, {units}] or finer, not {list(scores.shape)}")
    finer = scores.shape[1] // units
    return F.avg_pool2d(scores.detach().float()[:, None], finer).flatten(1)


def guided_units(mask: GuidedMask, draw: Draw, scores: Tensor | None) -> Tensor:
    """Masks by a teacher's attention, bool [B, units, units]; see `GuidedMask`. Of equal scores the first unit wins."""
    units = draw.image_size // mask.size
    found = unit_scores(scores, mask.kind, draw.batch, units)
    total = found.shape[1]
    place = draw.uniform("mask ratio", 1)[:, 0].double()
    count = (total * (mask.ratio + (2 * place - 1) * mask.ratio_spread)).long()
    if mask.choose == "drawn":
        # Scores of 0 get a finite logarithm, so that noise decides the order among them too.
        found = found.clamp(min=1e-30).log() + _gumbel(draw, total)
    falling = found.argsort(dim=1, descending=True, stable=True)
    # "rest" hides all but the highest scores; else the highest scores are hidden, and a few of them shown again.
    if mask.hide == "rest":
        return ~listed(falling, total - count).view(-1, units, units)
    hidden = listed(falling, count)
    if shown := int(total * mask.reveal):
        # Drawn among the first places of `falling`, which are the highest scores. All of these are hidden: the spec
        # bounds reveal_from by the smallest ratio, which may be a little less by rounding.
        among = int(total * min(mask.reveal_from, mask.ratio - mask.ratio_spread))
        order = order_of(draw.words("mask reveal", 2 * among))
        hidden.scatter_(1, falling.gather(1, order[:, :shown]), value=False)
    return hidden.view(-1, units, units)


def hard_units(mask: HardMask, draw: Draw, scores: Tensor | None) -> Tensor:
    """Masks by expected loss, bool [B, units, units]; see `HardMask`. Of equal scores the first unit wins."""
    units = draw.image_size // mask.size
    found = unit_scores(scores, mask.kind, draw.batch, units)
    total, count = found.shape[1], mask.hidden_units(draw.image_size)
    step = draw.step.double() if isinstance(draw.step, Tensor) else draw.step  # of the precision of a Python number
    chosen = count * mask.share(step, draw.steps)
    falling = found.argsort(dim=1, descending=True, stable=True)
    hardest = listed(falling, chosen.long() if isinstance(chosen, Tensor) else int(chosen))
    # The inverse of a random order: each unit's place in it.
    rank = order_of(draw.words("mask", 2 * total)).argsort(dim=1)
    order = rank.masked_fill(hardest, -1).argsort(dim=1, stable=True)  # the hardest first, then at random
    return listed(order, count).view(-1, units, units)


def _gumbel(draw: Draw, count: int) -> Tensor:
    """Gumbel noise, float64 [B, count]: the largest sums of log-weight and noise are a draw without replacement in
    proportion to the weights."""
    # Half a step inside (0, 1), where both logarithms are finite.
    noise = (draw.words("mask", count).double() + 0.5) * 2.0**-32
    return -(-noise.log()).log()
