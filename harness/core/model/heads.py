"""Prediction heads: modules from an encoder's feature map to the target's resolution and channels."""

from __future__ import annotations

from typing import assert_never

import torch
import torch.nn.functional as F
from timm.layers.norm import LayerNorm2d
from timm.models.swin_transformer import SwinTransformerStage
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from harness.core.model.mae import Decoder
from harness.core.runtime.custom import call, load_function, looked_at
from harness.spec import (
    CustomHead,
    DecoderHead,
    HarnessError,
    Head,
    InverseSwinHead,
    LinearHead,
    MlpHead,
    TransformerHead,
)
from harness.spec.base import choices


def build_head(head: Head, *, width: int, channels: int, upscale: int, side: int, fills: bool = False) -> nn.Module:
    """A module from [B, width, side, side] to [B, channels, side * upscale, side * upscale].

    Pixel shuffle has torch's order: output channel c at offset (i, j) is input channel c * s * s + i * s + j.

    Args:
        fills: True if the encoder drops hidden tokens, for which a decoder has a mask token (`mae.Decoder`).
    """
    out = channels * upscale**2
    body: nn.Module
    match head:
        case LinearHead():
            body = nn.Conv2d(width, out, 1)
        case MlpHead():
            body = _mlp(head, width, out)
        case TransformerHead():
            body = Transformer(head, width=width, out=out, side=side)
        case InverseSwinHead():
            return InverseSwin(head, width=width, channels=channels, upscale=upscale, side=side)
        case DecoderHead():
            return Decoder(head, width=width, channels=channels, upscale=upscale, side=side, fills=fills)
        case CustomHead():
            made = call(load_function(head.function, head.source), head.function, width, out, **dict(head.params))
            if not isinstance(made, nn.Module):
                raise HarnessError(f"{head.function} should return a torch module, not {type(made).__name__}")
            body = made
            _check_shape(head, made, width, out, side)
        case _:
            assert_never(head)
    return nn.Sequential(body, nn.PixelShuffle(upscale))


def _check_shape(head: CustomHead, body: nn.Module, width: int, out: int, side: int) -> None:
    """Refuse a user's head that does not give [1, out, side, side] for one blank map."""
    # Here, as a wrong number of channels would be broadcast against the target in silence.
    with looked_at(body):
        found = body(torch.zeros(1, width, side, side))
    shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
    if shape != [1, out, side, side]:
        given = [1, width, side, side]
        raise HarnessError(f"{head.function} should map {given} to {[1, out, side, side]}, not {shape}")


def _mlp(head: MlpHead, width: int, out: int) -> nn.Sequential:
    """Layers of 1 x 1 convolutions with GELU between them, depthwise ones in between if the head has them."""
    if head.depthwise is not None:
        hidden = [part for _ in range(head.layers - 1) for part in _depthwise(width, head.depthwise)]
        return nn.Sequential(*hidden, nn.Conv2d(width, out, 1))
    inner = head.width or width
    parts: list[nn.Module] = [nn.Conv2d(width, inner, 1)]
    for _ in range(head.layers - 2):
        parts += [nn.GELU(), nn.Conv2d(inner, inner, 1)]
    return nn.Sequential(*parts, nn.GELU(), nn.Conv2d(inner, out, 1))


def _depthwise(width: int, side: int) -> list[nn.Module]:
    return [
        # Without a bias: the norm behind it has one.
        nn.Conv2d(width, width, side, padding=side // 2, groups=width, bias=False),
        LayerNorm2d(width),
        nn.GELU(),
    ]


class Transformer(nn.Module):
    """Transformer blocks over a map; see `harness.spec.TransformerHead`.

    Raises:
        HarnessError: the heads do not divide the width.
    """

    def __init__(self, head: TransformerHead, *, width: int, out: int, side: int) -> None:
        super().__init__()
        dim = head.width or width
        if dim % head.num_heads:
            raise HarnessError(f"{head.num_heads} heads do not divide the encoder's {dim} channels; {choices(dim)}")
        self.embed = nn.Identity() if head.width is None else nn.Conv2d(width, dim, 1)
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, dim, side, side), std=0.02))
        self.around = nn.ModuleList()
        if head.depthwise is not None:
            side = head.depthwise
            self.around.extend(nn.Conv2d(dim, dim, side, padding=side // 2, groups=dim) for _ in range(head.layers))
        self.blocks = nn.ModuleList(Block(dim, head.num_heads, qkv_bias=True) for _ in range(head.layers))
        self.norm = nn.LayerNorm(dim)
        self.predict = nn.Conv2d(dim, out, 1)
        # The blocks only: the convolutions around them keep torch's initialisation.
        for name, parameter in self.blocks.named_parameters():
            _draw(name, parameter)

    def forward(self, x: Tensor) -> Tensor:
        """[B, out, h, w] from features [B, width, h, w]."""
        x = self.embed(x) + self.pos_embed
        for number, block in enumerate(self.blocks):
            if len(self.around):
                x = x + self.around[number](x)
            x = block(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)
        found: Tensor = self.predict(self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        return found


class InverseSwin(nn.Module):
    """Swin stages in reverse order; see `harness.spec.InverseSwinHead`. upscale: a power of two."""

    def __init__(self, head: InverseSwinHead, *, width: int, channels: int, upscale: int, side: int) -> None:
        super().__init__()
        # Each further stage doubles the resolution, but not beyond the target's.
        # upscale is a power of two, whose bit length less 1 is its logarithm.
        doublings = min(len(head.depths) - 1, upscale.bit_length() - 1)
        deepest = len(head.depths) - 1
        dim = head.embed_dim << deepest
        self.embed = nn.Linear(width, dim)
        layers: list[nn.Module] = []
        for stage in range(deepest, deepest - doublings - 1, -1):
            layers.append(_stage(head, stage, side))
            if stage > deepest - doublings:
                layers.append(PatchSplitting(dim, 2, dim // 2))
                dim, side = dim // 2, side * 2
        # With fewer stages than doublings, one last splitting makes up for the rest.
        if (rest := upscale >> doublings) > 1:
            layers.append(PatchSplitting(dim, rest, dim))
        self.layers = nn.Sequential(*layers)
        self.predict = nn.Conv2d(dim, channels, 1)
        for name, parameter in self.embed.named_parameters():
            _draw(name, parameter)
        for name, parameter in self.layers.named_parameters():
            _draw(name, parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Prediction [B, channels, h * upscale, w * upscale] from features [B, width, h, w]."""
        x = self.layers(self.embed(x.permute(0, 2, 3, 1)))
        found: Tensor = self.predict(x.permute(0, 3, 1, 2))
        return found


class PatchSplitting(nn.Module):
    """The mirror image of Swin's patch merging: LayerNorm, a linear layer without bias, pixel shuffle by `scale`."""

    def __init__(self, dim: int, scale: int, out: int) -> None:
        super().__init__()
        self.scale = scale
        self.norm = nn.LayerNorm(dim)
        self.expansion = nn.Linear(dim, out * scale**2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, h * scale, w * scale, out] from [B, h, w, dim]."""
        # torch shuffles maps with channels first; Swin keeps them last.
        x = self.expansion(self.norm(x)).permute(0, 3, 1, 2)
        return F.pixel_shuffle(x, self.scale).permute(0, 2, 3, 1)


def _stage(head: InverseSwinHead, stage: int, side: int) -> SwinTransformerStage:
    """One stage of Swin blocks on a map of `side` positions, without a change of resolution."""
    dim = head.embed_dim << stage
    return SwinTransformerStage(
        dim,
        dim,
        (side, side),
        head.depths[stage],
        downsample=False,  # a splitting follows instead, which doubles the map
        num_heads=head.num_heads[stage],
        window_size=head.window,
    )


def _draw(name: str, parameter: nn.Parameter) -> None:
    """Initialise a parameter as timm does in a Swin encoder: normal with sd 0.02, biases 0."""
    if parameter.ndim > 1:
        nn.init.trunc_normal_(parameter, std=0.02)
    elif name.endswith("bias"):
        nn.init.zeros_(parameter)
