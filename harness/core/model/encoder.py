"""timm models as encoders: built from their specs, with a mask token inserted at hidden positions.

Names of layers are in `harness.core.model.backbones`, one module for each family.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, assert_never

import timm
import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from harness.core.model.backbones import Family, Layers, Piece, layers_named, layers_of, supported
from harness.core.model.backbones.custom import build_custom
from harness.core.model.corruption import combined
from harness.core.model.mae import begin_as_released
from harness.spec import AnyBackbone, Backbone, Corruption, CustomBackbone, HarnessError

__all__ = [
    "Encoder",
    "Family",
    "build",
    "depth",
    "layer_id",
    "own_biases",
    "own_positions",
    "stage_depths",
]

SHARED_BIAS = "rel_pos_bias.relative_position_bias_table"
"""timm's name of the one relative position table that all blocks of a BEiT share."""

SHOWN = 12
"""Most sites that an error message lists."""


def build(
    backbone: AnyBackbone,
    *,
    image_size: int,
    channels: int,
    num_classes: int = 0,
    pool: str = "",
    drop_path: float = 0.0,
) -> Family:
    """The model of a backbone spec: a timm model, or a user's own network.

    Args:
        num_classes: 0 for an encoder without classifier.
        pool: empty for an encoder, `mean` or `token` for a classifier. With the backbone's variant `simmim`, blocks
            share one relative position table in an encoder and have their own in a classifier.

    Raises:
        HarnessError: an unknown or unsupported model, arguments it refuses, or a patch or stride that is not as stated.
    """
    if isinstance(backbone, CustomBackbone):
        return build_custom(
            backbone, image_size=image_size, channels=channels, num_classes=num_classes, pool=pool, drop_path=drop_path
        )
    args = timm_arguments(
        backbone, image_size=image_size, channels=channels, num_classes=num_classes, pool=pool, drop_path=drop_path
    )
    # Without pretrained weights: a run's start is a spec of its own, and nothing may be downloaded inside a job.
    try:
        made = timm.create_model(backbone.name, pretrained=False, **args)
    except Exception as error:  # of timm or torch, about arguments that they cannot build: a division by zero heads
        raise HarnessError(f"timm refuses {backbone.name}: {error}".replace("\n", " ")) from error
    model = supported(made, backbone.name)
    # The spec states patch size and stride so that planning needs no torch; here they are checked against the model.
    first, *_, last = layers_of(model).pieces(model)
    if last.stride != backbone.stride:
        raise HarnessError(f"{backbone.name} has stride {last.stride}, not the stated {backbone.stride}")
    if first.stride != backbone.patch_size:
        raise HarnessError(
            f"the stem of {backbone.name} has stride {first.stride}, not the stated patch_size {backbone.patch_size}"
        )
    if backbone.variant == "simmim":
        _initialise(model, pretraining=not pool)
    if backbone.variant == "mae" and not pool:
        begin_as_released(model)
    return model


def timm_arguments(
    backbone: Backbone, *, image_size: int, channels: int, num_classes: int = 0, pool: str = "", drop_path: float = 0.0
) -> dict[str, Any]:
    """Keyword arguments of `timm.create_model` for a backbone spec, as `build` uses them.

    Raises:
        HarnessError: there is no such model, its family is not known here, or a class token is to be pooled of a model
            that has none.
    """
    return {
        **layers_named(backbone.name).arguments(backbone, image_size=image_size, pool=pool),
        "in_chans": channels,
        "num_classes": num_classes,
        "drop_path_rate": drop_path,
        **dict(backbone.args),  # last: a backbone's own arguments take precedence
    }


def _initialise(model: Any, *, pretraining: bool) -> None:
    """Initialise weights as the released ViT does (microsoft/SimMIM, models/vision_transformer.py).

    Matrices, patch embedding and class token: normal of deviation 0.02, truncated at 0.02 in pre-training and at 2.0
    (practically not at all) in fine-tuning. The last matrices of block k, counted from 1, are divided by sqrt(2 k).
    """
    # The released pre-training passes its deviation as the bound of the truncation, the fine-tuning leaves the default.
    cut = 0.02 if pretraining else 2.0
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=0.02, a=-cut, b=cut)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.trunc_normal_(model.cls_token, std=0.02, a=-cut, b=cut)
    with torch.no_grad():
        # Deeper residual branches start smaller, as in BEiT (`fix_init_weight`).
        for number, layer in enumerate(model.blocks, start=1):
            layer.attn.proj.weight.div_(math.sqrt(2 * number))
            layer.mlp.fc2.weight.div_(math.sqrt(2 * number))


class Encoder(nn.Module):
    """A timm model that gives feature maps, with an optional mask token at hidden positions.

    Attributes:
        at: number of the step after which the mask token is inserted.
        token_width: channels C0 at that site.
        token_stride: side in image pixels of one position there.
        width: channels C of the output.
    """

    def __init__(self, model: Family, corruption: Corruption | None = None) -> None:
        """corruption: site and operation of the mask token; by default SimMIM's replacement at the input.

        Raises:
            HarnessError: the model has no such site.
        """
        super().__init__()
        self.model = model
        self.layers: Layers = layers_of(model)
        self.corruption = corruption or Corruption()
        # Once: they are the same in every pass, and torch.compile does not trace how they are made.
        self.pieces = pieces = tuple(self.layers.pieces(model))
        self.at = _place(pieces, self.corruption)
        if corruption is not None and corruption.token not in ("drop", "none") and self.at == len(pieces) - 1:
            raise HarnessError(
                f"no layer is left behind a mask token at {corruption.site.text} of this backbone; "
                "valid: token='none' with a fill such as 'mean'"
            )
        self.token_width, self.token_stride = pieces[self.at].width, pieces[self.at].stride
        self.width = pieces[-1].width

    def forward(
        self,
        images: Tensor,
        hidden: Tensor | None = None,
        mask_token: Tensor | None = None,
        gate: Tensor | None = None,
    ) -> Tensor:
        """Features after the final norm.

        Args:
            images: float [B, channels, H, W].
            hidden: bool [B, H / token_stride, W / token_stride], True = hidden; None hides nothing.
            mask_token: [C0], inserted at the site; None inserts nothing. As in the released SimMIM (models/simmim.py),
                at the input it replaces hidden tokens before the class token and positions are added.
            gate: [C0], factor of a gated addition.

        Returns:
            [B, C, H / stride, W / stride].
        """
        x, shared = images, self.layers.shared(self.model)
        for place, piece in enumerate(self.pieces):
            x = piece.run(self.model, x, shared)
            if place == self.at and hidden is not None and mask_token is not None:
                x = combined(x, hidden, mask_token, gate, self.corruption, piece)
        return as_map(x, piece, images)

    def maps(self, images: Tensor) -> Iterator[tuple[Piece, Tensor]]:
        """Steps of the forward pass, each with its output as a map [B, C', h, w]."""
        x, shared = images, self.layers.shared(self.model)
        for piece in self.pieces:
            x = piece.run(self.model, x, shared)
            yield piece, as_map(x, piece, images)

    def features(self, images: Tensor, block: int | None = None) -> Tensor:
        """Features [B, C', h, w] after block `block`, counted from 1 over all stages; None for the final norm.

        Raises:
            HarnessError: the model has no such block.
        """
        x, piece = self._up_to(images, block)
        return as_map(x, piece, images)

    def last_blocks(self, images: Tensor, count: int) -> list[Tensor]:
        """Outputs [B, C, h, w] of the last `count` blocks, all of the last stage.

        Raises:
            HarnessError: the last stage has fewer.
        """
        if count > (blocks := stage_depths(self.model)[-1]):
            raise HarnessError(f"the last stage has {blocks} blocks, not {count}; make blocks of the target smaller")
        # Only the last stage: maps of other stages have other sizes and cannot be averaged with these.
        first = depth(self.model) - count
        return [found for piece, found in self.maps(images) if piece.block is not None and piece.block > first]

    def class_token(self, images: Tensor, block: int | None = None) -> Tensor:
        """The class token [B, C'] after a block, as in `features`.

        Raises:
            HarnessError: the model has no such block, or no class token.
        """
        if getattr(self.model, "cls_token", None) is None:
            raise HarnessError(f"{type(self.model).__name__} has no class token here; set pool='mean'")
        return self._up_to(images, block)[0][:, 0]

    def _up_to(self, images: Tensor, block: int | None) -> tuple[Tensor, Piece]:
        """Output of a block, or of the whole model, and the step whose layout it has."""
        if block is not None and block > depth(self.model):
            raise HarnessError(f"block {block} of a model that has {depth(self.model)}")
        x, shared = images, self.layers.shared(self.model)
        for piece in self.pieces:
            x = piece.run(self.model, x, shared)
            if block is not None and piece.block == block:
                break  # later layers are not computed
        return x, piece


def _place(pieces: Sequence[Piece], corruption: Corruption) -> int:
    """Number of the step after which the mask token is inserted."""
    for place, piece in enumerate(pieces):
        if corruption.site in piece.sites:
            return place
    valid = [site.text for piece in pieces for site in piece.sites]
    shown = valid if len(valid) <= SHOWN else [*valid[: SHOWN - 3], "...", *valid[-2:]]
    raise HarnessError(f"the backbone has no site {corruption.site.text}; valid: {', '.join(shown)}")


def as_map(x: Tensor, piece: Piece, images: Tensor) -> Tensor:
    """Output of a step as a map [B, C, h, w], without class and register tokens.

    Args:
        images: [B, channels, H, W], input of the first step.
    """
    match piece.layout:
        case "tokens":
            rows, columns = (side // piece.stride for side in images.shape[-2:])
            return x[:, piece.prefix :].transpose(1, 2).reshape(x.shape[0], -1, rows, columns)
        case "last":
            return x.permute(0, 3, 1, 2)
        case "first":
            return x
        case _:
            assert_never(piece.layout)


def depth(model: Family) -> int:
    """Number of blocks over all stages."""
    return sum(stage_depths(model))


def stage_depths(model: Family) -> list[int]:
    """Number of blocks of each stage; a ViT has one stage."""
    return layers_of(model).depths(model)


def own_biases(model: Family, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights with a copy of a shared relative position table for each block, if the model's blocks have their own.

    The released SimMIM starts fine-tuning like that (microsoft/SimMIM, utils.py). Other weights are unchanged.
    """
    own = [name for name in model.state_dict() if name.endswith(".attn.relative_position_bias_table")]
    if SHARED_BIAS not in tensors or not own:
        return tensors
    kept = {name: tensor for name, tensor in tensors.items() if name != SHARED_BIAS}
    return {**kept, **{name: tensors[SHARED_BIAS].clone() for name in own}}


def own_positions(model: Family, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights with absolute positions resized to the model's image size, by timm's bicubic rule.

    Positions of class and register tokens are unchanged, as are those that do not belong to a square map.
    """
    ours, theirs = getattr(model, "pos_embed", None), tensors.get("pos_embed")
    if not isinstance(ours, Tensor) or theirs is None or theirs.ndim != ours.ndim or theirs.shape == ours.shape:
        return tensors
    # The class and register tokens in front have positions too, which belong to no place of the map.
    rows, columns = model.patch_embed.grid_size  # type: ignore[union-attr, misc]
    prefix = ours.shape[1] - rows * columns
    places = theirs.shape[1] - prefix
    if places < 1 or math.isqrt(places) ** 2 != places:
        return tensors
    return {**tensors, "pos_embed": resample_abs_pos_embed(theirs, [rows, columns], num_prefix_tokens=prefix)}


def layer_id(model: Family, name: str) -> int:
    """Depth of a parameter for layer-wise decay, as the released SimMIM counts it.

    0 for the embeddings or the stem, k + 1 for block k counted from 0 over all stages, depth + 1 for the final norm,
    the classifier and a relative position table that all blocks share. Downsampling between two stages has the id of
    the last block before it, although timm's Swin and ConvNeXt count it to the next stage.
    """
    return layers_of(model).layer_id(model, name)
