"""Key names of mmpretrain's SimMIM and Swin classifiers (open-mmlab/mmpretrain, models/backbones/swin_transformer.py).

Its patch merging unfolds the image, so the four merged neighbours of a channel lie side by side, in the order (row,
column); in the released code and in timm all channels of a neighbour lie side by side, in the order (column, row).

A model with `pad_small_map=True` keeps its window on maps that are smaller: timm's `always_partition` in the backbone's
args. Where windows do not divide a map, shifted blocks differ: timm shifts before it pads, mmpretrain pads before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from harness.core.weights.formats.weights import Weights, below, without_buffers

_RENAMED = (
    (re.compile(r"^patch_embed\.projection\."), r"patch_embed.proj."),
    (re.compile(r"^stages\."), r"layers."),
    (re.compile(r"\.attn\.w_msa\."), r".attn."),
    (re.compile(r"\.ffn\.layers\.0\.0\."), r".mlp.fc1."),
    (re.compile(r"\.ffn\.layers\.1\."), r".mlp.fc2."),
    (re.compile(r"^norm\d+\."), r"norm."),  # the only stage with an output, the last, has the norm
)
_MERGING = re.compile(r"^layers\.(\d+)\.downsample\.(.+)$")


def from_mmpretrain(tensors: Mapping[str, Tensor]) -> Weights:
    """A pre-training (`backbone.*`, `neck.decoder.0.*`) or a classifier (`backbone.*`, `head.fc.*`)."""
    backbone = without_buffers(below(tensors, "backbone."))
    token = backbone.pop("mask_token", None)
    encoder = dict(_renamed(name, tensor) for name, tensor in backbone.items())
    classifier = {name: tensor for name, tensor in tensors.items() if name.startswith("head.")}
    return Weights(encoder | classifier, None if token is None else token.flatten(), below(tensors, "neck.decoder."))


def _renamed(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """Name of timm and value of a tensor of mmpretrain's encoder."""
    for pattern, new in _RENAMED:
        name = pattern.sub(new, name)
    # Patch merging ends a stage there and begins the next one in timm.
    if found := _MERGING.match(name):
        return f"layers.{int(found[1]) + 1}.downsample.{found[2]}", _reordered(tensor)
    return name, tensor


def _reordered(tensor: Tensor) -> Tensor:
    """Last axis from (channel, row, column) to (column, row, channel). Any shape [..., 4 C]."""
    *others, length = tensor.shape
    parts = tensor.reshape(*others, length // 4, 2, 2)
    return parts.transpose(-1, -3).reshape(*others, length).contiguous()
