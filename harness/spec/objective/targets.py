"""Prediction targets: what the model has to predict in hidden places, and the facts that follow from that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from harness.spec.base import Spec, choices, derived
from harness.spec.start import Checkpoint
from harness.spec.user_code import UserFile, UserFunction

__all__ = [
    "BinTarget", "ClusterTarget", "CustomTarget", "DalleTokenizer", "FeatureTarget", "HogTarget", "KMeans",
    "LowPassTarget", "MomentumTarget", "NormPixelTarget", "PatchWords", "PixelTarget", "Target", "TokenTarget",
    "Tokenizer",
]  # fmt: skip

Norm = Literal["none", "layer", "instance"]


class TargetSpec(Spec):
    """Facts that every target states of itself. Each target also has `downsample`: pixels per side of a target place.

    is_image: True if the target is a picture, so that its spectrum means something.
    uses_colours: True if it is computed from values in [0, 1], for which the data set's normalisation is undone.
    """

    is_image: ClassVar[bool] = False
    uses_colours: ClassVar[bool] = False

    @property
    def classes(self) -> int | None:
        """Classes at each place (and channel, for bins) of a classification target; None for values to regress."""
        return None

    def maps(self, channels: int) -> int:
        """Number of maps of the target of images with `channels` channels: values to regress, or class indices."""
        return channels

    def prediction_channels(self, channels: int) -> int:
        """Channels of the prediction for images with `channels` channels: maps x classes, a map's classes together."""
        return self.maps(channels) * (self.classes or 1)

    def check_images(self, image_size: int, channels: int) -> None:
        """Refuse square images of `image_size` pixels and `channels` channels that give no such target.

        Raises:
            ValueError: the sizes do not fit; names the valid ones where there are some.
        """


def _check_patches(patch: int, image_size: int) -> None:
    if image_size % patch:
        valid = choices(image_size, least=2)
        raise ValueError(f"patches of {patch} px do not fill the image of {image_size} px; {valid}")


class PixelTarget(TargetSpec):
    """The clean image, normalised by the data set's mean and standard deviation (SimMIM section 3.4).

    downsample: the target is the image averaged over squares of this many pixels: 1 for full resolution,
        32 for the paper's 6x6 (SimMIM Table 3). The filter (area average) is assumed: the paper names none.
    """

    kind: Literal["pixels"] = "pixels"
    downsample: PositiveInt = 1

    is_image: ClassVar[bool] = True


class NormPixelTarget(TargetSpec):
    """The clean image, normalised locally: (x - mean) / sqrt(variance + 1e-6), the variance unbiased.

    area: `patch`: over all values of a patch, channels together (MAE; facebookresearch/mae, models_mae.py); `window`:
        over a window around each pixel, cut off at the image's border, each channel for itself (later SimMIM;
        microsoft/Swin-Transformer, models/simmim.py, where the window is 47 pixels).
    size: side of the patch or window in pixels; a window's is odd.
    """

    kind: Literal["norm-pixels"] = "norm-pixels"
    size: int = Field(default=16, ge=2)
    area: Literal["patch", "window"] = "patch"

    downsample: ClassVar[int] = 1
    is_image: ClassVar[bool] = True

    @model_validator(mode="after")
    def _odd_window(self) -> Self:
        if self.area == "window" and self.size % 2 == 0:
            raise ValueError(f"a window of {self.size} px has no middle; valid here: {self.size - 1}, {self.size + 1}")
        return self

    def check_images(self, image_size: int, channels: int) -> None:
        del channels
        if self.area == "patch":
            _check_patches(self.size, image_size)


class LowPassTarget(TargetSpec):
    """The clean image without its high frequencies (PixMIM).

    The image with values in [0, 1], without normalisation, is Fourier transformed; what lies further than `radius` from
    ((h - 1) / 2, (w - 1) / 2) of the shifted spectrum is removed; the absolute value of what is transformed back is
    normalised again (open-mmlab/mmselfsup, models/target_generators/low_freq_generator.py). That middle is half a place
    beside frequency 0, hence the absolute value.

    radius: 40 for the paper's 224 pixels.
    patch: side of the patches that are then normalised as by NormPixelTarget, as in PixMIM; None for none.
    """

    kind: Literal["low-pass"] = "low-pass"
    radius: float = Field(default=40.0, ge=1)
    patch: int | None = Field(default=None, ge=2)

    downsample: ClassVar[int] = 1
    is_image: ClassVar[bool] = True
    uses_colours: ClassVar[bool] = True

    def check_images(self, image_size: int, channels: int) -> None:
        del channels
        if self.patch is not None:
            _check_patches(self.patch, image_size)


class BinTarget(TargetSpec):
    """The class of each channel's value among bins of equal width over [0, 1] (SimMIM section 3.4, "color bins").

    bins: classes of a channel; the paper has 8 and 256 (SimMIM Table 5).
    downsample: as for PixelTarget; the averaged colour is what falls into a bin.
    """

    kind: Literal["bins"] = "bins"
    bins: int = Field(default=8, ge=2, le=256)
    downsample: PositiveInt = 1

    uses_colours: ClassVar[bool] = True

    @property
    def classes(self) -> int:
        return self.bins


class KMeans(Spec):
    """k-means over a fixed sample of the pre-training images, which are scaled to the run's image size, not augmented.

    images: images sampled; all of them where there are fewer.
    per_image: colours or patches taken from each; all of them where there are fewer.
    iterations: at most this many rounds of Lloyd's algorithm; fewer once nothing changes.
    seed: of the sample and of the first centres. It is no run's seed: every seed of a cell has the same classes.
    """

    images: PositiveInt = 1024
    per_image: PositiveInt = 64
    iterations: PositiveInt = 20
    seed: int = Field(default=0, ge=0)


class ClusterTarget(TargetSpec, KMeans):
    """The nearest colour of a palette (SimMIM section 3.4, "color clustering", after iGPT).

    The palette is learnt by k-means on colours of the pre-training images at the target's resolution. iGPT has 512
    colours (9 bits); its own palette, learnt on ImageNet, is not used here, and the size of the sample is assumed.

    clusters: colours in the palette. downsample: as for PixelTarget; the averaged colour is what is looked up.
    """

    kind: Literal["clusters"] = "clusters"
    clusters: int = Field(default=512, ge=2)
    downsample: PositiveInt = 1

    uses_colours: ClassVar[bool] = True

    @property
    def classes(self) -> int:
        return self.clusters

    def maps(self, channels: int) -> int:
        del channels
        return 1


class PatchWords(KMeans):
    """A tokenizer that needs no weights: the nearest of the centres of a k-means over raw patches.

    vocabulary: number of words.
    """

    kind: Literal["patch-words"] = "patch-words"
    vocabulary: int = Field(default=512, ge=2)


class DalleTokenizer(UserFile):
    """The encoder of DALL-E's discrete VAE, as BEiT uses it: the most probable of its codes.

    The file holds the state dict of the public `encoder.pkl` (repository openai/DALL-E, dall_e/encoder.py) under its
    own names: `blocks.input.w`, ... The public file itself is a pickled module and is refused, since reading it would
    execute it. Width and depth are read from the file.

    vocabulary: number of codes; must be the file's.
    """

    kind: Literal["dalle"] = "dalle"
    vocabulary: int = Field(default=8192, ge=2)


Tokenizer = Annotated[PatchWords | DalleTokenizer, Field(discriminator="kind")]


class TokenTarget(TargetSpec):
    """The token that a discrete tokenizer gives each patch (BEiT).

    tokenizer: what gives the tokens.
    downsample: side in pixels of the patch that a token covers. A code of DALL-E covers 8 x 8 pixels of what its
        encoder is fed, so the image is scaled by 8 / downsample for it: 224 to 112 at 16, as in BEiT.
    """

    kind: Literal["tokens"] = "tokens"
    tokenizer: Tokenizer = PatchWords()
    downsample: PositiveInt = 16

    uses_colours: ClassVar[bool] = True

    @property
    def classes(self) -> int:
        return self.tokenizer.vocabulary

    def maps(self, channels: int) -> int:
        del channels
        return 1


class HogTarget(TargetSpec):
    """Histograms of oriented gradients, as MaskFeat defines them (mmpretrain, models/selfsup/maskfeat.py).

    For each channel of the image: gx and gy by the Sobel kernels, the image reflected by one pixel at its borders; the
    magnitude of (gx, gy) times a Gaussian window of mean 0 and deviation window / 2 whose weights add up to 1, repeated
    over the image; its bin floor(atan2(gx, gy) / pi * bins) mod bins; sums of each bin over cells, whose `bins` values
    are then divided by their Euclidean norm. A patch has cells x cells of them: at the defaults 2 * 2 * 9 values a
    channel of the image, 108 for RGB.

    bins: orientations, between which half a turn is divided.
    cell: side of a cell in pixels of the network's input.
    cells: cells along a side of a patch, so that a patch has cell * cells pixels a side. They have to divide the
        encoder's stride, which is a ViT's patch, and the unit of the mask where the loss counts hidden patches alone:
        with patches of 16 pixels MaskFeat's 8 * 2 fits, with patches of 4 pixels cell=2.
    window: side of the Gaussian window in pixels. Nothing has to match; MaskFeat's is the patch, cell * cells.
    """

    kind: Literal["hog"] = "hog"
    bins: int = Field(default=9, ge=2)
    cell: PositiveInt = 8
    cells: PositiveInt = 2
    window: int = Field(default=16, ge=2)

    uses_colours: ClassVar[bool] = True

    @property
    def downsample(self) -> int:
        """Side of a patch in pixels."""
        return self.cell * self.cells

    def maps(self, channels: int) -> int:
        return channels * self.bins * self.cells**2


class FeatureTarget(TargetSpec):
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
    downsample: PositiveInt = derived()
    mean: tuple[float, ...] | None = None
    std: tuple[PositiveFloat, ...] | None = None
    precision: Literal["fp32", "bf16"] = "fp32"

    uses_colours: ClassVar[bool] = True
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

    def maps(self, channels: int) -> int:
        del channels
        return self.width

    def check_images(self, image_size: int, channels: int) -> None:
        stride, size = self.teacher.backbone.stride, self.teacher.image_size
        seen = image_size * stride / self.downsample
        if seen != size:
            raise ValueError(
                f"a teacher of stride {stride} that has a feature for every {self.downsample} of {image_size} px "
                f"sees {seen:g} px, not the teacher.image_size of {size}"
            )
        if self.mean is not None and len(self.mean) != channels:
            raise ValueError(f"the teacher's mean has {len(self.mean)} numbers, the images {channels} channels")


class MomentumTarget(TargetSpec):
    """Features that the momentum encoder has of the whole image (data2vec).

    The mean of the outputs of its last blocks (fairseq, examples/data2vec/models/data2vec_vision.py, where neither is
    normalised by default). There the loss is a sum over channels divided by the root of their number; here it is their
    mean, as for other targets.

    width: channels of the features; the encoder must agree. blocks: how many of the last ones; of a model with stages
        at most those of the last stage.
    norm: of each block's output before the mean; as for FeatureTarget.
    mean_norm: of the mean itself; as for FeatureTarget.
    downsample: pixels of the image under one feature: the encoder's stride.
    """

    kind: Literal["momentum"] = "momentum"
    width: PositiveInt
    downsample: PositiveInt
    blocks: PositiveInt = 8
    norm: Norm = "none"
    mean_norm: Norm = "none"

    def maps(self, channels: int) -> int:
        del channels
        return self.width


class CustomTarget(TargetSpec, UserFunction):
    """A user's own target.

    function: `package.module:name`; called as `name(images, **params)` with the clean normalised images
        [B, C, H, W] it returns [B, channels, H / downsample, W / downsample], without gradient.
    channels: values at each place of the target.
    downsample: side in pixels of a place of the target.
    """

    kind: Literal["custom"] = "custom"
    channels: PositiveInt
    downsample: PositiveInt = 1

    def maps(self, channels: int) -> int:
        del channels
        return self.channels


Target = Annotated[
    PixelTarget
    | NormPixelTarget
    | LowPassTarget
    | BinTarget
    | ClusterTarget
    | TokenTarget
    | HogTarget
    | FeatureTarget
    | MomentumTarget
    | CustomTarget,
    Field(discriminator="kind"),
]
