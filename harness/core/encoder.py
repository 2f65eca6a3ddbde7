"""timm models as encoders: the one place that knows what a family's layers are called."""

from __future__ import annotations

import difflib
import math
import re
from typing import Any, assert_never

import timm
import torch
from timm.models.beit import Beit
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from harness.core.mae import begin_as_released
from harness.spec import Backbone, HarnessError

Family = VisionTransformer | Beit | SwinTransformer | SwinTransformerV2

SHARED_BIAS = "rel_pos_bias.relative_position_bias_table"
"""timm's name of the one relative position table that all blocks of a BEiT share."""


def build(
    backbone: Backbone,
    *,
    image_size: int,
    channels: int,
    num_classes: int = 0,
    pool: str = "",
    drop_path: float = 0.0,
) -> Family:
    """The timm model of a backbone spec.

    Args:
        num_classes: 0 for an encoder without classifier.
        pool: `` for an encoder, `mean` or `token` for a classifier; with the backbone's variant `simmim` it decides
            whether the blocks share one relative position table (encoder) or have their own (classifier).

    Raises:
        HarnessError: an unknown or unsupported model, arguments it refuses, or a patch or stride that is not as stated.
    """
    args = timm_arguments(
        backbone, image_size=image_size, channels=channels, num_classes=num_classes, pool=pool, drop_path=drop_path
    )
    if backbone.name not in timm.list_models():
        close = difflib.get_close_matches(backbone.name, timm.list_models(), n=3)
        raise HarnessError(f"timm has no model {backbone.name!r}; close names: {', '.join(close) or 'none'}")
    try:
        model = timm.create_model(backbone.name, pretrained=False, **args)
    except (TypeError, ValueError, AssertionError) as error:
        raise HarnessError(f"timm refuses {backbone.name}: {error}".replace("\n", " ")) from None
    if not isinstance(model, VisionTransformer | Beit | SwinTransformer | SwinTransformerV2):
        raise HarnessError(
            f"{backbone.name} is timm's {type(model).__name__}; "
            "valid families: VisionTransformer, Beit, SwinTransformer, SwinTransformerV2"
        )
    stride = model.feature_info[-1]["reduction"]
    if stride != backbone.stride:
        raise HarnessError(f"{backbone.name} has stride {stride}, not the stated {backbone.stride}")
    if backbone.variant == "simmim":
        _initialise(model, pretraining=not pool)
    if backbone.variant == "mae" and not pool:
        begin_as_released(model)
    return model


def timm_arguments(
    backbone: Backbone, *, image_size: int, channels: int, num_classes: int = 0, pool: str = "", drop_path: float = 0.0
) -> dict[str, Any]:
    """What `build` gives to `timm.create_model`, whose arguments these are.

    Raises:
        HarnessError: a class token is to be pooled of a model that has none.
    """
    pooling = {"": "", "mean": "avg", "token": "token"}[pool]
    swin = "swin" in backbone.name
    if swin and pool == "token":
        raise HarnessError(f"{backbone.name} has no class token; set pool='mean'")
    return {
        "img_size": image_size,
        "patch_size": backbone.patch_size,
        "in_chans": channels,
        "num_classes": num_classes,
        "global_pool": "avg" if swin and pool else pooling,
        "drop_path_rate": drop_path,
        **_position_bias(backbone, shared=not pool),
        **dict(backbone.args),
    }


def _position_bias(backbone: Backbone, *, shared: bool) -> dict[str, bool]:
    """Where a backbone of variant `simmim` keeps its relative position biases, as timm's arguments."""
    if backbone.variant != "simmim":
        return {}
    return {"use_shared_rel_pos_bias": shared, "use_rel_pos_bias": not shared}


def _initialise(model: Any, *, pretraining: bool) -> None:
    """Draw weights as the released ViT does (microsoft/SimMIM, models/vision_transformer.py).

    All matrices, the patch embedding and the class token from a normal of deviation 0.02, cut at one deviation in
    pre-training and hardly at all (at 2.0) in fine-tuning; the last matrices of block k, counted from 1, divided by
    sqrt(2 k).
    """
    cut = 0.02 if pretraining else 2.0
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=0.02, a=-cut, b=cut)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.trunc_normal_(model.cls_token, std=0.02, a=-cut, b=cut)
    with torch.no_grad():
        for number, layer in enumerate(model.blocks, start=1):
            layer.attn.proj.weight.div_(math.sqrt(2 * number))
            layer.mlp.fc2.weight.div_(math.sqrt(2 * number))


class Encoder(nn.Module):
    """A timm model that gives feature maps, and that can have tokens hidden from it.

    Attributes:
        token_width: channels C0 of the tokens after the patch embedding.
        width: channels C of the output.
    """

    def __init__(self, model: Family) -> None:
        super().__init__()
        self.model = model
        parts: Any = model  # timm declares its submodules as Tensor | Module
        self.token_width = int(parts.patch_embed.proj.out_channels)
        self.width = int(parts.num_features)

    def forward(self, images: Tensor, hidden: Tensor | None = None, mask_token: Tensor | None = None) -> Tensor:
        """Features after the final norm.

        Args:
            images: float [B, channels, S, S].
            hidden: bool [B, S / patch, S / patch], True = hidden; None hides nothing.
            mask_token: [C0], what replaces hidden tokens after the patch embedding and before the class token and
                positions are added (released SimMIM, models/simmim.py); None replaces nothing.

        Returns:
            [B, C, S / stride, S / stride].
        """
        tokens = self.model.patch_embed(images)
        if hidden is not None and mask_token is not None:
            tokens = replace_tokens(tokens, hidden, mask_token)
        return features(self.model, tokens)

    def features(self, images: Tensor, block: int | None = None) -> Tensor:
        """Features [B, C', h, w] after block `block`, counted from 1 over all stages; None as in `forward`."""
        return features(self.model, self.model.patch_embed(images), block)


def replace_tokens(tokens: Tensor, hidden: Tensor, mask_token: Tensor) -> Tensor:
    """x * (1 - w) + token * w with w = 1 where hidden (SimMIM section 3.2).

    Args:
        tokens: [B, N, C] or [B, h, w, C]. hidden: bool [B, h, w]. mask_token: [C].
    """
    weight = hidden.reshape(*tokens.shape[:-1], 1).to(tokens.dtype)
    return tokens * (1 - weight) + mask_token.to(tokens.dtype) * weight


def features(model: Family, tokens: Tensor, block: int | None = None) -> Tensor:
    """Run everything behind the patch embedding.

    Args:
        tokens: what `model.patch_embed` gave. block: as in `Encoder.features`.

    Returns:
        [B, C, h, w].

    Raises:
        HarnessError: the model has no such block.
    """
    if block is not None and block > depth(model):
        raise HarnessError(f"block {block} of a model that has {depth(model)}")
    match model:
        case VisionTransformer():
            return _vit_features(model, tokens, block)
        case Beit():
            return _beit_features(model, tokens, block)
        case SwinTransformer() | SwinTransformerV2():
            return _swin_features(model, tokens, block)
        case _:
            assert_never(model)


def _vit_features(model: Any, tokens: Tensor, block: int | None) -> Tensor:
    x: Tensor = model.norm_pre(model.patch_drop(model._pos_embed(tokens)))
    for layer in model.blocks[:block]:
        x = layer(x)
    return _patch_map(model, model.norm(x) if block is None else x)


def _beit_features(model: Any, tokens: Tensor, block: int | None) -> Tensor:
    x = torch.cat((model.cls_token.expand(tokens.shape[0], -1, -1), tokens), dim=1)
    x = model.pos_drop(x if model.pos_embed is None else x + model.pos_embed)
    bias = None if model.rel_pos_bias is None else model.rel_pos_bias()
    for layer in model.blocks[:block]:
        x = layer(x, shared_rel_pos_bias=bias)
    return _patch_map(model, model.norm(x) if block is None else x)


def _patch_map(model: Any, x: Tensor) -> Tensor:
    """Tokens [B, prefix + N, C] as a map [B, C, h, w], without class and register tokens."""
    rows, columns = model.patch_embed.grid_size
    found: Tensor = x[:, model.num_prefix_tokens :].transpose(1, 2).reshape(x.shape[0], -1, rows, columns)
    return found


def _swin_features(model: Any, tokens: Tensor, block: int | None) -> Tensor:
    x, left = tokens, block
    for stage in model.layers:
        if left is not None and left <= len(stage.blocks):
            x = stage.downsample(x)
            for layer in stage.blocks[:left]:
                x = layer(x)
            break
        x = stage(x)
        left = None if left is None else left - len(stage.blocks)
    found: Tensor = (model.norm(x) if block is None else x).permute(0, 3, 1, 2)
    return found


def depth(model: Family) -> int:
    """Number of blocks over all stages."""
    return sum(stage_depths(model))


def stage_depths(model: Family) -> list[int]:
    """Number of blocks of each stage; a ViT has one stage."""
    match model:
        case VisionTransformer() | Beit():
            blocks: Any = model.blocks
            return [len(blocks)]
        case SwinTransformer() | SwinTransformerV2():
            stages: Any = model.layers
            return [len(stage.blocks) for stage in stages]
        case _:
            assert_never(model)


def own_biases(model: Family, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights, a relative position table that all blocks share given to each where the model's blocks have their own.

    The released SimMIM begins fine-tuning like that (microsoft/SimMIM, utils.py). Other weights are left as they are.
    """
    own = [name for name in model.state_dict() if name.endswith(".attn.relative_position_bias_table")]
    if SHARED_BIAS not in tensors or not own:
        return tensors
    kept = {name: tensor for name, tensor in tensors.items() if name != SHARED_BIAS}
    return {**kept, **{name: tensors[SHARED_BIAS].clone() for name in own}}


def layer_id(model: Family, name: str) -> int:
    """Depth of a parameter for layer-wise decay, as the released SimMIM counts it.

    0 for the embeddings, k + 1 for block k counted from 0 over all stages, depth + 1 for the final norm, the classifier
    and a relative position table that all blocks share. timm's Swin puts the patch merging at the beginning of a stage
    where the released code ends the stage before with it; it keeps the released code's id, that of the last block
    before it.
    """
    depths = stage_depths(model)
    if name.startswith(("patch_embed.", "cls_token", "reg_token", "pos_embed", "norm_pre.")):
        return 0
    if found := re.match(r"layers\.(\d+)\.downsample\.", name):
        return sum(depths[: int(found[1])])
    if found := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name):
        return sum(depths[: int(found[1])]) + int(found[2]) + 1
    if found := re.match(r"blocks\.(\d+)\.", name):
        return int(found[1]) + 1
    return sum(depths) + 1
