"""Masked autoencoders: an encoder that computes visible tokens only, and a decoder that fills in the hidden ones.

The definition is that of MAE (He et al., CVPR 2022, section 3), behaviour as of facebookresearch/mae, models_mae.py.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from harness.spec import DecoderHead, HarnessError

INIT_STD = 0.02
"""Standard deviation of tokens and learned positions at the start, as in the released MAE."""


def visible_places(hidden: Tensor, count: int | None = None) -> Tensor:
    """Indices of the visible tokens, ascending.

    Args:
        hidden: bool [B, h, w], True = hidden; as many in every image.
        count: number of visible tokens of each image, where the mask's kind tells it. None counts them, for which the
            host waits for the device.

    Returns:
        int64 [B, n]: places in the map, row by row.

    Raises:
        HarnessError: counted, the numbers differ from image to image, or an image is hidden altogether.
    """
    hidden = hidden.flatten(1)
    # A stable sort puts visible places (0) first, in their order.
    order = hidden.to(torch.uint8).argsort(dim=1, stable=True)
    return order[:, : _number_of_visible(hidden) if count is None else count]


def _number_of_visible(hidden: Tensor) -> int:
    """Number of visible tokens, which all images [B, N] have in common; raises as `visible_places` says."""
    # Both in one tensor, so that the host waits for the device once.
    fewest, most = (int(count) for count in torch.stack((~hidden).sum(1).aminmax()).tolist())
    if fewest != most:
        raise HarnessError(
            f"token='drop' needs as many visible tokens in every image, not {fewest} to {most} of {hidden.shape[1]}; "
            "take a mask of an exact count, or token='replace'"
        )
    if not fewest:
        raise HarnessError("token='drop' leaves no visible token to compute: the mask hides whole images")
    return fewest


def encode_visible(model: Any, images: Tensor, places: Tensor) -> Tensor:
    """Tokens after the final norm, of visible places alone; hidden ones cost nothing after the patch embedding.

    Args:
        model: a timm VisionTransformer.
        images: float [B, channels, S, S]. places: int64 [B, n], from `visible_places`.

    Returns:
        [B, P + n, C]: the P tokens in front of the patches, such as the class token, then the visible ones.

    Raises:
        HarnessError: the model is no VisionTransformer.
    """
    if not isinstance(model, VisionTransformer):
        raise HarnessError(
            f"token='drop' needs timm's VisionTransformer (vit_...), whose tokens do not depend on their neighbours; "
            f"this is a {type(model).__name__}"
        )
    vit: Any = model  # timm declares its submodules as Tensor | Module
    # Positions are added before hidden tokens are dropped, so that each visible token keeps its own.
    tokens = vit._pos_embed(vit.patch_embed(images))
    first, patches = tokens[:, : vit.num_prefix_tokens], tokens[:, vit.num_prefix_tokens :]
    x = vit.norm_pre(torch.cat((first, _gathered(patches, places)), dim=1))
    for layer in vit.blocks:
        x = layer(x)
    found: Tensor = vit.norm(x)
    return found


def visible_map(tokens: Tensor, places: Tensor, side: int) -> Tensor:
    """Visible tokens as a map [B, C, side, side], 0 where hidden; tokens as `encode_visible` gives them."""
    seen = tokens[:, -places.shape[1] :]  # without the class token in front
    blank = seen.new_zeros(len(seen), side * side, seen.shape[2])
    return _scattered(blank, places, seen).mT.reshape(len(seen), -1, side, side)


def _gathered(tokens: Tensor, places: Tensor) -> Tensor:
    """[B, N, C] -> [B, n, C]."""
    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[2]))


def _scattered(tokens: Tensor, places: Tensor, seen: Tensor) -> Tensor:
    """Tokens [B, N, C] with those at places [B, n] replaced by `seen`, [B, n, C]."""
    return tokens.scatter(1, places[..., None].expand_as(seen), seen)


class Decoder(nn.Module):
    """A transformer decoder; see `harness.spec.DecoderHead`.

    Args:
        width, channels, upscale, side: as for `build_head`.
        fills: True if hidden places come without features, so that a mask token is learnt for them.
    """

    def __init__(
        self, head: DecoderHead, *, width: int, channels: int, upscale: int, side: int, fills: bool = False
    ) -> None:
        super().__init__()
        self.side, self.upscale = side, upscale
        self.embed = nn.Linear(width, head.width)
        self.mask_token = nn.Parameter(torch.randn(head.width) * INIT_STD) if fills else None
        self.pos_embed: Tensor
        if head.positions == "learned":
            self.pos_embed = nn.Parameter(torch.randn(side * side, head.width) * INIT_STD)
        else:
            self.register_buffer("pos_embed", sincos_positions(side, head.width), persistent=False)
        # The released MAE's epsilon; torch's default is 1e-5.
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        blocks = (Block(head.width, head.heads, qkv_bias=True, norm_layer=norm) for _ in range(head.depth))
        self.blocks = nn.Sequential(*blocks)
        self.norm = norm(head.width)
        self.predict = nn.Linear(head.width, channels * upscale**2)
        self.apply(draw_linear)

    def forward(self, x: Tensor, places: Tensor | None = None) -> Tensor:
        """Prediction [B, channels, side * upscale, side * upscale].

        Args:
            x: features [B, width, side, side]; with `places`, tokens [B, P + n, width] from `encode_visible`.
        """
        if places is None:
            first, patches = None, self.embed(x.flatten(2).mT)
        else:
            first, seen = self.embed(x).split((x.shape[1] - places.shape[1], places.shape[1]), dim=1)
            patches = self._filled(seen, places)
        patches = patches + self.pos_embed
        # Under autocast the float32 positions have promoted the patches; the tokens in front have to match them.
        x = self.norm(self.blocks(patches if first is None else torch.cat((first.to(patches.dtype), patches), dim=1)))
        # The class token in front is part of the attention, but nothing is predicted from it.
        found: Tensor = self.predict(x[:, -(self.side**2) :]).mT
        return F.pixel_shuffle(found.reshape(len(x), -1, self.side, self.side), self.upscale)

    def _filled(self, seen: Tensor, places: Tensor) -> Tensor:
        """Tokens of all places [B, side * side, C]: visible ones as given, the mask token at the others."""
        if self.mask_token is None:
            raise ValueError("a decoder without a mask token takes whole maps")
        blank = self.mask_token.to(seen.dtype).expand(len(seen), self.side**2, -1)
        return _scattered(blank, places, seen)


def draw_linear(module: nn.Module) -> None:
    """Initialise a linear layer as the released MAE does: Xavier uniform, biases 0."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def begin_as_released(model: Any) -> None:
    """Initialise a timm VisionTransformer as the released MAE does, with fixed sine-cosine positions.

    The patch embedding is initialised as the linear layer that it is, the class token from a normal of deviation 0.02;
    the class token's position is 0.
    """
    model.apply(draw_linear)
    nn.init.xavier_uniform_(model.patch_embed.proj.weight.view(len(model.patch_embed.proj.weight), -1))
    if model.cls_token is not None:
        nn.init.normal_(model.cls_token, std=INIT_STD)
    # Written into timm's parameter, so that checkpoints keep timm's names, and then frozen.
    found = sincos_positions(model.patch_embed.grid_size[0], model.embed_dim)
    with torch.no_grad():
        model.pos_embed.zero_()
        model.pos_embed[0, -len(found) :] = found
    model.pos_embed.requires_grad_(False)


def sincos_positions(side: int, width: int) -> Tensor:
    """Sine-cosine positions of a square map: float32 [side * side, width], row by row.

    The first half of the channels encodes the column, the second the row; each half has sines first and then cosines of
    place / 10000 ** (2 i / (width / 2)) (facebookresearch/mae, util/pos_embed.py). width: 4 divides it.
    """
    quarter = width // 4
    # In float64 as the released code computes them with NumPy, and rounded once at the end.
    rates = torch.exp(torch.arange(quarter, dtype=torch.float64) / quarter * -math.log(10_000))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * rates
    waves = torch.cat((angles.sin(), angles.cos()), dim=1)  # [side, width / 2]
    columns = waves[None].expand(side, -1, -1)
    rows = waves[:, None].expand(-1, side, -1)
    return torch.cat((columns, rows), dim=2).reshape(side * side, width).float()
