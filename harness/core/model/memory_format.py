"""Where weights lie in memory: a way of computing that changes nothing but speed."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from harness.core.model.backbones import Family, layers_of

Module = TypeVar("Module", bound=nn.Module)


def to_device(module: Module, device: torch.device) -> Module:
    """A module on a device. On a GPU, the weights of its CNNs have their channels last, as tensor cores want them.

    Numbers differ from those of the usual order by rounding. Weights that are saved have the usual order.
    """
    found = module.to(device)
    return with_channels_last(found) if device.type == "cuda" else found


def with_channels_last(module: Module) -> Module:
    """The module, with the weights of every CNN in it laid out as [out, height, width, in]; their shapes stay."""
    for part in module.modules():
        if isinstance(part, Family) and layers_of(part).channels_last:
            part.to(memory_format=torch.channels_last)
    return module
