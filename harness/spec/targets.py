"""What is predicted."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self, assert_never

from pydantic import Field, PositiveInt, model_validator

from harness.spec.base import Spec
from harness.spec.features import FeatureTarget, HogTarget, MomentumTarget
from harness.spec.user_code import UserFile, UserFunction


class PixelTarget(Spec):
    """The clean image, normalised by the data set's mean and standard deviation (SimMIM section 3.4).

    downsample: the target is the image averaged over squares of this many pixels: 1 for full resolution,
        32 for the paper's 6x6 (SimMIM Table 3). The filter (area average) is assumed: the paper names none.
    """

    kind: Literal["pixels"] = "pixels"
    downsample: PositiveInt = 1


class NormPixelTarget(Spec):
    """The clean image, normalised locally: (x - mean) / sqrt(variance + 1e-6), the variance unbiased.

    area: `patch`: over all values of a patch, channels together (MAE; facebookresearch/mae, models_mae.py); `window`:
        over a window around each pixel, cut off at the image's border, each channel for itself (later SimMIM;
        microsoft/SimMIM, models/simmim.py, where the window is 47 pixels).
    size: side of the patch or window in pixels; a window's is odd.
    """

    kind: Literal["norm-pixels"] = "norm-pixels"
    size: int = Field(default=16, ge=2)
    area: Literal["patch", "window"] = "patch"

    downsample: ClassVar[int] = 1

    @model_validator(mode="after")
    def _odd_window(self) -> Self:
        if self.area == "window" and self.size % 2 == 0:
            raise ValueError(f"a window of {self.size} px has no middle; valid here: {self.size - 1}, {self.size + 1}")
        return self


class LowPassTarget(Spec):
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


class BinTarget(Spec):
    """The class of each channel's value among bins of equal width over [0, 1] (SimMIM section 3.4, "color bins").

    bins: classes of a channel; the paper has 8 and 256 (SimMIM Table 5).
    downsample: as for PixelTarget; the averaged colour is what falls into a bin.
    """

    kind: Literal["bins"] = "bins"
    bins: int = Field(default=8, ge=2, le=256)
    downsample: PositiveInt = 1


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


class ClusterTarget(KMeans):
    """The nearest colour of a palette (SimMIM section 3.4, "color clustering", after iGPT).

    The palette is learnt by k-means on colours of the pre-training images at the target's resolution. iGPT has 512
    colours (9 bits); its own palette, learnt on ImageNet, is not used here, and the size of the sample is assumed.

    clusters: colours in the palette. downsample: as for PixelTarget; the averaged colour is what is looked up.
    """

    kind: Literal["clusters"] = "clusters"
    clusters: int = Field(default=512, ge=2)
    downsample: PositiveInt = 1


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


class TokenTarget(Spec):
    """The token that a discrete tokenizer gives each patch (BEiT).

    downsample: side in pixels of the patch that a token covers. A code of DALL-E covers 8 x 8 pixels of what its
        encoder is fed, so the image is scaled by 8 / downsample for it: 224 to 112 at 16, as in BEiT.
    """

    kind: Literal["tokens"] = "tokens"
    tokenizer: Tokenizer = PatchWords()
    downsample: PositiveInt = 16


class CustomTarget(UserFunction):
    """A user's own target.

    function: `package.module:name`; called as `name(images, **params)` with the clean normalised images
        [B, C, H, W] it returns [B, channels, H / downsample, W / downsample], without gradient.
    """

    kind: Literal["custom"] = "custom"
    channels: PositiveInt
    downsample: PositiveInt = 1


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


def target_classes(target: Target) -> int | None:
    """Classes at each place (and channel, for bins) of a classification target; None for values to regress."""
    match target:
        case PixelTarget() | NormPixelTarget() | LowPassTarget() | HogTarget() | FeatureTarget() | MomentumTarget():
            return None
        case CustomTarget():
            return None
        case BinTarget():
            return target.bins
        case ClusterTarget():
            return target.clusters
        case TokenTarget():
            return target.tokenizer.vocabulary
        case _:
            assert_never(target)


def target_maps(target: Target, channels: int) -> int:
    """Maps that a target of images of `channels` channels has: values to regress, or class indices."""
    match target:
        case PixelTarget() | NormPixelTarget() | LowPassTarget() | BinTarget():
            return channels
        case ClusterTarget() | TokenTarget():
            return 1
        case HogTarget():
            return channels * target.bins * target.cells**2
        case FeatureTarget() | MomentumTarget():
            return target.width
        case CustomTarget():
            return target.channels
        case _:
            assert_never(target)


def target_channels(target: Target, channels: int) -> int:
    """Channels of the prediction for images of `channels` channels: maps * classes, the classes of a map together."""
    return target_maps(target, channels) * (target_classes(target) or 1)


def is_image(target: Target) -> bool:
    """Whether a target is an image, so that its spectrum means something."""
    return isinstance(target, PixelTarget | NormPixelTarget | LowPassTarget)


def check_target_images(target: Target, image_size: int, channels: int) -> None:
    """Whether a target can be made of square images of `image_size` pixels and `channels` channels.

    Raises:
        ValueError: it cannot.
    """
    match target:
        case NormPixelTarget(area="patch", size=patch) | LowPassTarget(patch=int(patch)) if image_size % patch:
            valid = ", ".join(str(size) for size in range(2, image_size + 1) if image_size % size == 0)
            raise ValueError(f"patches of {patch} px do not fill the image of {image_size} px; valid: {valid}")
        case FeatureTarget(teacher=teacher, downsample=downsample):
            seen = image_size * teacher.backbone.stride / downsample
            if seen != teacher.image_size:
                raise ValueError(
                    f"a teacher of stride {teacher.backbone.stride} that has a feature for every {downsample} of "
                    f"{image_size} px sees {seen:g} px, not the teacher.image_size of {teacher.image_size}"
                )
            if target.mean is not None and len(target.mean) != channels:
                raise ValueError(f"the teacher's mean has {len(target.mean)} numbers, the images {channels} channels")
        case _:
            pass
