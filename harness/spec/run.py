"""Pre-training, and the evaluations of it that tables of accuracy are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Generic, Literal, Self, TypeVar, assert_never

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from harness.spec.base import Side, Spec, choices, derived
from harness.spec.data.datasets import Data, Truth
from harness.spec.geometry import (
    check_dropping,
    check_frequencies,
    check_mask,
    check_momentum,
    check_pretraining_recipe,
    check_target,
)
from harness.spec.masks.masking import Mask
from harness.spec.model.backbone import AnyBackbone
from harness.spec.model.corruption import Corruption
from harness.spec.model.heads import Head, LinearHead, LossPredictor, check_head
from harness.spec.model.momentum import MomentumEncoder
from harness.spec.model.windows import is_swin_v2, with_scales_of
from harness.spec.objective.contrastive import Contrastive
from harness.spec.objective.loss import AnyLoss, FourierLoss, Loss, check_fourier, check_loss, needs_hidden
from harness.spec.objective.targets import (
    ClusterTarget,
    DalleTokenizer,
    FeatureTarget,
    PixelTarget,
    Target,
    TokenTarget,
)
from harness.spec.recipe import Recipe, check_frozen, check_no_mask_token, check_whole_pictures
from harness.spec.start import Checkpoint, Scratch
from harness.spec.user_code import UserFunction

__all__ = [
    "CustomEvaluation", "FineTune", "Knn", "LinearProbe", "LogisticProbe", "Pretrain", "Snapshot", "Start",
]  # fmt: skip

FLOAT, INDEX = 4, 8
"""Bytes of a float32 and of an int64."""

TRAINED_PASSES = 3
"""A training step computes about three times a forward pass: the pass itself, and twice that for the gradients."""

LARGEST = 88.7
"""exp of more is beyond float32."""


def spares_swin_v2(backbone: AnyBackbone, recipe: Recipe) -> bool:
    """True where weight decay is taken from the temperatures and the network of positions of a Swin V2.

    They decayed once, so that such runs have a later revision.
    """
    usual = recipe.no_decay in ("usual", "usual-but-gate") and recipe.weight_decay > 0
    return usual and is_swin_v2(backbone)


class Pretrain(Spec):
    """One masked-image-modelling pre-training.

    data: the images; labels are not used.
    image_size: side of the network's input in pixels.
    backbone: the encoder.
    mask: which patches are hidden.
    corruption: what the encoder is shown in their place.
    head: what predicts the target from the encoder's output.
    target: what is predicted.
    loss: error of the prediction, and where it counts.
    recipe: optimiser, schedule, augmentation and precision.
    seed: seed index; the same index gives every cell the same initialisation, data order and mask stream.
    start: weights to continue from instead of new ones; its backbone has to be this one. Another part that it lacks, or
        has in another shape, begins anew: mask token, prediction head, loss predictor, projector and predictor; a head
        of classes also where their codebook is another. A momentum encoder begins as a copy of these.
    fourier: an error of the spectrum that is added to the loss; None for none.
    contrastive: a contrastive loss that is added to the loss; None for none. It needs a momentum encoder.
    momentum: the momentum encoder, where a target, a mask or a loss needs one.
    loss_predictor: decoder whose predicted losses a hard mask uses, with its auxiliary loss; None for none.
    assumed: notes on values that the paper leaves open; reports print them, keys ignore them.
    """

    kind: Literal["pretrain"] = "pretrain"
    data: Data
    image_size: Side
    backbone: AnyBackbone
    mask: Mask
    corruption: Corruption = Corruption()
    head: Head = LinearHead()
    target: Target = PixelTarget()
    loss: AnyLoss = Loss()
    recipe: Recipe
    seed: int = Field(default=0, ge=0)
    start: Checkpoint | None = None
    fourier: FourierLoss | None = None
    contrastive: Contrastive | None = None
    momentum: MomentumEncoder | None = None
    loss_predictor: LossPredictor | None = None
    assumed: tuple[str, ...] = ()

    implicit: ClassVar[Mapping[str, object]] = dict.fromkeys(
        ("start", "fourier", "contrastive", "momentum", "loss_predictor")
    )
    unkeyed: ClassVar[frozenset[str]] = frozenset({"assumed"})

    @model_validator(mode="before")
    @classmethod
    def _whole_batch(cls, values: Any) -> Any:
        fourier, recipe = (values.get("fourier"), values.get("recipe")) if isinstance(values, dict) else (None, None)
        if isinstance(fourier, FourierLoss) and isinstance(recipe, Recipe) and fourier.group == recipe.batch_size:
            return {**values, "fourier": fourier.replace(group=None)}  # two ways to say the same share a key
        return values

    def current_revision(self) -> int:
        """More than 1 for runs whose numbers corrections changed.

        Momentum encoders used to drop residual branches. Frozen networks used to compute in the precision of training:
        all teachers, and DALL-E's encoder in tf32. Later, weight decay was taken from parameters of Swin V2, and what a
        start has besides encoder, token and head is continued. Attention for guided masks is not in 16 bits. Last, a
        Swin V2 reads positions on the scale of its start's windows.
        """
        changed, precision = self.momentum is not None and self.recipe.drop_path > 0, self.recipe.precision
        match self.target:
            case FeatureTarget():
                changed |= precision != "fp32"
            case TokenTarget(tokenizer=DalleTokenizer()):
                changed |= precision == "tf32"
        learnt = isinstance(self.target, ClusterTarget | TokenTarget)
        parts = self.contrastive is not None or self.loss_predictor is not None or learnt
        continues = self.start is not None and parts
        later = continues or spares_swin_v2(self.backbone, self.recipe)
        rounded = self.mask.scored_by == "attention" and precision in ("bf16", "fp16")
        rescaled = self.built != self.backbone
        return super().current_revision() + changed + 2 * later + 4 * rounded + 8 * rescaled

    @property
    def built(self) -> AnyBackbone:
        """The backbone that is built: a Swin V2 reads positions on the scale of the start's windows, if it has one."""
        return self.backbone if self.start is None else started(self.backbone, self.image_size, self.start)

    @property
    def target_memory(self) -> int:
        """Bytes that the prediction, its gradient and the target of one whole batch take at the same time.

        batch * (image_size / downsample)^2 * (2 * 4 * K + b * M): K channels of the prediction, float32 as the loss has
        it, twice for the gradient; M maps of the target, with b = 4 bytes a value to regress or 8 bytes a class index.
        It is a floor, not the peak: encoder, inner layers of the head, teacher and intermediate results of the loss are
        left out.
        """
        channels = self.data.channels
        places = self.recipe.batch_size * (self.image_size // self.target.downsample) ** 2
        entry = FLOAT if self.target.classes is None else INDEX
        return places * (2 * FLOAT * self.target.prediction_channels(channels) + entry * self.target.maps(channels))

    forward_passes: ClassVar[int] = TRAINED_PASSES

    @property
    def visible_tokens(self) -> int | None:
        """Tokens that the encoder computes; None for all of them, and where a user's own mask decides."""
        return self.visible_under(self.mask) if self.corruption.token == "drop" else None

    def visible_under(self, mask: Mask) -> int | None:
        """Tokens that a mask leaves visible; None where their number varies or only its function knows it."""
        hidden = mask.hidden_units(self.image_size)
        if hidden is None or mask.varies(self.image_size):
            return None
        unit = mask.size // self.backbone.patch_size
        places = (self.image_size // self.backbone.patch_size) ** 2
        return places - hidden * unit**2

    @property
    def model_pieces(self) -> dict[str, Any]:
        """Fields of the `Described` that this run computes with, but for those that its data gives."""
        return {
            "stage": "pretrain",
            "backbone": self.backbone,
            "head": self.head,
            "target": self.target,
            "mask_token": self.corruption.token not in ("drop", "none"),
            "site": self.corruption.site,
            "gated": self.corruption.gate is not None,
            "visible": self.visible_tokens,
        }

    @property
    def cost_key(self) -> tuple[object, ...]:
        """Equal for runs of one kind that take the same time for an image."""
        return (self.backbone.digest, self.image_size)

    @property
    def masks(self) -> tuple[Mask, ...]:
        """The encoder's mask, and the momentum encoder's where that has one of its own."""
        other = None if self.contrastive is None else self.contrastive.mask
        return (self.mask,) if other is None or isinstance(other, str) else (self.mask, other)

    def model_post_init(self, context: Any, /) -> None:  # a validator is called again for each spec that holds this one
        size, stride = self.image_size, self.backbone.stride
        if size % stride:
            raise ValueError(f"stride {stride} does not divide the image of {size} px; {choices(size)}")
        check_mask(self.mask, self)
        inside = needs_hidden(self.loss) or self.fourier is not None
        check_target(self.target.downsample, stride, self.mask.size, inside=inside)
        self.target.check_images(size, self.data.channels)
        check_pretraining_recipe(self.recipe)
        check_head(self.head, stride, self.target.downsample)
        check_loss(self.loss, self.target, self.data.channels)
        check_frequencies(self)
        if self.fourier is not None:
            check_fourier(self.fourier, self.loss, self.target, self.recipe.batch_size)
        if self.corruption.token == "drop":
            check_dropping(self)
        check_momentum(self)
        if self.start is not None and self.start.backbone != self.backbone:
            raise ValueError("start.backbone differs from backbone: state the one that is pre-trained in both")


class Snapshot(Spec):
    """A starting point for evaluations: the weights of a pre-training after one of its epochs.

    The schedule keeps its length (`pretrain.recipe.epochs`), so nothing is trained for a snapshot: a pre-training
    writes those that were asked for in its run folder. Which ones were determines none of its numbers, and is not in
    its key.

    pretrain: the pre-training.
    epoch: counted from 1, at most the length of the pre-training.
    """

    kind: Literal["snapshot"] = "snapshot"
    pretrain: Pretrain
    epoch: PositiveInt

    @model_validator(mode="after")
    def _within(self) -> Self:
        if self.pretrain.recipe.steps:
            raise ValueError("snapshots are of epochs: state the pre-training's length in epochs, not in steps")
        if self.epoch > (epochs := self.pretrain.recipe.epochs):
            raise ValueError(f"epoch {self.epoch} lies beyond the pre-training; valid: 1 to {epochs}")
        return self

    @property
    def data(self) -> Data:
        """The data set that the pre-training is trained on."""
        return self.pretrain.data

    @property
    def image_size(self) -> int:
        """Side of the pre-training's input in pixels."""
        return self.pretrain.image_size

    @property
    def backbone(self) -> AnyBackbone:
        """The backbone that is pre-trained."""
        return self.pretrain.backbone


AnyStart = Pretrain | Scratch | Checkpoint | Snapshot
Start = Annotated[AnyStart, Field(discriminator="kind")]
S = TypeVar("S", bound=Spec)


def started(backbone: AnyBackbone, image_size: int, start: AnyStart) -> AnyBackbone:
    """The backbone as it is built for images of `image_size` px with the weights of a start.

    Another one than stated for a Swin V2 alone (`harness.spec.model.windows.with_scales_of`).
    """
    match start:
        case Scratch():
            return backbone
        case Checkpoint():
            theirs = start.backbone
        case Pretrain():
            theirs = start.built
        case Snapshot():
            theirs = start.pretrain.built
        case _:
            assert_never(start)
    return with_scales_of(backbone, image_size, theirs, start.image_size)


class Evaluated(Spec, Generic[S]):
    """Fields of every evaluation.

    start: the evaluated weights: of a run (computed once, before all evaluations that share it), Scratch or Checkpoint.
    data, image_size: of the evaluation; by default those that the start was trained on.
    crop: share of the image's side that the central test crop keeps; SimMIM and most recipes use 224 / 256. By default
        that of a start that has one.
    seed: seed index; the same index gives every cell the same initialisation and data order. Where nothing is drawn it
        tells replicates apart.
    assumed: as for Pretrain.
    """

    start: S
    data: Data = derived()
    image_size: Side = derived()
    crop: float = Field(default=0.875, gt=0, le=1)
    seed: int = Field(default=0, ge=0)
    assumed: tuple[str, ...] = ()

    unkeyed: ClassVar[frozenset[str]] = frozenset({"assumed"})

    needs_weights: ClassVar[bool] = True
    """False if nothing of the start but its spec is used, so that it need not be computed first."""
    needs: ClassVar[Truth] = "labels"
    truth: ClassVar[str] = "a label for every picture"
    """What its data have beside pictures, by name and in words."""
    folder: ClassVar[str] = "ImageFolder"
    """Name of the data spec for files of a user."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics in the result, the one that tables show first; empty if only a user's function knows."""
        return ("top1",)

    @property
    def shown_metric(self) -> str:
        """The metric that tables show."""
        return self.metrics[0]

    @property
    def forward_passes(self) -> int | None:
        """Forward passes of the encoder that a training step on one image costs; None where nothing is trained."""
        return None

    @property
    def tested_size(self) -> int:
        """Side of the test images in pixels."""
        return self.image_size

    @property
    def stated(self) -> AnyBackbone:
        """The backbone that is evaluated, as the spec states it."""
        start: Any = self.start
        found: AnyBackbone = start.backbone
        return found

    @property
    def encoder(self) -> AnyBackbone:
        """The backbone that is built and evaluated (`started`); of a fine-tuned start the one that it built."""
        start: Any = self.start
        return start.built if isinstance(start, FineTune) else started(self.stated, self.image_size, start)

    def current_revision(self) -> int:
        """Two more where a Swin V2 reads positions on the scale of its start's windows, which it did not once."""
        mended = self.needs_weights and not isinstance(self.start, FineTune) and self.encoder != self.stated
        return super().current_revision() + 2 * mended

    @property
    def model_pieces(self) -> dict[str, Any]:
        """Fields of the `Described` that this run computes with, but for those that its data gives."""
        return {"stage": "frozen", "backbone": self.encoder}

    @property
    def model_source(self) -> Spec:
        """The run whose model this one computes with: itself, but for analyses of a whole classifier."""
        return self

    @property
    def setting(self) -> tuple[object, ...]:
        """Values beside model, image size and data that determine how long the evaluation takes."""
        return ()

    @property
    def cost_key(self) -> tuple[object, ...]:
        """Equal for runs of one kind that take the same time: for an image if they train, else for all of the data."""
        data = () if self.forward_passes else (self.data.digest,)
        return (self.encoder.digest, self.image_size, *data, *self.setting)

    @model_validator(mode="after")
    def _data_with_truth(self) -> Self:
        if self.needs not in self.data.truths:
            raise ValueError(
                f"{self.data.title} does not come with {self.truth}; valid: Garments, Shapes or {self.folder}"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _from_start(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(start := values.get("start"), Spec):
            return values
        return values | {name: getattr(start, name) for name in _taken(type(start)) if values.get(name) is None}


@cache
def _taken(start: type[Spec]) -> tuple[str, ...]:
    """The fields of an evaluation that a start of this type gives, where they are not stated."""
    return tuple(name for name in ("data", "image_size", "crop") if name in start.model_fields or hasattr(start, name))


class FineTune(Evaluated[Start]):
    """All weights trained on labels; the result is the accuracy after the last epoch.

    recipe: optimiser, schedule, augmentation and precision.
    tested_epochs: after how many of the last epochs the accuracy is measured; None for all of them.
    pool: mean of the patch tokens with a new final norm (SimMIM's ViT), or the class token. Swin has the mean only.
    backbone: the fine-tuned model where it is built with other arguments than the start, such as a larger window for
        a larger image (SimMIM pre-trains Swin-B at 192 pixels with windows of 6 and fine-tunes it at 224 with 7); None
        for the start's own. A Swin V2 is built with the start's windows as `pretrained_window_sizes`, unless its args
        state others.
    loss: binary-cross-entropy asks for each class by itself; the mean over classes and images.
    label_threshold: with binary-cross-entropy, mixed or smoothed labels above it become 1 and all others 0 (0.2 in
        timm's RSB recipes); None leaves them.
    test_size: side of the test images in pixels where it is not `image_size`; for networks without a fixed input size,
        such as a ResNet, which RSB A3 trains at 160 and tests at 224.
    classifier_std: deviation of the new classifier's weights; None for 0.02, of a BEiT times its `head_init_scale`.
        MAE's released fine-tuning has 2e-5.
    """

    kind: Literal["finetune"] = "finetune"
    recipe: Recipe
    tested_epochs: PositiveInt | None = None
    pool: Literal["mean", "token"] = "mean"
    backbone: AnyBackbone | None = None
    loss: Literal["cross-entropy", "binary-cross-entropy"] = "cross-entropy"
    label_threshold: float | None = Field(default=None, gt=0, lt=1)
    test_size: PositiveInt | None = None
    classifier_std: PositiveFloat | None = None

    implicit: ClassVar[Mapping[str, object]] = {
        "backbone": None,
        "loss": "cross-entropy",
        "label_threshold": None,
        "test_size": None,
        "classifier_std": None,
    }

    @model_validator(mode="before")
    @classmethod
    def _one_test_size(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("test_size") is not None:
            size = values.get("image_size", getattr(values.get("start"), "image_size", None))
            if values["test_size"] == size:
                return {**values, "test_size": None}  # two ways to say the same share a key
        return values

    @property
    def stated(self) -> AnyBackbone:
        return self.backbone or self.start.backbone

    @property
    def built(self) -> AnyBackbone:
        """The backbone that is built and fine-tuned."""
        return self.encoder

    def current_revision(self) -> int:
        """One more where weight decay was taken from parameters of Swin V2, besides what all evaluations have."""
        return super().current_revision() + spares_swin_v2(self.built, self.recipe)

    @property
    def tested_size(self) -> int:
        return self.test_size or self.image_size

    @property
    def caption(self) -> str:
        """The shown metric in words."""
        return "fine-tuning accuracy after the last epoch"

    @property
    def model_pieces(self) -> dict[str, Any]:
        return {"stage": "finetune", "backbone": self.built, "pool": self.pool}

    @model_validator(mode="after")
    def _threshold_of_binary(self) -> Self:
        check_no_mask_token(self.recipe)
        check_whole_pictures(self.recipe)
        if self.label_threshold is not None and self.loss != "binary-cross-entropy":
            raise ValueError(f"label_threshold belongs to binary-cross-entropy, not to {self.loss}")
        return self

    @model_validator(mode="after")
    def _one_family(self) -> Self:
        check_family(self.start.backbone, self.backbone)
        return self

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("top1", "top5", "top1_median5", "top1_best", "loss")

    @property
    def forward_passes(self) -> int:
        return TRAINED_PASSES


def check_family(start: AnyBackbone, backbone: AnyBackbone | None) -> None:
    """Refuse a backbone that an evaluation builds where the start's weights would not fit it.

    Raises:
        ValueError: it differs in patch size, stride or variant.
    """
    for name in ("patch_size", "stride", "variant") if backbone is not None else ():
        ours, theirs = getattr(backbone, name), getattr(start, name)
        if ours != theirs:
            raise ValueError(f"backbone has {name} {ours}, the start {theirs}; its weights would not fit")


class LinearProbe(Evaluated[Start]):
    """A linear classifier on frozen features.

    recipe: of the classifier's training.
    block: number of the block whose output is used, counted from 1 over all stages; None for the encoder's output
        after its final norm. SimMIM probes block 8 of ViT-B (microsoft/SimMIM issue 14).
    tested_epochs: as for FineTune.
    batch_norm: normalise the features first by a batch norm without parameters, as MAE's probe does.
    pool: mean of the patch tokens, or the class token, as MAE's probe does.

    Its images are cropped anew in every epoch, so their features are too; those of Knn and LogisticProbe are kept.
    """

    kind: Literal["linear-probe"] = "linear-probe"
    recipe: Recipe
    tested_epochs: PositiveInt | None = None
    block: PositiveInt | None = None
    batch_norm: bool = True
    pool: Literal["mean", "token"] = "mean"

    implicit: ClassVar[Mapping[str, object]] = {"pool": "mean"}

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("top1", "top5", "top1_median5", "top1_best", "loss")

    @property
    def forward_passes(self) -> int:
        return 1  # the encoder is frozen

    @property
    def caption(self) -> str:
        """The shown metric in words."""
        return "linear-probe accuracy after the last epoch"

    @property
    def model_pieces(self) -> dict[str, Any]:
        return super().model_pieces | {"block": self.block}

    @property
    def setting(self) -> tuple[object, ...]:
        return (self.block,)

    @model_validator(mode="after")
    def _plain_recipe(self) -> Self:
        check_frozen(self.recipe)
        check_whole_pictures(self.recipe)
        return self


class LogisticProbe(Evaluated[Start]):
    """Multinomial logistic regression on frozen features, standardised by the training images' mean and deviation.

    Minimises c * (sum of cross-entropies) + |W|^2 / 2 over weights W and an unpenalised bias, as scikit-learn's
    LogisticRegression does: a convex problem, solved to its optimum. Nothing is drawn, so `seed` only tells replicates
    apart, and there is no learning rate to tune.

    c: inverse strength of the penalty; scikit-learn's C. block, pool: as for LinearProbe.
    """

    kind: Literal["logistic-probe"] = "logistic-probe"
    c: PositiveFloat = 1.0
    block: PositiveInt | None = None
    pool: Literal["mean", "token"] = "mean"

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("top1", "top5", "loss")

    @property
    def caption(self) -> str:
        """The shown metric in words."""
        return "accuracy of logistic regression on frozen features"

    @property
    def model_pieces(self) -> dict[str, Any]:
        return super().model_pieces | {"block": self.block}

    @property
    def setting(self) -> tuple[object, ...]:
        return (self.block, self.c)


class Knn(Evaluated[Start]):
    """Weighted k-nearest-neighbour accuracy on frozen features: votes weighted by exp(cosine / temperature).

    The definition is that of instance discrimination (Wu et al., CVPR 2018), as DINO and MAE comparisons use it.
    Nothing is drawn, so `seed` only tells replicates apart. Of classes with equally many votes the first wins.

    k: neighbours that vote; all training images where there are fewer. Several numbers, such as (20, 10, 100), cost one
        pass: the first is the metric `top1`, the others are in the result as `top1_k10` and `top1_k100`.
    temperature: of the votes.
    block: as for LinearProbe.
    """

    kind: Literal["knn"] = "knn"
    k: PositiveInt | tuple[PositiveInt, ...] = 20
    temperature: PositiveFloat = 0.07
    block: PositiveInt | None = None

    pool: ClassVar[Literal["mean"]] = "mean"
    """What is compared: the mean over all positions."""

    @field_validator("k")
    @classmethod
    def _several(cls, k: int | tuple[int, ...]) -> int | tuple[int, ...]:
        if isinstance(k, int):
            return k
        if not k or len(set(k)) < len(k):
            raise ValueError(f"k = {k}: one number of neighbours, or several different ones, such as (20, 10, 100)")
        return k if len(k) > 1 else k[0]  # two ways to say the same share a key

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("top1", *(f"top1_k{k}" for k in self.ks[1:]))

    @property
    def ks(self) -> tuple[int, ...]:
        """All numbers of neighbours, the one of the shown metric first."""
        return (self.k,) if isinstance(self.k, int) else self.k

    @property
    def caption(self) -> str:
        """The shown metric in words."""
        return f"accuracy of {self.ks[0]} nearest neighbours"

    @property
    def model_pieces(self) -> dict[str, Any]:
        return super().model_pieces | {"block": self.block}

    @property
    def setting(self) -> tuple[object, ...]:
        return (self.block,)

    def current_revision(self) -> int:
        """One more for settings whose votes used to overflow float32, so that the first class won."""
        overflowed = 1 / self.temperature + math.log(max(self.ks)) > LARGEST
        return super().current_revision() + overflowed


class CustomEvaluation(Evaluated[Start], UserFunction):
    """A user's own evaluation.

    function: `package.module:name`; called as `name(encoder, train, test, **params)` it returns a dict of metric names
        to floats, the metric `metric` among them. `encoder(images)` takes uint8 images [B, C, H, W] and gives float32
        feature maps [B, C', h, w]; `train` and `test` are pairs of uint8 images [N, C, H, W] and labels [N]. Those of a
        folder come resized and cropped as they are tested, to image_size.
        The global generators of Python, NumPy and torch are seeded by the run's seed.
    metric: name of the returned value that tables show.
    """

    kind: Literal["custom"] = "custom"
    metric: str

    revision: ClassVar[int] = 2
    """2: what the function draws from global generators is that of the run's seed; it was whatever came before."""

    @property
    def metrics(self) -> tuple[str, ...]:
        return ()

    @property
    def shown_metric(self) -> str:
        return self.metric

    @property
    def caption(self) -> str:
        """The shown metric in words."""
        return f"{self.metric} of {self.function}"

    @property
    def setting(self) -> tuple[object, ...]:
        return (self.function,)
