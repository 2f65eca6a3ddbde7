"""LAMB and LARS under a loss scaler: the same weights as torch's scaler and timm's optimisers, without a wait."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from timm.optim.lamb import Lamb
from timm.optim.lars import Lars
from torch import Tensor, nn

from harness.core.train.skipping import SkippingLamb, SkippingLars

ADAPTED: dict[str, Any] = {"lr": 0.0, "momentum": 0.9, "always_adapt": True}
Make = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
PAIRS: dict[str, tuple[Make, Make]] = {
    "lamb": (partial(Lamb, lr=0.0, max_grad_norm=None), partial(SkippingLamb, lr=0.0, max_grad_norm=None)),
    "lars": (partial(Lars, **ADAPTED), partial(SkippingLars, **ADAPTED)),
    "lars without momentum": (partial(Lars, lr=0.0), partial(SkippingLars, lr=0.0)),
}
"""Optimisers of timm, and ours."""
PLANTED = {1: math.inf, 5: math.nan, 6: -math.inf, 13: math.inf}
"""Steps of twenty, one of them right behind another, and what stands in one place of their gradients."""


def trained(
    make: Make, planted: dict[int, float], *, scaled: bool = True
) -> tuple[list[Tensor], dict[str, Any], dict[str, Any]]:
    """Weights and states of optimiser and scaler after 20 steps by torch's own sequence, resumed after 10 of them."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 33), nn.LayerNorm(33), nn.GELU(), nn.Linear(33, 5))
    unused = nn.Parameter(torch.ones(3))
    for weight in model.parameters():
        nn.init.normal_(weight, generator=generator)
    matrices, vectors = ([p for p in model.parameters() if (p.ndim > 1) == wanted] for wanted in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": [*vectors, unused], "weight_decay": 0.0}]
    optimiser, scaler = make(groups), torch.amp.GradScaler("cpu", growth_interval=3, enabled=scaled)
    for step in range(20):
        if step == 10:
            saved, optimiser = optimiser.state_dict(), make([{**group} for group in groups])
            optimiser.load_state_dict(saved)
        for group in optimiser.param_groups:
            group["lr"] = 0.01 * (step + 1)
        scaler.scale(model(torch.randn(16, 7, generator=generator)).square().mean()).backward()
        if step in planted:
            assert matrices[0].grad is not None
            matrices[0].grad[3, 2] = planted[step]
        scaler.unscale_(optimiser)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimiser)
        scaler.update()
        optimiser.zero_grad()
    return [*model.parameters(), unused], optimiser.state_dict(), scaler.state_dict()


@pytest.mark.parametrize("planted", [{}, PLANTED, {0: math.nan}, {0: math.inf, 1: math.inf, 19: math.inf}])
@pytest.mark.parametrize("name", PAIRS)
def test_a_step_with_infinite_gradients_is_left_out_as_by_torchs_scaler(name: str, planted: dict[int, float]) -> None:
    """Weights, averages, numbers of steps and the scale are equal to the bit."""
    # timm before 1.0.31 rounds LAMB's averages otherwise.
    rounding = 1e-4 if name == "lamb" and not hasattr(sys.modules[Lamb.__module__], "lamb") else 0.0
    expected, found = (trained(make, planted) for make in PAIRS[name])
    torch.testing.assert_close(found[0], expected[0], rtol=rounding, atol=rounding)
    torch.testing.assert_close(found[1]["state"], expected[1]["state"], rtol=rounding, atol=rounding)
    taken = [[float(group.get("step", -1)) for group in state["param_groups"]] for _, state, _ in (expected, found)]
    assert taken[0] == taken[1]
    assert found[2] == expected[2]


@pytest.mark.parametrize("name", PAIRS)
def test_nothing_moves_where_every_step_is_left_out(name: str) -> None:
    everywhere = dict.fromkeys(range(20), math.inf)
    weights, state, scaler = trained(PAIRS[name][1], everywhere)
    torch.testing.assert_close(weights, trained(partial(torch.optim.SGD, lr=0.0), everywhere)[0], rtol=0, atol=0)
    assert not any(average.any() for averages in state["state"].values() for average in averages.values())
    assert scaler["scale"] == 2.0**16 / 2**20


def test_without_a_scaler_steps_are_timms_own() -> None:
    expected, found = (trained(make, {}, scaled=False) for make in PAIRS["lamb"])
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
