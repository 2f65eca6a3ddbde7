"""LAMB and LARS that leave out a step on the device where its gradients hold inf or nan.

timm's own cannot: torch's loss scaler would wait for the device in every step to know whether to call them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.optim.lamb import Lamb
from timm.optim.lars import Lars
from torch import Tensor


class _Skipping(torch.optim.Optimizer):
    """An optimiser as torch's loss scaler knows fused ones: it is called in every step, with `found_inf`.

    found_inf: float32 scalar on the device, 1 where a gradient is inf or nan; unset where no scaler is at work. Then
        steps are timm's own.
    """

    _step_supports_amp_scaling = True
    found_inf: Tensor

    def averages(self) -> tuple[str, ...]:
        """Names of what it keeps for each weight, which begins at zero."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; without effect on weights, averages and counts where `found_inf` is 1."""
        if not hasattr(self, "found_inf"):
            return super().step(closure)
        changed = [tensor for group in self.param_groups for tensor in self._changed(group)]
        before = [torch.empty_like(tensor) for tensor in changed]
        torch._foreach_copy_(before, changed)
        self.update()
        skipped = self.found_inf > 0
        for tensor, old in zip(changed, before, strict=True):
            torch.where(skipped, old, tensor, out=tensor)
        return None

    def update(self) -> None:
        """Change weights and averages."""
        super().step()

    def _changed(self, group: dict[str, Any]) -> list[Tensor]:
        """Weights of a group that have gradients, and their averages."""
        weights = [weight for weight in group["params"] if weight.grad is not None]
        names = self.averages()
        return weights + [
            self.state[weight].setdefault(name, torch.zeros_like(weight)) for name in names for weight in weights
        ]


class SkippingLars(_Skipping, Lars):
    """LARS of timm."""

    def averages(self) -> tuple[str, ...]:
        return ("momentum_buffer",) if self.defaults["momentum"] else ()


class SkippingLamb(_Skipping, Lamb):
    """LAMB of timm, with the settings that recipes have: coupled weight decay, no clipping of its own."""

    def averages(self) -> tuple[str, ...]:
        return "exp_avg", "exp_avg_sq"

    def update(self) -> None:
        """As timm 1.0.31's, but for the number of steps taken, which only the device knows."""
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            taken = torch.as_tensor(group.get("step", 0), dtype=torch.float32, device=self.found_inf.device)
            group["step"] = taken + (1 - self.found_inf)
            if weights:
                self._update(group, weights, (taken + 1).double())

    def _update(self, group: dict[str, Any], weights: list[Tensor], step: Tensor) -> None:
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        means, squares = ([self.state[weight][name] for weight in weights] for name in self.averages())
        beta1, beta2 = group["betas"]
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        # Corrections of averages that began at zero; in float64, as 1 - beta ** step is a small difference.
        of_mean, of_square = (1 - beta**step for beta in (beta1, beta2))
        divisors = torch._foreach_sqrt(squares)
        torch._foreach_div_(divisors, of_square.sqrt().float())
        torch._foreach_add_(divisors, group["eps"])
        moves = torch._foreach_div(means, of_mean.float())
        torch._foreach_div_(moves, divisors)
        if group["weight_decay"]:
            torch._foreach_add_(moves, weights, alpha=group["weight_decay"])
            sizes, lengths = (torch.stack(torch._foreach_norm(tensors)) for tensors in (weights, moves))
            trust = torch.where((sizes > 0) & (lengths > 0), sizes / lengths, 1.0)
            torch._foreach_mul_(moves, [*trust])
        torch._foreach_add_(weights, moves, alpha=-group["lr"])
