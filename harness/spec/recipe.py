"""Training recipe of one stage: optimiser, schedule, augmentation, precision."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)

from harness.spec.base import CUSTOM, SHIPPED, Spec, choices
from harness.spec.data.datasets import Truth
from harness.spec.user_code import UserFunction, whose

Unit = Annotated[float, Field(ge=0, le=1)]
POLICY = re.compile(
    r"rand(-(m|n|mmax|inc)\d+|-(mstd|p)\d+(\.\d+)?|-t[a-z]+)*"
    r"|augmix(-[mwdab]\d+|-mstd\d+(\.\d+)?)*|(original|v0)r?(-mstd\d+(\.\d+)?)?|3a"
)
"""Configuration strings that timm.data.auto_augment reads."""
NoDecay = Literal["usual", "simmim-swin", "simmim-vit", "mmpretrain", "mae", "usual-but-gate"]


class Cosine(Spec):
    """Half a cosine from the peak to `min_lr`.

    min_lr: floor, scaled with the batch like the peak.
    counted_from: `start` evaluates the cosine at t / total from the first step, so that the rate after warm-up is
        already below the peak, as the released SimMIM does; `warm-up` starts it at the peak, as mmpretrain does.
    epochs: length of the half cosine, after which the rate stays at `min_lr`; None for up to the last epoch. mmpretrain
        fine-tunes Swin-L with 100 of them after 20 of warm-up, and so ends above the floor.
    """

    kind: Literal["cosine"] = "cosine"
    min_lr: NonNegativeFloat = 0.0
    counted_from: Literal["start", "warm-up"] = "start"
    epochs: PositiveInt | None = None

    implicit: ClassVar[Mapping[str, object]] = {"epochs": None}


class MultiStep(Spec):
    """The peak, multiplied by `gamma` at the beginning of each of the epochs `milestones` (counted from 0).

    milestones: where that happens, in `unit`.
    gamma: factor at each of them.
    unit: what the milestones are; `steps` as detectron2 states them.
    """

    kind: Literal["multistep"] = "multistep"
    milestones: tuple[PositiveInt, ...]
    gamma: PositiveFloat = 0.1
    unit: Literal["epochs", "steps"] = "epochs"

    implicit: ClassVar[Mapping[str, object]] = {"unit": "epochs"}


class Poly(Spec):
    """The peak times (1 - done) ** `power`, down to `min_lr` at the end, as mmsegmentation trains.

    power: exponent.
    min_lr: floor, scaled with the batch like the peak: the rate is min_lr + (peak - min_lr) * (1 - done) ** power.
    counted_from: as for `Cosine`; mmsegmentation 1.x counts from the end of the warm-up, 0.x from the start.
    """

    kind: Literal["poly"] = "poly"
    power: PositiveFloat = 1.0
    min_lr: NonNegativeFloat = 0.0
    counted_from: Literal["start", "warm-up"] = "start"


Schedule = Annotated[Cosine | MultiStep | Poly, Field(discriminator="kind")]


class Average(Spec):
    """An exponential moving average of the weights, which is what is tested and published.

    After each step average = d * average + (1 - d) * weights. Buffers, such as a batch norm's statistics, are those of
    the weights. Behaves as openmixup/core/hooks/ema_hook.py of Westlake-AI/openmixup, whose warm-up is linear.

    decay: d after the warm-up.
    warmup_epochs: over these, d rises linearly from `warmup_ratio` * decay to decay.
    warmup_ratio: share of `decay` that the warm-up begins with.
    """

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.9999
    warmup_epochs: NonNegativeInt = 0
    warmup_ratio: Unit = 0.9

    def decay_at(self, step: int, steps_per_epoch: int) -> float:
        """d after a step counted from 0."""
        warmup = self.warmup_epochs * steps_per_epoch
        if step >= warmup:
            return self.decay
        return self.decay * (1 - (1 - step / warmup) * (1 - self.warmup_ratio))


class Augment(Spec):
    """Augmentation of training images.

    Crops and flips alone are done in batch on the device where the set fits there; `rand_augment`, `color_jitter` and
    `erasing` are timm's (`timm.data.create_transform`) and go through loader workers.

    crop_scale: range of the area of a random resized crop, as a share of the image; (1, 1) takes the whole image,
        and beside those three of timm its centre, within crop_ratio.
    crop_ratio: range of its aspect ratio.
    interpolation: of what is cut out to image_size.
    flip: probability of a horizontal flip.
    rand_augment: timm's configuration string, such as "rand-m9-mstd0.5-inc1"; empty for none.
    color_jitter: strength; timm ignores it beside rand_augment.
    erasing: probability of random erasing (mode `pixel`, one rectangle).
    mixup, cutmix: alpha of each; 0 for none. timm's Mixup in mode `batch`, probability 1, switching with 0.5. One
        ratio, and one choice of the two, is drawn for the whole batch, where code that trains on many GPUs draws on
        each.
    smoothing: label smoothing.
    repeats: times that each image follows itself, cropped anew each time (repeated augmentation, as timm's
        RepeatAugSampler orders one process's images). An epoch has the same length and 1 / repeats of the images.
    scale: of scenes with masks alone. Range of a factor: the picture is resized so that its shorter side (for objects,
        its longer one) is image_size times it, and a square of image_size is cut out at random, filled up where the
        picture is smaller. It takes the place of crop_scale and crop_ratio. mmsegmentation has (0.5, 2.0), ViTDet
        (0.1, 2.0).
    class_limit: of maps of classes alone, beside `scale`: the first of ten such squares is taken of which no class
        fills this share or more. mmsegmentation has 0.75.
    """

    crop_scale: tuple[float, float] = (0.67, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    flip: Unit = 0.5
    rand_augment: str = ""
    color_jitter: NonNegativeFloat = 0.0
    erasing: Unit = 0.0
    mixup: NonNegativeFloat = 0.0
    cutmix: NonNegativeFloat = 0.0
    smoothing: Unit = 0.0
    repeats: PositiveInt = 1
    scale: tuple[PositiveFloat, PositiveFloat] | None = None
    class_limit: Annotated[float, Field(gt=0, le=1)] | None = None

    implicit: ClassVar[Mapping[str, object]] = {"repeats": 1, "scale": None, "class_limit": None}

    @model_validator(mode="before")
    @classmethod
    def _one_crop(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("scale") is not None:
            unused = cls._beside_scale()
            if stated := [name for name, one in unused.items() if values.get(name, one) not in (one, list(one))]:
                raise ValueError(f"{' and '.join(stated)} would do nothing beside scale; leave it out")
            return {**values, **unused}
        return values

    @classmethod
    def _beside_scale(cls) -> dict[str, Any]:
        """What a scale takes the place of: it has one value, so that the same augmentation has one key."""
        return {"crop_scale": (1.0, 1.0), "crop_ratio": cls.model_fields["crop_ratio"].default}

    def replace(self, **changes: Any) -> Self:
        """A validated copy; a scale takes the place of the crops."""
        if changes.get("scale") is not None:
            changes = {**self._beside_scale(), **changes}
        return super().replace(**changes)

    @property
    def mixes(self) -> bool:
        """True if two images of a batch are mixed, and their labels."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def needs_loader(self) -> bool:
        """True if images need timm's per-image transforms rather than batched crops and flips."""
        return bool(self.rand_augment or self.color_jitter or self.erasing)

    @model_validator(mode="after")
    def _policy(self) -> Self:
        if self.rand_augment and not POLICY.fullmatch(self.rand_augment):
            raise ValueError(
                f"rand_augment {self.rand_augment!r:.80} is none of timm's, such as 'rand-m9-mstd0.5-inc1': "
                "rand with m, n, mmax, inc (whole), mstd, p (numbers) or t (a name) behind hyphens, "
                "augmix, or a policy of AutoAugment (original, originalr, v0, v0r, 3a)"
            )
        return self

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            if not 0 < low <= high or (name == "crop_scale" and high > 1):
                raise ValueError(f"{name} should be (low, high) with 0 < low <= high, area at most 1")
        if self.scale is not None and self.scale[0] > self.scale[1]:
            raise ValueError("scale should be (low, high) with 0 < low <= high")
        if self.class_limit is not None and self.scale is None:
            raise ValueError("class_limit chooses among the squares that scale cuts out; state scale too")
        return self


class CustomAugment(UserFunction, Augment):
    """Augmentation with a step of a user's own behind crop and flip, and before mixing.

    function: `package.module:name`; called as `name(images, random, step, steps, **params)` with float32 images
        [B, C, S, S], values in [0, 1], it returns images of the same shape and dtype, which are then normalised.
        `random(*shape)` gives float32 uniform numbers in [0, 1) of shape [B, *shape], new ones at every call, that
        depend on the seed, the step and the image's place in the batch only. `step` is int64 [B, 1, 1, 1], each image's
        own, counted from 0 of `steps`. A batch may have any length, and row i may depend on row i alone.
    The other fields are those of `Augment`; crop_scale=(1, 1) with flip=0 hands over whole images.
    """


class CustomOptimiser(UserFunction):
    """A user's own optimiser.

    function: `package.module:name`; called as `name(groups, **params)` it returns a `torch.optim.Optimizer` of these
        parameter groups: dicts of params, lr, weight_decay and scale. The learning rate `lr` of each group is set
        before each step, to the recipe's schedule for its `scale`; so groups may be split, but each part keeps `scale`.
        Its state has to be tensors and plain values, as checkpoints hold nothing else.
    """


AnyAugment = Annotated[Annotated[Augment, Tag(SHIPPED)] | Annotated[CustomAugment, Tag(CUSTOM)], Discriminator(whose)]
AnyOptimiser = Annotated[
    Annotated[Literal["adamw", "lamb", "lars", "sgd"], Tag(SHIPPED)] | Annotated[CustomOptimiser, Tag(CUSTOM)],
    Discriminator(whose),
]

SETTINGS: Mapping[str, tuple[str, ...]] = {
    "betas": ("adamw", "lamb"),
    "eps": ("adamw", "lamb"),
    "momentum": ("lars", "sgd"),
    "nesterov": ("sgd",),
}
"""Fields of a recipe that some optimisers alone read, and their names."""


class Recipe(Spec):
    """One stage of training.

    epochs: length in passes over the training images; the last incomplete batch of a pass is dropped.
    steps: length in batches, stated instead of `epochs`, which is 0 then. `replace` of one of them drops the other.
    batch_size: effective batch in images, over all devices and accumulation steps.
    lr: peak learning rate for `lr_batch` images; it is used times batch_size / lr_batch, and so are the schedule's
        min_lr and warmup_lr.
    lr_batch: the batch that `lr` is stated for, in images; None uses `lr` as it is.
    optimizer: a name, or an optimiser of your own. adamw and sgd are torch's; lamb and lars are timm's, without
        their own clipping of gradients. lars leaves the rate of vectors and biases as it is, as MAE's
        linear probe does.
    betas, eps: of adamw and lamb. momentum: of lars and sgd, 0.9 by default there.
    nesterov: of sgd; False for plain momentum.
    warmup_epochs, warmup_lr: linear warm-up from warmup_lr to the peak.
    warmup_steps: length of the warm-up in batches, stated instead of `warmup_epochs`.
    schedule: of the learning rate after the warm-up.
    weight_decay: strength of the decay, as the optimiser applies it.
    no_decay: parameters without weight decay.
        `usual`: vectors, biases, tokens, position embeddings and relative position tables; of Swin V2 also the
            temperatures of its attention and the network of its positions, instead of tables. The released SimMIM
            fine-tunes Swin so.
        `simmim-swin`: as `usual`, but tables decay, and what Swin V2 has instead. The released SimMIM pre-trains Swin
            so: the keyword that should find them has a prefix that their names lack.
        `simmim-vit`: as `usual`, but tables and the mask token decay. The released SimMIM trains ViT so in both stages.
        `mae`: vectors and biases; tokens decay. The released MAE pre-trains so, and fine-tunes as `usual`.
        `mmpretrain`: norms, biases, position embeddings and tables, by name; all else decays, the mask token too.
        `usual-but-gate`: as `usual`, but the gate of a mask token decays. The released A2MIM pre-trains CNNs for 300
            epochs so, where the option that spares it is missing.
    token_lr, gate_lr: factors on the rates of the mask token and of its gate. Pre-training only.
    clip: largest gradient norm; None for no clipping.
    drop_path: stochastic depth, rising linearly to this rate in the last block.
    layer_decay: each layer's rate is the next deeper layer's times this; None for equal rates.
    precision: arithmetic of the forward and backward pass. fp16 scales the loss. A device that lacks it is refused.
    augment: augmentation of the training images.
    average: moving average that is tested and published instead of the weights; None for the weights. Fine-tuning only.
    batch_norm_group: images over which batch norms take their statistics in training: neighbours in the batch, so many
        at a time, however processes and micro-batches cut it. None for the whole batch. Refused for a model without
        batch norm.
    """

    epochs: NonNegativeInt = 0
    batch_size: PositiveInt
    lr: PositiveFloat
    lr_batch: PositiveInt | None = 512
    betas: tuple[Unit, Unit] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    optimizer: AnyOptimiser = "adamw"
    momentum: Unit | None = None
    nesterov: bool = True
    weight_decay: NonNegativeFloat = 0.05
    no_decay: NoDecay = "usual"
    warmup_epochs: NonNegativeInt = 0
    warmup_lr: NonNegativeFloat = 0.0
    steps: PositiveInt | None = None
    warmup_steps: NonNegativeInt = 0
    schedule: Schedule = Cosine()
    clip: PositiveFloat | None = 5.0
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    token_lr: PositiveFloat = 1.0
    gate_lr: PositiveFloat = 1.0
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    augment: AnyAugment = Augment()
    average: Average | None = None
    batch_norm_group: PositiveInt | None = None

    implicit: ClassVar[Mapping[str, object]] = {
        "no_decay": "usual",
        "batch_norm_group": None,
        "optimizer": "adamw",
        "momentum": None,
        "average": None,
        "token_lr": 1.0,
        "gate_lr": 1.0,
        "nesterov": True,
        "steps": None,
        "warmup_steps": 0,
    }

    @model_validator(mode="before")
    @classmethod
    def _whole_batch(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("batch_norm_group") == values.get("batch_size"):
            return {**values, "batch_norm_group": None}  # two ways to say the same share a key
        return values

    @model_validator(mode="before")
    @classmethod
    def _momentum(cls, values: Any) -> Any:
        reads = isinstance(values, dict) and values.get("optimizer", "adamw") in SETTINGS["momentum"]
        return {**values, "momentum": 0.9} if reads and values.get("momentum") is None else values

    def model_post_init(self, context: Any, /) -> None:  # a validator is called again for each spec that holds this one
        self._lengths()
        self._settings()
        if self.augment.mixes and self.batch_size % 2:
            raise ValueError(f"Mixup and CutMix need an even batch_size, not {self.batch_size}")
        if self.batch_norm_group is not None and self.batch_size % self.batch_norm_group:
            valid = choices(self.batch_size)
            raise ValueError(f"batch_norm_group {self.batch_norm_group} does not divide batch_size; {valid}")

    def _settings(self) -> None:
        unread = _unread(self.optimizer)
        if not (stated := [name for name, usual in unread.items() if getattr(self, name) != usual]):
            return
        if whose(self.optimizer) == CUSTOM:
            raise ValueError(f"{' and '.join(stated)} would not reach your own optimiser; set them in its params")
        name = stated[0]
        raise ValueError(f"{name} belongs to {' and '.join(SETTINGS[name])}, not to {self.optimizer}; leave it out")

    def _lengths(self) -> None:
        if bool(self.epochs) == bool(self.steps):
            found = f"epochs {self.epochs} and steps {self.steps}" if self.steps else "neither epochs nor steps"
            raise ValueError(f"state the length once, in epochs or in steps; this recipe has {found}")
        if self.warmup_epochs and self.warmup_steps:
            both = f"warmup_epochs {self.warmup_epochs} and warmup_steps {self.warmup_steps}"
            raise ValueError(f"state the warm-up once, in epochs or in steps; this recipe has {both}")
        for unit, warmup, length in (
            ("epochs", self.warmup_epochs, self.epochs),
            ("steps", self.warmup_steps, self.steps or 0),
        ):
            if length and warmup >= length:
                raise ValueError(f"warmup_{unit} {warmup} leaves nothing of {length} {unit}")

    def replace(self, **changes: Any) -> Self:
        """A validated copy; a new length in one unit takes the place of one in the other.

        What a new optimiser does not read is left out.
        """
        if "optimizer" in changes:
            changes = {**_unread(changes["optimizer"]), **changes}
        for names in (("epochs", "steps"), ("warmup_epochs", "warmup_steps")):
            if len(stated := [name for name in names if changes.get(name)]) == 1:
                (other,) = {*names} - {*stated}
                changes = {other: type(self).model_fields[other].default, **changes}
        return super().replace(**changes)

    def total_steps(self, steps_per_epoch: int) -> int:
        """Steps of the whole training."""
        return self.steps or self.epochs * steps_per_epoch

    def steps_of_warmup(self, steps_per_epoch: int) -> int:
        """Steps of the warm-up."""
        return self.warmup_steps or self.warmup_epochs * steps_per_epoch

    def scaled(self, lr: float) -> float:
        """A learning rate of this recipe after the batch scaling rule."""
        return lr if self.lr_batch is None else lr * self.batch_size / self.lr_batch


def _unread(optimizer: object) -> dict[str, object]:
    """The `SETTINGS` that an optimiser does not read, and their defaults."""
    fields = Recipe.__pydantic_fields__
    return {name: fields[name].default for name, readers in SETTINGS.items() if optimizer not in readers}


def check_whole_pictures(recipe: Recipe) -> None:
    """Refuse the recipe of a stage that sees pictures without masks if it has settings of scenes.

    Raises:
        ValueError: it has.
    """
    if recipe.augment.scale is not None:
        raise ValueError("recipe.augment.scale belongs to Segment and Detect; use crop_scale here")


def check_scenes(recipe: Recipe, truth: Truth) -> None:
    """Refuse an augmentation that masks cannot follow, or that does nothing to them.

    Raises:
        ValueError: the recipe has such a setting.
    """
    augment, usual = recipe.augment, Augment()
    names = ("rand_augment", "color_jitter", "erasing", "mixup", "cutmix", "smoothing")
    if stated := [name for name in names if getattr(augment, name) != getattr(usual, name)]:
        raise ValueError(f"recipe.augment has {', '.join(stated)}; scenes are cropped, scaled and flipped only")
    if whose(augment) == CUSTOM:
        raise ValueError("recipe.augment is a CustomAugment, which masks cannot follow; use Augment")
    if truth == "objects" and augment.class_limit is not None:
        raise ValueError("recipe.augment.class_limit is of maps of classes; leave it out for objects")


def check_no_mask_token(recipe: Recipe) -> None:
    """Refuse an evaluation's recipe that has learning rates of a mask token.

    Raises:
        ValueError: it has.
    """
    if (recipe.token_lr, recipe.gate_lr) != (1.0, 1.0):
        raise ValueError("recipe.token_lr and gate_lr belong to pre-training: an evaluation has no mask token")


def check_frozen(recipe: Recipe) -> None:
    """Refuse settings that do nothing to a frozen encoder.

    Raises:
        ValueError: the recipe has such a setting.
    """
    check_no_mask_token(recipe)
    if recipe.layer_decay is not None or recipe.drop_path:
        raise ValueError("layer_decay and drop_path do nothing to a frozen encoder; leave them out")
    if recipe.average is not None:
        raise ValueError("recipe.average belongs to fine-tuning; leave it out of a probe")
