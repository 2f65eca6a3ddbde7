"""ResNets: an overlapping stem with max pooling, four stages, batch norm."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from harness.core.model.backbones.pieces import Layers, Piece, Submodule
from harness.spec import Backbone, HarnessError
from harness.spec.model.corruption import AfterStage, AtInput, BeforeBlock

STAGES = ("layer1", "layer2", "layer3", "layer4")
STEM_STRIDE = 4
"""Stride of the stem with its max pooling; timm's `feature_info` states it before the pooling."""


class ResNets(Layers):
    """timm's ResNet with any blocks, depths and stem. There is no norm behind the last block."""

    classifier = "fc.weight"
    channels_last = True
    new = ("fc.",)

    def arguments(self, backbone: Backbone, *, image_size: int, pool: str) -> dict[str, Any]:
        del image_size
        if pool == "token":
            raise HarnessError(f"{backbone.name} has no class token; set pool='mean'")
        return {"global_pool": "avg" if pool else ""}

    def pieces(self, model: Any) -> list[Piece]:
        def stem(model: Any, x: Tensor, shared: Tensor | None) -> Tensor:
            del shared
            found: Tensor = model.maxpool(model.act1(model.bn1(model.conv1(x))))
            return found

        # timm lists the stem first and then the stages.
        first, *facts = model.feature_info
        found, number = [Piece(stem, "first", int(first["num_chs"]), STEM_STRIDE, (AtInput(),))], 0
        for stage, (name, fact) in enumerate(zip(STAGES, facts, strict=True), start=1):
            blocks, width, stride = getattr(model, name), int(fact["num_chs"]), int(fact["reduction"])
            for place in range(1, len(blocks) + 1):
                number += 1
                after: tuple[AfterStage | BeforeBlock, ...] = (BeforeBlock(block=number + 1, stride=stride),)
                # Behind the last stage no layer is left, so no token can come in there.
                if place == len(blocks):
                    after = (AfterStage(stage=stage, stride=stride),) if stage < len(STAGES) else ()
                found.append(Piece(Submodule(f"{name}.{place - 1}"), "first", width, stride, after, number))
        return found

    def depths(self, model: Any) -> list[int]:
        return [len(getattr(model, name)) for name in STAGES]

    def layer_id(self, model: Any, name: str) -> int:
        depths = self.depths(model)
        if found := re.match(r"layer(\d)\.(\d+)\.", name):
            return sum(depths[: int(found[1]) - 1]) + int(found[2]) + 1
        return sum(depths) + 1 if name.startswith("fc.") else 0

    def cuts_patches(self, backbone: Backbone) -> bool:
        return False
