"""Floating-point precision of a run: set as its spec says, or refused where the device lacks it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch

from harness.spec import HarnessError, Recipe


class Arithmetic(NamedTuple):
    """Process-wide settings of matrix arithmetic on GPUs.

    matrices: torch's float32_matmul_precision, such as `highest` or `high`. convolutions: True allows TF32.
    """

    matrices: str
    convolutions: bool

    @classmethod
    def current(cls) -> Arithmetic:
        """The settings as they are."""
        return cls(torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)

    def use(self) -> None:
        """Make these the settings of the process."""
        torch.set_float32_matmul_precision(self.matrices)
        torch.backends.cudnn.allow_tf32 = self.convolutions


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
    # "high" allows TF32 for matrix products; convolutions have a switch of their own.
    Arithmetic("high" if precision == "tf32" else "highest", precision == "tf32").use()


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """Autocast context of a forward pass: bfloat16 or float16 where the recipe says so, else disabled."""
    low = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.precision)
    return torch.autocast(device.type, dtype=low or torch.bfloat16, enabled=low is not None)


@contextmanager
def alone_in(precision: Literal["fp32", "bf16"], device: torch.device) -> Iterator[None]:
    """Context for a frozen network, which computes in its own precision whatever the run around it uses.

    So the targets of a teacher or tokenizer are the same whether training computes in fp32, tf32, bf16 or fp16.
    """
    # TF32 is a process-wide setting, not one of autocast, so it is switched off here and put back afterwards.
    before = Arithmetic.current()
    Arithmetic("highest", convolutions=False).use()
    try:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        before.use()


def loss_scaler(recipe: Recipe, device: torch.device) -> torch.amp.GradScaler:
    """Loss scaler against underflow of float16 gradients; it does nothing at other precisions."""
    return torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
