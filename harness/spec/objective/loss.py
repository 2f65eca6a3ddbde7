"""Losses of the prediction: the prediction error, and an error of its spectrum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, NonNegativeFloat, PositiveFloat, PositiveInt, Tag, model_validator

from harness.spec.base import CUSTOM, SHIPPED, Spec, choices
from harness.spec.objective.targets import DalleTokenizer, Target, TokenTarget
from harness.spec.user_code import UserFunction, whose

OWN: dict[str, dict[str, float]] = {
    "smooth-l1": {"beta": 1.0},
    "focal-l1": {"alpha": 0.2, "gamma": 1.0},
    "frequency": {"gamma": 1.0},
}
"""Fields that belong to some kinds of loss alone, and their values where they are left out."""

DISTANCES = ("l1", "l2", "smooth-l1", "focal-l1")
"""Kinds of loss that are a function of the distance of two values."""
UNMASKS = ("released", "plain")
"""Variants of the Fourier loss in which the visible part may keep some of its gradient."""


class Loss(Spec):
    """The prediction error.

    kind: for values l1 (SimMIM's default), l2, smooth-l1, focal-l1, cosine or frequency; for classes cross-entropy.
        `focal-l1`: |d| * (2 * sigmoid(alpha * |d|) - 1) ** gamma, what the released A2MIM takes for CNNs
            (Westlake-AI/openmixup, losses/regression_loss.py).
        `cosine`: 2 - 2 * cosine of prediction and target as vectors of channels, for features (EVA, MILAN).
        `frequency`: |F(prediction) - F(target)| ** gamma with the orthonormal Fourier transform F of each channel (MFM;
            Jiahao000/MFM, models/frequency_loss.py).
    scope: places that count: hidden patches only, or over the full image (SimMIM Table 4); of a frequency loss, the
        frequencies that the mask removes, or all.
    beta: distance at which smooth-l1 turns from quadratic to linear; unused by the others. The paper states none.
    alpha: of focal-l1. gamma: of focal-l1 and frequency.
    """

    kind: Literal["l1", "l2", "smooth-l1", "focal-l1", "cosine", "frequency", "cross-entropy"] = "l1"
    scope: Literal["masked", "full"] = "masked"
    beta: PositiveFloat | None = None
    alpha: PositiveFloat | None = None
    gamma: PositiveFloat | None = None

    implicit: ClassVar[Mapping[str, object]] = {"alpha": None, "gamma": None}

    @model_validator(mode="before")
    @classmethod
    def _own_fields(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        kind = values.get("kind", "l1")
        own = OWN.get(kind, {}) if isinstance(kind, str) else {}
        for name in ("beta", "alpha", "gamma"):
            if name not in own and values.get(name) is not None:
                owners = " and ".join(other for other, fields in OWN.items() if name in fields)
                raise ValueError(f"{name} belongs to {owners}, not to {kind}")
        return {**values, **{name: value for name, value in own.items() if values.get(name) is None}}

    def replace(self, **changes: Any) -> Self:
        """A validated copy; a new kind begins with its own fields."""
        if "kind" in changes:
            changes = {"beta": None, "alpha": None, "gamma": None, **changes}
        return super().replace(**changes)


class CustomLoss(UserFunction):
    """A user's own prediction error.

    function: `package.module:name`; called as `name(prediction, target, hidden, **params)` it returns the error map
        [B, K, H, W] with a gradient into the prediction, K any number of errors at each place, such as one a channel.
        It gets the prediction float32 [B, channels, H, W], the target [B, maps, H, W] (float32 values or int64 classes)
        and hidden, bool [B, H, W], True = hidden.
    scope: places of the map that count, as of a `Loss`; the loss is its mean over them and over the K errors.
    """

    kind: Literal["custom"] = "custom"
    scope: Literal["masked", "full"] = "masked"


AnyLoss = Annotated[Annotated[Loss, Tag(SHIPPED)] | Annotated[CustomLoss, Tag(CUSTOM)], Discriminator(whose)]


def needs_hidden(loss: AnyLoss) -> bool:
    """True if the prediction error depends on which places of the target are hidden."""
    return loss.scope == "masked" or loss.kind == "custom"


class FourierLoss(Spec):
    """An error of the spectrum, added to the prediction error: A2MIM's (Li et al., ICML 2023) in two variants, and the
    plain one that these come from.

    With prediction y, clean image x, m = 1 where hidden, F the orthonormal 2-D Fourier transform of a channel, and sg
    for "no gradient":

    `paper` (its section on the loss), for each image: y' = y m + sg(y) (1 - m), d = |F(y') - F(x)|, and the loss is the
    mean over images, channels and frequencies of sg(d ** alpha) d, or of d without `focal`. Assumed, because the text
    leaves it open: the weight has no gradient, as in the focal frequency loss that it comes from; the transform is
    orthonormal and the mean is taken where the text has sums, as in the released code.

    `released` (Westlake-AI/openmixup, heads/mim_head.py and losses/focal_loss.py): y' = y m' + (y sg/2 + x/2) (1 - m')
    with m' = m + (1 - m) unmask_weight. With `focal`, the complex spectra are first averaged over a group of images;
    d = |mean F(y') - mean F(x)|, w = log(d ** alpha + 1) divided by its maximum over channels and frequencies of the
    group, without gradient, and the loss is the mean of w d ** 2, over groups too. Its effective weight falls as groups
    grow. Without `focal` it is, for each image, the mean of e or, with `reweight`, of sg(e) e, where e is the
    prediction error (`Loss.kind`) of the two spectra.

    `plain`, the focal frequency loss (Jiang et al., ICCV 2021; EndlessSora/focal-frequency-loss at its defaults), which
    has no logarithm, no average and no maximum over a group: y' = y m' + sg(y) (1 - m'), d = |F(y') - F(x)|, w =
    d ** alpha divided by its maximum over the frequencies of a channel of an image, without gradient, and the loss is
    the mean of w d ** 2. At unmask_weight 1 the mask plays no part.

    variant: which of these.
    weight: factor on it in the loss. The paper's default is 0.5; the released ViTs have 0.1, ResNet-50 0.5.
    focal: True weights frequencies by their error. alpha: exponent of that weight.
    unmask_weight: of `released` and `plain`, what the visible part keeps of its gradient: 0.001 for the released
        ResNets, else 0.
    reweight: of `released` without focal.
    group: of `released` with focal, images that are averaged: neighbours in the batch, so many at a time; None for the
        whole batch. The released code averages what one GPU holds: 256 for ResNet-50, 128 for ViT-B. Every process and
        every micro-batch has to hold whole groups.
    """

    kind: Literal["fourier"] = "fourier"
    variant: Literal["paper", "released", "plain"] = "paper"
    weight: PositiveFloat = 0.5
    focal: bool = True
    alpha: PositiveFloat | None = None
    unmask_weight: NonNegativeFloat | None = None
    reweight: bool = False
    group: PositiveInt | None = None

    @model_validator(mode="before")
    @classmethod
    def _own_fields(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        variant, focal = values.get("variant"), values.get("focal", True) is not False
        released, unmasks = variant == "released", variant in UNMASKS
        if variant == "plain" and not focal:
            raise ValueError("variant 'plain' is focal; valid without: 'paper', 'released'")
        belongs = {
            "alpha": (focal, "focal=True"),
            "unmask_weight": (unmasks, "variant='released' and 'plain'"),
            "reweight": (released and not focal, "variant='released' with focal=False"),
            "group": (released and focal, "variant='released' with focal=True"),
        }
        for name, (fits, owner) in belongs.items():
            if not fits and values.get(name) not in (None, False):
                raise ValueError(f"{name} belongs to {owner}; leave it out")
        filled = {"alpha": 1.0 if focal else None, "unmask_weight": 0.0 if unmasks else None}
        return {**values, **{name: value for name, value in filled.items() if values.get(name) is None}}

    def replace(self, **changes: Any) -> Self:
        """A validated copy; what does not belong to a new variant is left out."""
        variant, focal = changes.get("variant", self.variant), changes.get("focal", self.focal)
        if (variant, focal) != (self.variant, self.focal):
            kept = {"alpha": self.alpha if focal else None}
            kept["unmask_weight"] = self.unmask_weight if variant in UNMASKS else None
            changes = {**kept, "reweight": False, "group": None, **changes}
        return super().replace(**changes)


def check_loss(loss: AnyLoss, target: Target, channels: int) -> None:
    """Refuse a loss that does not fit a target, or a target that does not fit images of `channels` channels.

    Raises:
        ValueError: names the valid losses or targets.
    """
    if loss.kind not in (valid := _fitting(target)):
        raise ValueError(f"loss.kind {loss.kind!r} does not fit the target {target.kind!r}; valid: {', '.join(valid)}")
    if isinstance(target, TokenTarget) and isinstance(target.tokenizer, DalleTokenizer) and channels != 3:
        raise ValueError(f"the tokenizer 'dalle' sees colours, not {channels} channels; valid here: patch-words")


def _fitting(target: Target) -> tuple[str, ...]:
    """Kinds of loss for a target."""
    if target.classes is not None:
        return ("cross-entropy", "custom")
    return (*DISTANCES, "frequency" if target.is_image else "cosine", "custom")


def check_fourier(fourier: FourierLoss, loss: AnyLoss, target: Target, batch_size: int) -> None:
    """Refuse a Fourier loss that does not fit the prediction error, the target or the batch.

    Raises:
        ValueError: names the valid choices.
    """
    if not target.is_image:
        raise ValueError(f"a Fourier loss is of images, not of the target {target.kind!r}; leave fourier out")
    if fourier.variant == "released" and not fourier.focal and loss.kind not in DISTANCES:
        raise ValueError(
            f"fourier with variant='released' and focal=False is loss.kind of spectra, and {loss.kind!r} is none; "
            f"valid: {', '.join(DISTANCES)}; or focal=True"
        )
    if fourier.group is not None and batch_size % fourier.group:
        valid = choices(batch_size)
        raise ValueError(f"fourier.group {fourier.group} does not divide batch_size {batch_size}; {valid}")
