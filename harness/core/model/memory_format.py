"""Memory layout of weights, which changes speed and rounding but no result."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from harness.core.model.backbones import Family, layers_of

Module = TypeVar("Module", bound=nn.Module)


def to_device(module: Module, device: torch.device) -> Module:
    """Module moved to a device; on a GPU the weights of its CNNs get the channels-last layout of tensor cores.

    Results differ from those of the usual layout by rounding. Weights are saved in the usual layout.
    """
    found = module.to(device)
    return with_channels_last(found) if device.type == "cuda" else found


def with_channels_last(module: Module) -> Module:
    """The module, with the weights of every CNN in it laid out as [out, height, width, in]; their shapes stay."""
    for part in module.modules():
        if isinstance(part, Family) and layers_of(part).channels_last:
            part.to(memory_format=torch.channels_last)
    return module
