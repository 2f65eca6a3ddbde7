"""Activation checkpointing: blocks keep their input only and are computed a second time in the backward pass.

Nothing changes but memory and time: a block that is computed again draws the same numbers, and its batch norms note
nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformerStage
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from harness.core.model.backbones import Family, layers_of
from harness.core.model.heads import InverseSwin, Transformer
from harness.core.model.mae import Decoder


def checkpoint_blocks(model: nn.Module) -> None:
    """Let the blocks of all encoders, classifiers and heads of a model keep their input only.

    Call it once, when the model's layers are final; its weights keep their names. Blocks without a gradient, as those
    of a momentum encoder, are computed once as before.
    """
    for block in [block for part in model.modules() for block in _blocks(part)]:
        # An attribute of the instance, as a module around the block would change the names of its weights.
        block.forward = _Twice(block, block.forward)


def _blocks(part: Any) -> list[nn.Module]:
    """Blocks of a part of a model; none if the part is neither backbone nor head."""
    match part:
        case Decoder() | Transformer():
            return [*part.blocks]
        case InverseSwin():
            return [block for stage in part.layers if isinstance(stage, SwinTransformerStage) for block in stage.blocks]
        case _:
            return layers_of(part).blocks(part) if isinstance(part, Family) else []


class _Twice:
    """The forward pass of a block, which is computed again in the backward pass."""

    def __init__(self, block: nn.Module, forward: Callable[..., Tensor]) -> None:
        self.forward = forward
        self.norms = [layer for layer in block.modules() if isinstance(layer, _BatchNorm)]

    def __call__(self, *inputs: Any, **named: Any) -> Tensor:
        # Without gradients nothing is kept anyway.
        if not torch.is_grad_enabled():
            return self.forward(*inputs, **named)
        if self.norms:
            named["context_fn"] = self._contexts
        # Not reentrant, as only that passes named arguments on.
        found: Tensor = checkpoint(self.forward, *inputs, use_reentrant=False, **named)
        return found

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        # The first pass counts the batch in the running statistics, the second must not count it again.
        return nullcontext(), _unchanged(self.norms)


@contextmanager
def _unchanged(norms: list[Any]) -> Iterator[None]:
    """Context that leaves the running statistics of batch norms as they are."""
    before = [[buffer.clone() for buffer in norm.buffers()] for norm in norms]
    noted = [getattr(norm, "seen", None) for norm in norms]  # of `GroupBatchNorm`
    try:
        yield
    finally:
        for norm, values, seen in zip(norms, before, noted, strict=True):
            for buffer, value in zip(norm.buffers(), values, strict=True):
                buffer.data.copy_(value)  # past autograd, which holds these buffers but does not use them
            if hasattr(norm, "seen"):
                norm.seen = seen
