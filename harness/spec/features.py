"""Targets that describe a patch by numbers other than its pixels: orientations of edges, features of an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from harness.spec.base import Spec
from harness.spec.start import Checkpoint

Norm = Literal["none", "layer", "instance"]


class HogTarget(Spec):
    """Histograms of oriented gradients, as MaskFeat defines them (mmpretrain, models/selfsup/maskfeat.py).

    For each channel of the image: gx and gy by the Sobel kernels, the image reflected by one pixel at its borders; the
    magnitude of (gx, gy) times a Gaussian window of mean 0 and deviation window / 2 whose weights add up to 1, repeated
    over the image; its bin floor(atan2(gx, gy) / pi * bins) mod bins; sums of each bin over cells, whose `bins` values
    are then divided by their Euclidean norm. A patch has cells x cells of them: at the defaults 2 * 2 * 9 values a
    channel of the image, 108 for RGB.

    bins: orientations. cell: side of a cell in pixels. cells: along a side of the patch. window: in pixels.
    """

    kind: Literal["hog"] = "hog"
    bins: int = Field(default=9, ge=2)
    cell: PositiveInt = 8
    cells: PositiveInt = 2
    window: int = Field(default=16, ge=2)

    @classmethod
    def of_patches(cls, side: int) -> Self:
        """MaskFeat's histograms at another size of patch: two cells and one window along its side."""
        return cls(cell=side // 2, window=side)

    @property
    def downsample(self) -> int:
        """Side of a patch in pixels."""
        return self.cell * self.cells


class FeatureTarget(Spec):
    """Features that a frozen encoder has of the whole image, as in EVA and MILAN.

    teacher: the encoder with its file of weights, by content: a timm model's, or `weights.safetensors` in the folder of
        a finished pre-training. Its image_size is the size at which it sees the image, which is scaled if need be.
    width: channels of the features; the teacher must agree.
    block: block whose output they are, counted from 1 over all stages; None for the output after the final norm.
    norm: `layer` normalises each place over its channels, without parameters (BootMAE); `instance` each channel over
        the places of an image.
    downsample: pixels of the image under one feature; by default the teacher's stride. With a smaller one the teacher
        sees the image enlarged.
    precision: of the teacher's own arithmetic, whatever that of training is.
    mean, std: by which the teacher's images are normalised, of values in [0, 1]; None for the data set's own.
    """

    kind: Literal["features"] = "features"
    teacher: Checkpoint
    width: PositiveInt
    block: PositiveInt | None = None
    norm: Norm = "none"
    downsample: PositiveInt
    mean: tuple[float, ...] | None = None
    std: tuple[PositiveFloat, ...] | None = None
    precision: Literal["fp32", "bf16"] = "fp32"

    implicit: ClassVar[Mapping[str, object]] = {"precision": "fp32"}

    @model_validator(mode="before")
    @classmethod
    def _default_downsample(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(teacher := values.get("teacher"), Checkpoint):
            return {"downsample": teacher.backbone.stride, **values}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.mean is None) != (self.std is None) or len(self.mean or ()) != len(self.std or ()):
            raise ValueError("mean and std belong together: give both, a number a channel, or neither")
        return self


class MomentumTarget(Spec):
    """Features that the momentum encoder has of the whole image (data2vec).

    The mean of the outputs of its last blocks (fairseq, examples/data2vec/models/data2vec_vision.py, where neither is
    normalised by default). There the loss is a sum over channels divided by the root of their number; here it is their
    mean, as for other targets.

    width: channels of the features; the encoder must agree. blocks: how many of the last ones; of a model with stages
        at most those of the last stage.
    norm: of each block's output before the mean, and mean_norm: of the mean; as for FeatureTarget.
    downsample: pixels of the image under one feature: the encoder's stride.
    """

    kind: Literal["momentum"] = "momentum"
    width: PositiveInt
    downsample: PositiveInt
    blocks: PositiveInt = 8
    norm: Norm = "none"
    mean_norm: Norm = "none"
