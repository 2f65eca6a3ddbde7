"""Encoders and prediction heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from harness.spec.base import Params, Spec
from harness.spec.own import OwnFunction


class Backbone(Spec):
    """A timm model as an encoder.

    name: a timm name of the ViT, BEiT or Swin families, such as `vit_base_patch16_224`, `beit_base_patch16_224` or
        `swin_base_patch4_window7_224`.
    args: keyword arguments for `timm.create_model`, such as {"embed_dim": 64, "depth": 4, "num_heads": 4}.
        Image size, patch size, input channels, classes, pooling and drop path are set by the harness.
    patch_size: pixels covered by one input token.
    stride: pixels covered by one output token: the patch for a ViT, 32 for Swin. Both are stated here because
        masks and targets are checked against them before torch is loaded; the built model must agree.
    variant: `simmim` builds a BEiT as the released SimMIM builds its ViT: in pre-training all blocks share one relative
        position table, in fine-tuning each has its own, begun as a copy of the shared one; first weights are drawn as
        there (microsoft/SimMIM, models/vision_transformer.py). `timm` leaves both to timm and `args`.
    """

    name: str
    args: Params = ()
    patch_size: PositiveInt
    stride: PositiveInt
    variant: Literal["timm", "simmim"] = "timm"

    implicit: ClassVar[Mapping[str, object]] = {"variant": "timm"}

    @model_validator(mode="before")
    @classmethod
    def _default_stride(cls, values: Any) -> Any:
        if isinstance(values, dict) and "stride" not in values and "patch_size" in values:
            return {**values, "stride": values["patch_size"]}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.stride % self.patch_size:
            raise ValueError(f"stride {self.stride} is not a multiple of patch_size {self.patch_size}")
        ours = {"img_size", "patch_size", "in_chans", "num_classes", "global_pool", "drop_path_rate"}
        if taken := ours & {name for name, _ in self.args}:
            raise ValueError(f"args may not set {', '.join(sorted(taken))}: other fields of the run do")
        if self.variant == "simmim":
            self._simmim()
        return self

    def _simmim(self) -> None:
        if not self.name.startswith("beit_"):
            raise ValueError(f"variant 'simmim' is a BEiT's (name beit_...), not {self.name}'s; valid here: timm")
        biases = {"use_rel_pos_bias", "use_shared_rel_pos_bias"}
        if taken := biases & {name for name, _ in self.args}:
            raise ValueError(f"args may not set {', '.join(sorted(taken))}: variant 'simmim' does")

    def replace(self, **changes: Any) -> Self:
        """A validated copy; the stride of a ViT follows its patch."""
        if "patch_size" in changes and self.stride == self.patch_size:
            changes = {"stride": changes["patch_size"], **changes}
        return super().replace(**changes)


class LinearHead(Spec):
    """SimMIM's head: one 1x1 convolution from C channels to all values under an output token, then pixel shuffle."""

    kind: Literal["linear"] = "linear"


class MlpHead(Spec):
    """1x1 convolutions with GELU between them, then pixel shuffle.

    layers: number of convolutions, 2 for the paper's "2-layer MLP".
    width: hidden channels; None for the encoder's C, which gives the published 90.9M (SimMIM Table 2).
    """

    kind: Literal["mlp"] = "mlp"
    layers: int = Field(default=2, ge=2)
    width: PositiveInt | None = None


class CustomHead(OwnFunction):
    """A user's own head.

    function: `package.module:name`; called as `name(in_channels, out_channels, **params)` it returns a module that
        maps [B, in_channels, h, w] to [B, out_channels, h, w]; pixel shuffle follows.
    """

    kind: Literal["custom"] = "custom"


Head = Annotated[LinearHead | MlpHead | CustomHead, Field(discriminator="kind")]
