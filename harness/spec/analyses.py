"""Evaluations that look into a trained model: interactions of patches, occlusion, spectra, masked inputs."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, ClassVar, Generic, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from harness.spec.base import choices
from harness.spec.model.corruption import Fill
from harness.spec.run import Evaluated, FineTune, Pretrain, S
from harness.spec.start import Checkpoint, Scratch

__all__ = [
    "Fourier", "Interactions", "Occlusion", "RgbStatistics",
]  # fmt: skip

Encoding = Annotated[Pretrain | FineTune | Scratch | Checkpoint, Field(discriminator="kind")]

Reward = Literal["log-odds", "log-probability", "logit"]
Ratio = Annotated[float, Field(ge=0, le=1)]


class _Analysis(Evaluated[S], Generic[S]):
    """Fields of every analysis.

    images: number of test images. They are chosen by `seed` and by what they show, classes taking turns, so that
        neither the order of files nor the process that asks changes them. The released code takes training images.
    """

    @property
    def setting(self) -> tuple[str, ...]:
        left_out = {"start", "data", "seed", "assumed"}
        return tuple(str(value) for name, value in self.values.items() if name not in left_out)

    @model_validator(mode="before")
    @classmethod
    def _size_of_tests(cls, values: Any) -> Any:
        given = isinstance(values, dict) and values.get("image_size") is None
        size = getattr(values.get("start"), "test_size", None) if given else None
        return values if size is None else {**values, "image_size": size}

    @model_validator(mode="after")
    def _same_size(self) -> Self:
        size = getattr(self.start, "test_size", None) or getattr(self.start, "image_size", None)
        if self.image_size != size:
            raise ValueError(
                f"image_size {self.image_size} differs from the start's {size}, whose weights are for that"
            )
        return self


class Interactions(_Analysis[FineTune]):
    """Multi-order interaction strength J(m) of pairs of patches (Deng et al., ICLR 2022; A2MIM, section 3).

    I(m)(i, j) is the mean over contexts S of m other patches of v(S + i + j) - v(S + i) - v(S + j) + v(S), where v is
    the reward of the model that sees the patches of a set and the data set's mean colour elsewhere. The strength is
    the mean of |I(m)(i, j)| over images and pairs, divided by its mean over the orders; so J depends on `orders`.

    grid: patches on each side of the image; n = grid^2 players.
    orders: m as a share of the n - 2 other players, rounded down to a whole number.
    pairs: pairs of patches an image, drawn without repeats from those that lie near each other. The released code
        draws i first and j near it.
    reach: patches by which the two of a pair may lie apart, in rows and in columns; None for any distance.
    contexts: sets S a pair and order. Where there are no more sets than this, each is taken once, so that the extreme
        orders, which have one, cost one; the released code computes that one `contexts` times.
    reward: of the logits z and the label y. log-odds is log p_y / (1 - p_y) = z_y - logsumexp over the others
        (the paper), log-probability is log p_y, logit is z_y.
    band: the lowest and highest order whose J is averaged into the metric that tables show; by default the range in
        which the paper says that a masked pre-training raises the strength of a ViT-S.
    """

    kind: Literal["interactions"] = "interactions"
    images: PositiveInt = 100
    grid: int = Field(default=14, ge=2)
    orders: tuple[Ratio, ...] = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
    pairs: PositiveInt = 50
    contexts: int = Field(default=50, ge=2)
    reach: PositiveInt | None = 2
    reward: Reward = "log-odds"
    band: tuple[Ratio, Ratio] = (0.05, 0.5)

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("strength", "strength_error", "strength_split_half", "interaction", "interaction_lower", "noise")

    @property
    def model_source(self) -> FineTune:
        return self.start

    @property
    def caption(self) -> str:
        """The shown metric in words."""
        low, high = self.band
        return f"interaction strength J(m), mean over the orders from {low:g} n to {high:g} n"

    @property
    def sizes(self) -> tuple[int, ...]:
        """m of each order: patches in a context."""
        return tuple(int((self.grid**2 - 2) * order) for order in self.orders)

    @property
    def candidates(self) -> tuple[tuple[int, int], ...]:
        """The pairs i < j of patches, counted row by row, that are near enough."""
        reach = self.reach or self.grid
        places = list(itertools.product(range(self.grid), repeat=2))
        return tuple(
            (i, j)
            for (i, (row, column)), (j, (below, beside)) in itertools.combinations(enumerate(places), 2)
            if abs(below - row) <= reach and abs(beside - column) <= reach
        )

    @model_validator(mode="after")
    def _countable(self) -> Self:
        if self.image_size % self.grid:
            valid = choices(self.image_size, least=2)
            raise ValueError(f"grid {self.grid} does not divide the image of {self.image_size} px; {valid}")
        if not self.orders or any(left >= right for left, right in itertools.pairwise(self.sizes)):
            raise ValueError(
                f"orders should rise and mean different numbers of the {self.grid**2 - 2} other patches, "
                f"not {', '.join(map(str, self.sizes)) or 'none'}"
            )
        low, high = self.band
        if not any(low <= order <= high for order in self.orders):
            raise ValueError(f"no order lies in the band from {low} to {high}")
        if self.pairs > len(self.candidates):
            raise ValueError(f"pairs {self.pairs} is more than the {len(self.candidates)} that there are")
        return self


class Occlusion(_Analysis[FineTune]):
    """Accuracy of a classifier that loses patches of its input (Naseer et al., NeurIPS 2021; A2MIM).

    Patches are dropped at random, the most salient first, and the least salient first; a dropped pixel has the data
    set's mean colour. Every image has its own patches. Within a draw, what is dropped at one ratio is dropped at every
    higher one.

    images: None for all test images.
    size: side of a patch in pixels.
    ratios: shares of the patches that are dropped, ascending.
    draws: random orders of the patches of each image.

    The saliency of a patch is the sum over its pixels of the absolute gradient of the log-odds of the class that the
    model itself predicts for the whole image.
    """

    kind: Literal["occlusion"] = "occlusion"
    images: PositiveInt | None = None
    size: PositiveInt = 16
    ratios: tuple[Ratio, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    draws: PositiveInt = 5

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("area_random", "area_random_sd", "area_salient", "area_nonsalient")

    @property
    def model_source(self) -> FineTune:
        return self.start

    @property
    def caption(self) -> str:
        """The shown metric in words."""
        return "accuracy with randomly dropped patches, mean over the drop ratios"

    @property
    def side(self) -> int:
        """Patches on each side of the image."""
        return self.image_size // self.size

    @property
    def counts(self) -> tuple[int, ...]:
        """Dropped patches at each ratio, rounded to the nearest whole number, a half up."""
        return tuple(int(ratio * self.side**2 + 0.5) for ratio in self.ratios)

    @model_validator(mode="after")
    def _whole_patches(self) -> Self:
        if self.image_size % self.size:
            valid = choices(self.image_size)
            raise ValueError(f"size {self.size} does not divide the image of {self.image_size} px; {valid}")
        if len(self.ratios) < 2 or any(left >= right for left, right in itertools.pairwise(self.counts)):
            raise ValueError(
                f"ratios should be two or more, rise, and drop different numbers of the {self.side**2} patches of "
                f"{self.size} px, not {', '.join(map(str, self.counts)) or 'none'}"
            )
        return self


class Fourier(_Analysis[Encoding]):
    """Spectra of a model's feature maps, layer by layer (Park and Kim, ICLR 2022; A2MIM).

    Of each map the log amplitude log(|F| + 1e-6) of the two-dimensional DFT is averaged over channels and images. Its
    diagonal from the lowest to the highest frequency, less its lowest, is the relative log amplitude. A ViT is looked
    at after every attention and every MLP, with what the residual path carries and without class tokens; a Swin or CNN,
    and a ViT of other blocks (parallel ones, or with a norm behind each part), after its stem and every block. Maps of
    one or two positions a side have no frequency besides zero and count in the variance alone.
    """

    revision: ClassVar[int] = 2  # such maps used to count with an amplitude of zero

    kind: Literal["fourier"] = "fourier"
    images: PositiveInt = 512

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("high_frequency", "high_frequency_last", "variance", "variance_last")

    @property
    def caption(self) -> str:
        """The shown metric in words."""
        return "relative log amplitude of the highest frequency, mean over the layers"


class RgbStatistics(_Analysis[Pretrain]):
    """Statistics of the masked inputs of a pre-training, under each fill of hidden pixels.

    Colours are in [0, 1], but for noise, which may lie outside. Nothing is trained, so this does not wait for the
    pre-training, whose mask and data it takes. The mask has to hide places without looking at the image.

    images: test images. masks: masks of each image.
    bins: of the histograms.
    """

    kind: Literal["rgb"] = "rgb"
    images: PositiveInt = 512
    masks: PositiveInt = 4
    bins: int = Field(default=32, ge=2)

    fills: ClassVar[tuple[Fill, ...]] = ("none", "zero", "mean", "image-mean", "visible-mean", "noise")

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("mean_shift",)

    needs_weights: ClassVar[bool] = False

    @property
    def caption(self) -> str:
        """The shown metric in words."""
        return "shift of the mean colour by the mask, under the run's own fill"

    @model_validator(mode="after")
    def _known_places(self) -> Self:
        mask = self.start.mask
        if not mask.hides_blindly:
            raise ValueError(
                f"a {mask.kind} mask hides no places that are known without a model; "
                "valid: one that neither looks at the image nor removes frequencies, such as random"
            )
        return self
