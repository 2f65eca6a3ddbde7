"""timm models as encoders: the one place that knows what a family's layers are called."""

from __future__ import annotations

import difflib
import re
from typing import Any, assert_never

import timm
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from harness.spec import Backbone, HarnessError

Family = VisionTransformer | SwinTransformer | SwinTransformerV2


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
        pool: `` for an encoder, `mean` or `token` for a classifier.

    Raises:
        HarnessError: an unknown or unsupported model, arguments it refuses, or a patch or stride that is not as stated.
    """
    pooling = {"": "", "mean": "avg", "token": "token"}[pool]
    swin = "swin" in backbone.name
    if swin and pool == "token":
        raise HarnessError(f"{backbone.name} has no class token; set pool='mean'")
    args: dict[str, Any] = {
        "img_size": image_size,
        "patch_size": backbone.patch_size,
        "in_chans": channels,
        "num_classes": num_classes,
        "global_pool": "avg" if swin and pool else pooling,
        "drop_path_rate": drop_path,
        **dict(backbone.args),
    }
    if backbone.name not in timm.list_models():
        close = difflib.get_close_matches(backbone.name, timm.list_models(), n=3)
        raise HarnessError(f"timm has no model {backbone.name!r}; close names: {', '.join(close) or 'none'}")
    try:
        model = timm.create_model(backbone.name, pretrained=False, **args)
    except (TypeError, ValueError, AssertionError) as error:
        raise HarnessError(f"timm refuses {backbone.name}: {error}".replace("\n", " ")) from None
    if not isinstance(model, VisionTransformer | SwinTransformer | SwinTransformerV2):
        raise HarnessError(
            f"{backbone.name} is timm's {type(model).__name__}; "
            "valid families: VisionTransformer, SwinTransformer, SwinTransformerV2"
        )
    stride = model.feature_info[-1]["reduction"]
    if stride != backbone.stride:
        raise HarnessError(f"{backbone.name} has stride {stride}, not the stated {backbone.stride}")
    return model


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
            mask_token: [C0], what replaces hidden tokens after the patch embedding and before positions are added
                (released SimMIM, models/simmim.py); None replaces nothing.

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
        case SwinTransformer() | SwinTransformerV2():
            return _swin_features(model, tokens, block)
        case _:
            assert_never(model)


def _vit_features(model: Any, tokens: Tensor, block: int | None) -> Tensor:
    x: Tensor = model.norm_pre(model.patch_drop(model._pos_embed(tokens)))
    for layer in model.blocks[:block]:
        x = layer(x)
    x = (model.norm(x) if block is None else x)[:, model.num_prefix_tokens :]
    rows, columns = model.patch_embed.grid_size
    found: Tensor = x.transpose(1, 2).reshape(x.shape[0], -1, rows, columns)
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
        case VisionTransformer():
            blocks: Any = model.blocks
            return [len(blocks)]
        case SwinTransformer() | SwinTransformerV2():
            stages: Any = model.layers
            return [len(stage.blocks) for stage in stages]
        case _:
            assert_never(model)


def layer_id(model: Family, name: str) -> int:
    """Depth of a parameter for layer-wise decay, as the released SimMIM counts it.

    0 for the embeddings, k + 1 for block k counted from 0 over all stages, depth + 1 for the final norm and the
    classifier. timm's Swin puts the patch merging at the beginning of a stage where the released code ends the stage
    before with it; it keeps the released code's id, that of the last block before it.
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
