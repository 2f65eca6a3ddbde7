"""Detection and instance segmentation of a pre-trained backbone."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from harness.spec.base import Spec, derived
from harness.spec.data.datasets import CocoFolder, Truth
from harness.spec.dense.base import Dense

__all__ = ["Detect", "Fpn", "SimplePyramid"]

SHOWN_SCORE = 0.5
"""Least score of the predicted objects that are shown in pictures."""


class Fpn(Spec):
    """A feature pyramid network over the last map of each stride of a Swin, ConvNeXt or ResNet.

    Lin et al., CVPR 2017, as torchvision has it: without norms.

    width: channels of each map of the pyramid.
    """

    kind: Literal["fpn"] = "fpn"
    width: PositiveInt = 256


class SimplePyramid(Spec):
    """ViTDet's simple pyramid: the encoder's last map at 4, 2, 1 and 1/2 times its size (Li et al., ECCV 2022).

    width: channels of each map of the pyramid.
    """

    kind: Literal["simple"] = "simple"
    width: PositiveInt = 256


AnyPyramid = Annotated[Fpn | SimplePyramid, Field(discriminator="kind")]

BoxHead = Literal["2fc", "4conv1fc"]


class Detect(Dense):
    """Detection, and instance segmentation, by Mask R-CNN (He et al., ICCV 2017) on the backbone.

    The result is the average precision after the last epoch as COCO defines it, in percent, of boxes and of masks: the
    mean over classes and over IoU thresholds 0.5, 0.55, ..., 0.95, and `..50` at 0.5 alone. Of each picture at most 100
    objects of a score above 0.05 count; of overlapping ones of a class (IoU above 0.5) the best. Pictures are tested at
    `image_size`, whole and at one scale.

    pyramid: by default a SimplePyramid for an encoder that has one stride (ViT, BEiT), else an Fpn.
    anchor: side of a map's anchors in strides of the map, at aspect ratios 1/2, 1 and 2. With 8 and a pyramid of
        strides 4 to 64, anchors have 32 to 512 pixels, as on COCO.
    rois: most regions of a picture that the heads are trained on, a quarter of them with an object.
    masks: True to train and test the masks of objects too.
    box_head: `2fc`, two linear layers (Mask R-CNN's), or `4conv1fc`, four convolutions with layer norms and a linear
        layer, and two convolutions instead of one where boxes are proposed (ViTDet's). Convolutions are as wide as the
        pyramid, linear layers four times as wide.
    metric: the one that tables show. It is in no key: columns of boxes and of masks of one detector share a run.
    """

    kind: Literal["detect"] = "detect"
    pyramid: AnyPyramid = derived()
    anchor: PositiveFloat = 8.0
    rois: PositiveInt = 512
    masks: bool = True
    box_head: BoxHead = "2fc"
    metric: Literal["box_ap", "box_ap50", "mask_ap", "mask_ap50"] = "box_ap"

    unkeyed: ClassVar[frozenset[str]] = Dense.unkeyed | {"metric"}
    needs: ClassVar[Truth] = "objects"
    truth: ClassVar[str] = "boxes"
    folder: ClassVar[str] = "CocoFolder"

    def current_revision(self) -> int:
        """One more where some anchors of many used to be drawn far too often, and one for areas that are stated.

        Small and large objects in COCO's files once were told apart by the pixels of their masks.
        """
        return super().current_revision() + self.drawn_evenly + isinstance(self.data, CocoFolder)

    @property
    def drawn_evenly(self) -> bool:
        """True if each anchor of a picture has the same chance to be drawn for its loss: in pictures above 128 px.

        Smaller pictures have up to a few thousand anchors, of which fewer than one in a picture's 256 draws is drawn
        since it is favoured. So little is left as it is, and stored runs of such pictures keep their keys.
        """
        return self.image_size > 128

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("box_ap", "box_ap50") + ("mask_ap", "mask_ap50") * self.masks

    @property
    def caption(self) -> str:
        """The shown metric in words."""
        what, at = "masks" if self.metric.startswith("mask") else "boxes", " at IoU 0.5" * self.metric.endswith("50")
        trained = "pyramid and heads on a frozen backbone" if self.frozen else "all weights trained"
        return f"average precision of {what}{at} after the last epoch, {trained}"

    @property
    def shown_metric(self) -> str:
        return self.metric

    @property
    def model_pieces(self) -> dict[str, Any]:
        parts = ("pyramid", "anchor", "rois", "masks", "box_head")
        return {"stage": "detect", "backbone": self.built} | {name: getattr(self, name) for name in parts}

    @model_validator(mode="before")
    @classmethod
    def _usual_pyramid(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("pyramid") is not None:
            return values
        backbone = values.get("backbone") or getattr(values.get("start"), "backbone", None)
        one_stride = getattr(backbone, "stride", None) == getattr(backbone, "patch_size", None)
        return {**values, "pyramid": SimplePyramid() if one_stride else Fpn()}

    @model_validator(mode="after")
    def _has_metric(self) -> Self:
        if self.metric.startswith("mask") and not self.masks:
            raise ValueError(f"metric {self.metric} is of masks, which masks=False leaves out")
        return self

    @model_validator(mode="after")
    def _fitting_pyramid(self) -> Self:
        stride, one_stride = self.built.stride, self.built.stride == self.built.patch_size
        if isinstance(self.pyramid, Fpn) and one_stride:
            raise ValueError(f"the maps of {self.built.name} have one stride: pyramid takes SimplePyramid(), not Fpn()")
        if isinstance(self.pyramid, SimplePyramid) and stride % 4:
            raise ValueError(f"a simple pyramid begins at a quarter of the stride {stride}, which 4 does not divide")
        return self
