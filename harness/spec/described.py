"""What a run computes with, as far as its cost goes: runs that share it are described once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, assert_never

from pydantic import PositiveInt

from harness.spec.analyses import Fourier, Interactions, Occlusion, RgbStatistics
from harness.spec.backbone import Backbone
from harness.spec.base import Spec
from harness.spec.corruption import AtInput, Site
from harness.spec.data import number_of_classes
from harness.spec.heads import Head
from harness.spec.keys import Evaluation, Run
from harness.spec.masking import CustomMask
from harness.spec.run import CustomEvaluation, FineTune, Knn, LinearProbe, Pretrain
from harness.spec.targets import Target


class Described(Spec):
    """A model at an image size.

    stage: pretrain (encoder, mask token, prediction head), finetune (classifier) or frozen (encoder).
    image_size: side in pixels. channels: of the image.
    head, target, mask_token: of a pre-training. site, gated: where its mask token comes in, and whether it has a gate.
    visible: tokens that its encoder computes; None for all of them.
    num_classes, pool: of a fine-tuning; None classes where the data set has to be read to know, which leaves the
        classifier out.
    block: last block that a frozen encoder computes; None for all and the final norm.
    """

    stage: Literal["pretrain", "finetune", "frozen"]
    backbone: Backbone
    image_size: PositiveInt
    channels: PositiveInt
    head: Head | None = None
    target: Target | None = None
    mask_token: bool = False
    site: Site = AtInput()
    gated: bool = False
    visible: PositiveInt | None = None
    num_classes: PositiveInt | None = None
    pool: Literal["", "mean", "token"] = ""
    block: PositiveInt | None = None

    implicit: ClassVar[Mapping[str, object]] = {"site": AtInput(), "gated": False, "visible": None}

    @property
    def text(self) -> str:
        """The model in a few words."""
        head = f", {self.head.kind} head" if self.head is not None else ""
        block = f", up to block {self.block}" if self.block else ""
        return f"{self.backbone.name} at {self.image_size} px, {self.stage}{head}{block}"


def described(run: Run) -> Described:
    """What a run computes with."""
    match run:
        case Pretrain():
            return Described(
                stage="pretrain",
                backbone=run.backbone,
                image_size=run.image_size,
                channels=run.data.channels,
                head=run.head,
                target=run.target,
                mask_token=run.corruption.token not in ("drop", "none"),
                site=run.corruption.site,
                gated=run.corruption.gate is not None,
                visible=_visible(run),
            )
        case FineTune():
            return Described(
                stage="finetune",
                backbone=run.built,
                image_size=run.image_size,
                channels=run.data.channels,
                num_classes=number_of_classes(run.data),
                pool=run.pool,
            )
        case LinearProbe() | Knn():
            return _frozen(run, run.start.backbone, run.block)
        case CustomEvaluation():
            return _frozen(run, run.start.backbone)
        case Interactions() | Occlusion():
            return described(run.start)
        case Fourier() | RgbStatistics():
            return _frozen(run, run.encoder)
        case _:
            assert_never(run)


def _visible(run: Pretrain) -> int | None:
    """How many tokens the encoder computes; None for all, and where a user's own mask decides."""
    if run.corruption.token != "drop" or isinstance(run.mask, CustomMask):
        return None
    unit = run.mask.size // run.backbone.patch_size
    places = (run.image_size // run.backbone.patch_size) ** 2
    return places - run.mask.hidden_units(run.image_size) * unit**2


def _frozen(run: Evaluation, backbone: Backbone, block: int | None = None) -> Described:
    return Described(
        stage="frozen",
        backbone=backbone,
        image_size=run.image_size,
        channels=run.data.channels,
        block=block,
    )


def distinct(runs: dict[str, Run]) -> list[Described]:
    """The models of some runs, each once, in the order of the runs that first need them."""
    seen: dict[tuple[object, ...], Run] = {}
    for run in runs.values():  # digests are kept, so that ten thousand runs cost little
        seen.setdefault(_parts(run), run)
    return list({found.digest: found for found in map(described, seen.values())}.values())


def _parts(run: Run) -> tuple[object, ...]:
    common = (run.kind, run.image_size, run.data.digest)
    match run:
        case Pretrain():
            parts = (run.backbone, run.head, run.target, run.corruption)
            return (*common, *(part.digest for part in parts), _visible(run))
        case FineTune():
            return (*common, run.built.digest, run.pool)
        case LinearProbe() | Knn():
            return (*common, run.start.backbone.digest, run.block)
        case CustomEvaluation():
            return (*common, run.start.backbone.digest)
        case Interactions() | Occlusion() | Fourier() | RgbStatistics():
            return (*common, run.start.digest)
        case _:
            assert_never(run)
