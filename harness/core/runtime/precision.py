"""Arithmetic of a run: what its spec says, or a refusal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from harness.spec import HarnessError, Recipe


def require(recipe: Recipe, device: torch.device) -> None:
    """Set the device's matrix arithmetic for a recipe, process-wide.

    Raises:
        HarnessError: the device lacks the recipe's precision.
    """
    precision = recipe.precision
    if device.type != "cuda":
        if precision not in ("fp32", "bf16"):
            raise HarnessError(
                f"precision {precision} needs a GPU; this process computes on {device.type} (fp32, bf16)"
            )
        return
    major = torch.cuda.get_device_capability(device)[0]
    if precision in ("tf32", "bf16") and major < 8:
        name = torch.cuda.get_device_name(device)
        raise HarnessError(f"precision {precision} needs compute capability 8; {name} has {major} (fp32, fp16)")
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """The context of a forward pass."""
    low = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.precision)
    return torch.autocast(device.type, dtype=low or torch.bfloat16, enabled=low is not None)


@contextmanager
def alone_in(precision: Literal["fp32", "bf16"], device: torch.device) -> Iterator[None]:
    """The context of a frozen network, which computes in its own precision whatever that of the run around it is."""
    matrices, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        torch.set_float32_matmul_precision(matrices)
        torch.backends.cudnn.allow_tf32 = convolutions


def loss_scaler(recipe: Recipe, device: torch.device) -> torch.amp.GradScaler:
    """The loss scaler; it does nothing unless the precision is fp16."""
    return torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
