"""Semantic segmentation with a pre-trained backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from harness.spec.base import Spec
from harness.spec.data.datasets import MaskFolder, Truth
from harness.spec.dense.base import Dense

__all__ = ["LinearMap", "Segment", "Slide", "UPerNet", "Whole"]


class LinearMap(Spec):
    """One linear layer at each position, over all maps of the encoder, each enlarged to the finest of them.

    The logits are enlarged to the pixels. On a frozen encoder it is the dense counterpart of a linear probe.

    batch_norm: normalise the maps first by a batch norm without parameters, as `LinearProbe` does.
    """

    kind: Literal["linear"] = "linear"
    batch_norm: bool = True


class UPerNet(Spec):
    """UPerNet (Xiao et al., ECCV 2018) as mmsegmentation has it: pyramid pooling, feature pyramid, auxiliary head.

    The maps of an encoder of one stride (ViT, BEiT), four of them, are rescaled by 4, 2, 1 and 1/2 first: by transposed
    convolutions and by max pooling, as BEiT's and MAE's segmentation does.

    width: channels inside. pools: sides in positions to which the coarsest map is pooled.
    aux: weight of the loss of the auxiliary head, one convolution of 256 channels on the last map but one; 0 for none.
    dropout: share of the channels that are dropped before the last layer of each head.
    norm: behind each convolution, a batch norm over the recipe's groups, or a layer norm over the channels.
    """

    kind: Literal["upernet"] = "upernet"
    width: PositiveInt = 512
    pools: tuple[PositiveInt, ...] = (1, 2, 3, 6)
    aux: NonNegativeFloat = 0.4
    dropout: float = Field(default=0.0, ge=0, lt=1)
    norm: Literal["batch", "layer"] = "batch"


SegmentHead = Annotated[LinearMap | UPerNet, Field(discriminator="kind")]


class Shown(Spec):
    """Fields of how test pictures are shown.

    scales: of a picture relative to `image_size`, ascending. Of several, the probabilities are averaged at the
        picture's own size, as in mmsegmentation, whose scales are 0.5, 0.75, 1, 1.25, 1.5 and 1.75.
    flip: True to show each picture mirrored too, and to average both.
    """

    scales: tuple[PositiveFloat, ...] = (1.0,)
    flip: bool = False

    implicit: ClassVar[Mapping[str, object]] = {"scales": (1.0,), "flip": False}

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if not self.scales or list(self.scales) != sorted(set(self.scales)):
            raise ValueError(f"scales should be one or more in ascending order, not {self.scales}")
        return self

    @property
    def text(self) -> str:
        """What there is beside one view of each picture, in words; empty if nothing."""
        several = f"at scales {', '.join(f'{scale:g}' for scale in self.scales)}" * (self.scales != (1.0,))
        return ", ".join(filter(None, (several, "mirrored too" * self.flip)))


class Whole(Shown):
    """Test pictures are shown whole."""

    kind: Literal["whole"] = "whole"


class Slide(Shown):
    """Test pictures are shown in windows of `image_size`, whose logits are averaged where they overlap.

    stride: pixels from a window to the next; the last one is moved back inside. mmsegmentation takes two thirds of the
    window: 341 of 512.
    """

    kind: Literal["slide"] = "slide"
    stride: PositiveInt


class Segment(Dense):
    """Semantic segmentation: a class for every pixel, by a head on several maps of the backbone.

    The result is the mean intersection over union (mIoU) in percent after the last step: over all test pixels of a
    known class at once, not picture by picture, and over the classes that are in the truth or are predicted. Beside it
    stand the mean accuracy of the classes (macc), that of the pixels (aacc), and the mIoU of predicting the most
    frequent class everywhere (miou_one_class): the value that a model has to beat.

    The loss is the mean cross-entropy of the pixels of a known class.

    head: LinearMap or UPerNet.
    taps: blocks whose maps the head sees, counted from 1; None for the last of each stride, or for the quarters of the
        depth of a ViT or BEiT. Maps of Swin and ConvNeXt go through a new layer norm each.
    test: Whole or Slide, at one scale or, as another run with another key, at several and mirrored.
    """

    kind: Literal["segment"] = "segment"
    head: SegmentHead = UPerNet()
    taps: tuple[PositiveInt, ...] | None = None
    test: Annotated[Whole | Slide, Field(discriminator="kind")] = Whole()

    def current_revision(self) -> int:
        """One more where `class_limit` took squares without a pixel of a known class."""
        unknown = isinstance(self.data, MaskFolder) and not self.data.all_known
        return super().current_revision() + (unknown and self.recipe.augment.class_limit is not None)

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("miou", "macc", "aacc", "miou_one_class", "loss")

    needs: ClassVar[Truth] = "segments"
    truth: ClassVar[str] = "a class for every pixel"
    folder: ClassVar[str] = "MaskFolder"

    @property
    def caption(self) -> str:
        """The shown metric in words."""
        head = "a linear layer" if isinstance(self.head, LinearMap) else "UPerNet"
        trained = "on a frozen backbone" if self.frozen else "all weights trained"
        tested = f", tested {self.test.text}" if self.test.text else ""
        return f"mIoU of {head} after the last step, {trained}{tested}"

    @property
    def model_pieces(self) -> dict[str, Any]:
        return {"stage": "segment", "backbone": self.built, "segment_head": self.head, "taps": self.taps}

    @model_validator(mode="after")
    def _fitting_taps(self) -> Self:
        if self.taps is not None and list(self.taps) != sorted(self.taps):
            raise ValueError(f"taps should be in ascending order, not {self.taps}")
        one_stride = self.built.stride == self.built.patch_size
        if isinstance(self.head, UPerNet) and one_stride and self.taps is not None and len(self.taps) != 4:
            raise ValueError(f"UPerNet takes four maps of an encoder of one stride, not taps {self.taps}")
        return self

    @model_validator(mode="after")
    def _fitting_test(self) -> Self:
        if isinstance(self.test, Slide) and self.test.stride > self.image_size:
            raise ValueError(f"windows of {self.image_size} px at a stride of {self.test.stride} leave pixels out")
        return self
