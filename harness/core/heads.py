"""Prediction heads: from an encoder's feature map to the target's pixels."""

from __future__ import annotations

from typing import assert_never

from torch import nn

from harness.core.custom import call, load_function
from harness.spec import CustomHead, HarnessError, Head, LinearHead, MlpHead


def build_head(head: Head, *, width: int, channels: int, upscale: int) -> nn.Module:
    """A module from [B, width, h, w] to [B, channels, h * upscale, w * upscale].

    Pixel shuffle has torch's order: output channel c at offset (i, j) is input channel c * s * s + i * s + j.
    """
    out = channels * upscale**2
    body: nn.Module
    match head:
        case LinearHead():
            body = nn.Conv2d(width, out, 1)
        case MlpHead():
            body = _mlp(width, head.width or width, out, head.layers)
        case CustomHead():
            made = call(load_function(head.function, head.source), head.function, width, out, **dict(head.params))
            if not isinstance(made, nn.Module):
                raise HarnessError(f"{head.function} should return a torch module, not {type(made).__name__}")
            body = made
        case _:
            assert_never(head)
    return nn.Sequential(body, nn.PixelShuffle(upscale))


def _mlp(width: int, hidden: int, out: int, layers: int) -> nn.Sequential:
    parts: list[nn.Module] = [nn.Conv2d(width, hidden, 1)]
    for _ in range(layers - 2):
        parts += [nn.GELU(), nn.Conv2d(hidden, hidden, 1)]
    return nn.Sequential(*parts, nn.GELU(), nn.Conv2d(hidden, out, 1))
