"""Feature maps of an encoder at several depths, for heads that predict at every pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

from harness.core.model.backbones import Piece
from harness.core.model.encoder import Encoder
from harness.core.runtime.custom import looked_at
from harness.spec import HarnessError

QUARTERS = 4
"""Maps that are taken of an encoder whose blocks all have one stride."""


class Taps(nn.Module):
    """An encoder that gives the maps after some of its blocks; computed up to the last of these.

    Maps of Swin and ConvNeXt go through a layer norm of their own, which begins anew; others are as the block gives
    them. A frozen encoder is left out of the module: it is neither saved nor set to training with it.

    Attributes:
        blocks: counted from 1 over all stages, in ascending order; one may stand there several times.
        strides: side in image pixels of a position of each map. widths: channels of each map.
    """

    def __init__(self, encoder: Encoder, blocks: Sequence[int] | None = None) -> None:
        """blocks: None for the last of each stride, or for the quarters of an encoder that has one stride.

        Raises:
            HarnessError: the encoder has no such block, or they are not in ascending order.
        """
        super().__init__()
        if any(parameter.requires_grad for parameter in encoder.parameters()):
            self.encoder = encoder
        else:
            self.__dict__["encoder"] = encoder  # past torch, which would make it a part of this module
        pieces = {piece.block: piece for piece in encoder.pieces if piece.block is not None}
        self.blocks = _usual(pieces) if blocks is None else tuple(blocks)
        if not self.blocks or list(self.blocks) != sorted(self.blocks) or not set(self.blocks) <= set(pieces):
            raise HarnessError(f"taps {self.blocks} should be ascending blocks of the encoder, from 1 to {len(pieces)}")
        self.strides = tuple(pieces[block].stride for block in self.blocks)
        self.widths = tuple(pieces[block].width for block in self.blocks)
        normed = encoder.layers.norm_of_maps
        norms = nn.ModuleList(LayerNorm2d(width) if normed else nn.Identity() for width in self.widths)
        self.norms = norms.to(next(encoder.parameters()).device)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps [B, C', h, w] of images [B, C, H, W], one for each of `blocks`."""
        return [norm(made) for norm, made in zip(self.norms, self.raw(images), strict=True)]

    def raw(self, images: Tensor) -> list[Tensor]:
        """The same maps as the blocks give them, without the norms that begin anew."""
        found: dict[int | None, Tensor] = {}
        for piece, made in self.encoder.maps(images):
            if piece.block in self.blocks:
                found[piece.block] = made
            if piece.block == self.blocks[-1]:
                break  # later layers are not computed
        return [found[block] for block in self.blocks]

    def train_what_is_reached(self, image: Tensor) -> None:
        """Leave parameters untrained that no map depends on, such as those of the encoder's last norm.

        Several processes wait for the gradient of every parameter that is trained.

        Args:
            image: any one, [1, C, H, W].
        """
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        with looked_at(self), torch.enable_grad():
            reached = torch.autograd.grad([made.sum() for made in self(image)], trained, allow_unused=True)
        for parameter, gradient in zip(trained, reached, strict=True):
            parameter.requires_grad_(gradient is not None)


def _usual(pieces: dict[int, Piece]) -> tuple[int, ...]:
    """The last block of each stride; of an encoder with one stride, those that end the quarters of its depth."""
    last = {piece.stride: block for block, piece in pieces.items()}  # of equal strides, the last one stays
    if len(last) > 1:
        return (*last.values(),)
    return tuple(math.ceil(len(pieces) * part / QUARTERS) for part in range(1, QUARTERS + 1))
