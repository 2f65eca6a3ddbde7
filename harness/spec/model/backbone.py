"""Backbones: timm models as encoders, and the checks of their names."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, PositiveInt, Tag, model_validator

from harness.machine import HarnessError
from harness.spec.base import CUSTOM, SHIPPED, Params, Spec, derived
from harness.spec.user_code import UserFunction, whose

PLAIN_VITS = ("vit_", "deit_")
"""Prefixes of timm's names of plain ViTs (class VisionTransformer)."""

FAMILIES = ("vision_transformer", "deit", "beit", "swin_transformer", "swin_transformer_v2", "convnext", "resnet")
"""The modules of `timm.models` whose models can be encoders."""

MOST = {"depth": 1_000, "depths": 1_000, "layers": 1_000} | dict.fromkeys(("embed_dim", "dims", "num_heads"), 100_000)
"""The largest whole numbers that these arguments may hold; the smallest is 1."""


def check_model(name: str, modules: Mapping[str, str]) -> None:
    """Refuse a name that is no timm model, or one that cannot be an encoder.

    Args:
        modules: the module of `timm.models` of every model that timm has.

    Raises:
        HarnessError: it is not.
    """
    if name not in modules:
        close = difflib.get_close_matches(name, modules, n=3)
        raise HarnessError(f"timm has no model {name!r:.100}; close names: {', '.join(close) or 'none'}")
    if modules[name] not in FAMILIES:
        raise HarnessError(f"{name} is of timm's {modules[name]}; valid families: {', '.join(FAMILIES)}")


class Backbone(Spec):
    """A timm model as an encoder.

    name: a timm name of the ViT, DeiT, BEiT, Swin, ConvNeXt or ResNet families, such as `vit_base_patch16_224`,
        `beit_base_patch16_224`, `swin_base_patch4_window7_224`, `convnext_tiny` or `resnet50`.
    args: keyword arguments for `timm.create_model`, such as {"embed_dim": 64, "depth": 4, "num_heads": 4}.
        Image size, patch size, input channels, classes, pooling and drop path are set by the harness.
    patch_size: pixels covered by one input token; of a CNN the stride of its stem, which is 4 of every ResNet (max
        pooling included) and the patch of a ConvNeXt's stem, 4 by default.
    stride: pixels covered by one output token: the patch for a ViT, 32 for Swin, ConvNeXt and ResNet. Both are stated
        here because masks and targets are checked against them before torch is loaded; the built model must agree.
    variant: `simmim` builds a BEiT as the released SimMIM builds its ViT: in pre-training all blocks share one relative
        position table, in fine-tuning each has its own, begun as a copy of the shared one; first weights are drawn as
        there (microsoft/SimMIM, models/vision_transformer.py). `mae` builds a ViT as the released MAE does: in
        pre-training its positions are sines and cosines that are not trained, which fine-tuning begins with and trains;
        first weights are drawn as there (facebookresearch/mae, models_mae.py). `timm` leaves all to timm and `args`.
    """

    name: str
    args: Params = Field(default=(), strict=False)
    patch_size: PositiveInt
    stride: PositiveInt = derived()
    variant: Literal["timm", "simmim", "mae"] = "timm"

    implicit: ClassVar[Mapping[str, object]] = {"variant": "timm"}

    @property
    def is_plain_vit(self) -> bool:
        """True for a ViT that can compute visible tokens alone, and whose attention can be read."""
        return self.name.startswith(PLAIN_VITS)

    @model_validator(mode="before")
    @classmethod
    def _default_stride(cls, values: Any) -> Any:
        if isinstance(values, dict) and "stride" not in values and "patch_size" in values:
            return {**values, "stride": values["patch_size"]}
        return values

    def model_post_init(self, context: Any, /) -> None:  # a validator is called again for each spec that holds this one
        _check_strides(self.patch_size, self.stride)
        ours = {"img_size", "patch_size", "in_chans", "num_classes", "global_pool", "drop_path_rate"}
        if taken := ours & {name for name, _ in self.args}:
            raise ValueError(f"args may not set {', '.join(sorted(taken))}: other fields of the run do")
        for name, value in self.args:
            if name in MOST and not all(1 <= number <= MOST[name] for number in _whole(value)):
                raise ValueError(f"args: {name} should be from 1 to {MOST[name]:,}, not {value!r:.80}")
        if self.variant == "simmim":
            self._simmim()
        if self.variant == "mae" and not self.is_plain_vit:
            raise ValueError(f"variant 'mae' is a ViT's (name vit_...), not {self.name}'s; valid here: timm")

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


class CustomBackbone(UserFunction):
    """A user's own network as an encoder.

    function: `package.module:name`; called as `name(channels, image_size, **params)` it returns a torch module that
        maps float images [B, channels, S, S] to features [B, C, S / stride, S / stride]. A `torch.nn.Sequential` is run
        child by child, and each child gives a map [B, C', h, w]. Its first child is the stem: a position after it is a
        patch, and the mask token's site `AtInput` is there. Child k behind the stem is block k and stage k; all but the
        last have a site behind them, `AfterStage(stage=k, stride=...)`. Any other module is one block without a site:
        fill the pixels that it should not see (`Corruption(fill=..., token="none")`). A classifier is a linear layer on
        the mean over the last map. Where a recipe sets `drop_path`, the function gets `drop_path=rate` besides and has
        to use timm's DropPath.
    patch_size, stride: pixels under a position after the stem and after the last child, as of a `Backbone`.
    """

    patch_size: PositiveInt
    stride: PositiveInt

    is_plain_vit: ClassVar[bool] = False
    variant: ClassVar[Literal["timm"]] = "timm"

    @property
    def name(self) -> str:
        """The function that makes it."""
        return self.function

    @property
    def args(self) -> Params:
        """The parameters that it is made with."""
        return self.params

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_strides(self.patch_size, self.stride)
        return self


AnyBackbone = Annotated[
    Annotated[Backbone, Tag(SHIPPED)] | Annotated[CustomBackbone, Tag(CUSTOM)], Discriminator(whose)
]


def _check_strides(patch_size: int, stride: int) -> None:
    if stride % patch_size:
        raise ValueError(f"stride {stride} is not a multiple of patch_size {patch_size}")


def _whole(value: object) -> Iterator[int]:
    """The whole numbers in a value."""
    if isinstance(value, tuple):
        for item in value:
            yield from _whole(item)
    elif isinstance(value, int):
        yield value
