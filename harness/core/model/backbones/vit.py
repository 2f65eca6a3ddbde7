"""ViT (and DeiT) and BEiT: one stage, tokens in rows, positions added after the patch embedding."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.core.model.backbones.pieces import Layers, Piece, Run, Submodule
from harness.spec import Backbone
from harness.spec.model.corruption import AtInput, BeforeBlock

POOLING = {"": "", "mean": "avg", "token": "token"}
"""timm's name of each pooling."""


class ViT(Layers):
    """timm's VisionTransformer."""

    classifier = "head.weight"

    def arguments(self, backbone: Backbone, *, image_size: int, pool: str) -> dict[str, Any]:
        return {"img_size": image_size, "patch_size": backbone.patch_size, "global_pool": POOLING[pool]}

    def pieces(self, model: Any) -> list[Piece]:
        def positions(model: Any, x: Tensor, shared: Tensor | None) -> Tensor:
            del shared
            found: Tensor = model.norm_pre(model.patch_drop(model._pos_embed(x)))
            return found

        return _pieces(model, positions, [Submodule(f"blocks.{number}") for number in range(len(model.blocks))])

    def depths(self, model: Any) -> list[int]:
        return [len(model.blocks)]

    def layer_id(self, model: Any, name: str) -> int:
        if name.startswith(("patch_embed.", "cls_token", "reg_token", "pos_embed", "norm_pre.")):
            return 0
        found = re.match(r"blocks\.(\d+)\.", name)
        return int(found[1]) + 1 if found else len(model.blocks) + 1

    def cuts_patches(self, backbone: Backbone) -> bool:
        return True

    def taken(self, names: Iterable[str], own: Iterable[str]) -> set[str]:
        """A model that pools the mean of patch tokens has a new `fc_norm` in place of the final `norm`."""
        found = super().taken(names, own)
        new_norm = any(name.startswith("fc_norm.") for name in own)
        return {name for name in found if not (new_norm and name.startswith("norm."))}


class BEiT(ViT):
    """timm's Beit, whose relative positions may be shared by all blocks."""

    def arguments(self, backbone: Backbone, *, image_size: int, pool: str) -> dict[str, Any]:
        given = super().arguments(backbone, image_size=image_size, pool=pool)
        if backbone.variant != "simmim":
            return given
        # The released SimMIM pre-trains with one table for all blocks and fine-tunes with one in each.
        return {**given, "use_shared_rel_pos_bias": not pool, "use_rel_pos_bias": bool(pool)}

    def pieces(self, model: Any) -> list[Piece]:
        def positions(model: Any, tokens: Tensor, shared: Tensor | None) -> Tensor:
            del shared
            # Written out, as timm's Beit has no function of its own for class token and positions.
            x = torch.cat((model.cls_token.expand(tokens.shape[0], -1, -1), tokens), dim=1)
            found: Tensor = model.pos_drop(x if model.pos_embed is None else x + model.pos_embed)
            return found

        steps = [Submodule(f"blocks.{number}", "shared_rel_pos_bias") for number in range(len(model.blocks))]
        return _pieces(model, positions, steps)

    def shared(self, model: Any) -> Tensor | None:
        """The bias of relative positions, where all blocks share it."""
        return None if model.rel_pos_bias is None else model.rel_pos_bias()


def _pieces(model: Any, positions: Run, blocks: Sequence[Run]) -> list[Piece]:
    """Steps of a ViT: patch embedding, positions, blocks, final norm. positions: adds tokens in front and positions."""
    width, stride = int(model.embed_dim), int(model.patch_embed.patch_size[0])
    prefix = int(model.num_prefix_tokens)

    def piece(run: Run, *sites: Any, block: int | None = None, prefix: int = prefix) -> Piece:
        return Piece(run, "tokens", width, stride, sites, block, prefix)

    def before(number: int) -> tuple[BeforeBlock, ...]:
        return (BeforeBlock(block=number, stride=stride),) if number <= len(blocks) else ()

    return [
        # The class token comes in with the positions: before them there are patches alone.
        piece(Submodule("patch_embed"), AtInput(), prefix=0),
        piece(positions, *before(1)),
        *(piece(run, *before(number + 1), block=number) for number, run in enumerate(blocks, start=1)),
        piece(Submodule("norm")),
    ]
