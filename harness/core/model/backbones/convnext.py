"""ConvNeXt and ConvNeXt V2: a stem of patches, stages with downsampling between them."""

from __future__ import annotations

import math
import re
from typing import Any

from torch import Tensor, nn

from harness.core.model.backbones.pieces import Layers, Piece, Submodule
from harness.spec import Backbone, HarnessError
from harness.spec.model.corruption import AfterStage, AtInput, BeforeBlock


class ConvNext(Layers):
    """timm's ConvNeXt.

    Features are taken after its last norm, which an encoder applies at every position and a classifier after pooling
    (OpenMixup's `gap_before_final_norm`); a fine-tuning loads its weights.
    """

    classifier = "head.fc.weight"
    channels_last = True
    norm_behind_pooling = True
    norm_of_maps = True
    new = ("head.fc.",)

    def arguments(self, backbone: Backbone, *, image_size: int, pool: str) -> dict[str, Any]:
        del image_size
        if pool == "token":
            raise HarnessError(f"{backbone.name} has no class token; set pool='mean'")
        return {"patch_size": backbone.patch_size, "global_pool": "avg" if pool else ""}

    def pieces(self, model: Any) -> list[Piece]:
        # A patch stem has one strided convolution, an overlapping stem two, whose strides multiply.
        stride = math.prod(layer.stride[0] for layer in model.stem if isinstance(layer, nn.Conv2d))
        width, number = int(model.stages[0].blocks[0].conv_dw.in_channels), 0
        found = [Piece(Submodule("stem"), "first", width, stride, (AtInput(),))]
        for stage, (layers, facts) in enumerate(zip(model.stages, model.feature_info, strict=True), start=1):
            width, stride = int(facts["num_chs"]), int(facts["reduction"])
            if not isinstance(layers.downsample, nn.Identity):
                reduced = BeforeBlock(block=number + 1, stride=stride)
                found.append(Piece(Submodule(f"stages.{stage - 1}.downsample"), "first", width, stride, (reduced,)))
            for place in range(1, len(layers.blocks) + 1):
                number += 1
                after: tuple[AfterStage | BeforeBlock, ...] = (BeforeBlock(block=number + 1, stride=stride),)
                # Behind the last stage no block is left, so no token can come in there.
                if place == len(layers.blocks):
                    after = (AfterStage(stage=stage, stride=stride),) if stage < len(model.stages) else ()
                found.append(
                    Piece(Submodule(f"stages.{stage - 1}.blocks.{place - 1}"), "first", width, stride, after, number)
                )

        def normed(model: Any, x: Tensor, shared: Tensor | None) -> Tensor:
            del shared
            # timm keeps the last norm in the head or, with `head_norm_first`, in `norm_pre`, else an identity.
            norm: Any = getattr(model.head, "norm", None)
            x = model.norm_pre(x)
            return x if norm is None else norm(x)

        return [*found, Piece(normed, "first", width, stride)]

    def depths(self, model: Any) -> list[int]:
        return [len(stage.blocks) for stage in model.stages]

    def layer_id(self, model: Any, name: str) -> int:
        """A downsampling has the id of the last block before it, as Swin's patch merging."""
        depths = self.depths(model)
        if name.startswith("stem."):
            return 0
        if found := re.match(r"stages\.(\d+)\.downsample\.", name):
            return sum(depths[: int(found[1])])
        if found := re.match(r"stages\.(\d+)\.blocks\.(\d+)\.", name):
            return sum(depths[: int(found[1])]) + int(found[2]) + 1
        return sum(depths) + 1

    def cuts_patches(self, backbone: Backbone) -> bool:
        return str(dict(backbone.args).get("stem_type", "patch")) == "patch"
