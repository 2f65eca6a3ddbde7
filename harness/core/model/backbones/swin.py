"""Swin and Swin V2: stages with patch merging between them, channels last."""

from __future__ import annotations

import re
from typing import Any

from harness.core.model.backbones.pieces import Layers, Piece, Submodule
from harness.spec import Backbone, HarnessError
from harness.spec.model.corruption import AfterStage, AtInput, BeforeBlock


class Swin(Layers):
    """timm's SwinTransformer and SwinTransformerV2."""

    classifier = "head.fc.weight"
    norm_of_maps = True

    def arguments(self, backbone: Backbone, *, image_size: int, pool: str) -> dict[str, Any]:
        if pool == "token":
            raise HarnessError(f"{backbone.name} has no class token; set pool='mean'")
        return {"img_size": image_size, "patch_size": backbone.patch_size, "global_pool": "avg" if pool else ""}

    def pieces(self, model: Any) -> list[Piece]:
        stride, width, number = int(model.patch_embed.patch_size[0]), int(model.feature_info[0]["num_chs"]), 0
        found = [Piece(Submodule("patch_embed"), "last", width, stride, (AtInput(),))]
        for stage, (layers, facts) in enumerate(zip(model.layers, model.feature_info, strict=True), start=1):
            width = int(facts["num_chs"])
            # timm's downsample comes first in a stage and is no block, so it is a step of its own.
            if stage > 1:
                stride *= 2
                merged = BeforeBlock(block=number + 1, stride=stride)
                found.append(Piece(Submodule(f"layers.{stage - 1}.downsample"), "last", width, stride, (merged,)))
            for place in range(1, len(layers.blocks) + 1):
                number += 1
                after: tuple[AfterStage | BeforeBlock, ...] = (BeforeBlock(block=number + 1, stride=stride),)
                # Behind the last stage no block is left, so no token can come in there.
                if place == len(layers.blocks):
                    after = (AfterStage(stage=stage, stride=stride),) if stage < len(model.layers) else ()
                found.append(
                    Piece(Submodule(f"layers.{stage - 1}.blocks.{place - 1}"), "last", width, stride, after, number)
                )
        return [*found, Piece(Submodule("norm"), "last", width, stride)]

    def depths(self, model: Any) -> list[int]:
        return [len(stage.blocks) for stage in model.layers]

    def layer_id(self, model: Any, name: str) -> int:
        """Depth of a parameter. A patch merging, with which timm begins a stage, has the id of the block before it.

        The released SimMIM ends a stage with it.
        """
        depths = self.depths(model)
        if name.startswith("patch_embed."):
            return 0
        if found := re.match(r"layers\.(\d+)\.downsample\.", name):
            return sum(depths[: int(found[1])])
        if found := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name):
            return sum(depths[: int(found[1])]) + int(found[2]) + 1
        return sum(depths) + 1

    def cuts_patches(self, backbone: Backbone) -> bool:
        return True
