"""Models as far as their cost goes: runs that compute with the same one share its counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import PositiveInt

from harness.spec.base import Spec
from harness.spec.dense.detect import AnyPyramid, BoxHead
from harness.spec.dense.segment import SegmentHead
from harness.spec.keys import Run
from harness.spec.model.backbone import AnyBackbone
from harness.spec.model.corruption import AtInput, Site
from harness.spec.model.heads import Head
from harness.spec.objective.targets import Target
from harness.spec.run import Pretrain


class Described(Spec):  # the type's name is in the digests that name cached counts
    """A model at an image size.

    stage: pretrain (encoder, mask token, prediction head), finetune (classifier), segment (encoder, head on its maps),
        detect (encoder, pyramid, heads) or frozen (encoder).
    image_size: side in pixels. channels: of the image.
    head, target, mask_token: of a pre-training. site, gated: site of its mask token, and True if the token has a gate.
    visible: number of tokens that its encoder computes; None for all of them.
    num_classes, pool: of a fine-tuning. Without num_classes, where the data set has to be read to know, the classifier
        is not counted; likewise what a detection predicts of each class.
    segment_head, taps: of a segmentation. pyramid, anchor, rois, masks, box_head: of a detection.
    block: last block that a frozen encoder computes; None for all blocks and the final norm.
    """

    stage: Literal["pretrain", "finetune", "segment", "detect", "frozen"]
    backbone: AnyBackbone
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
    segment_head: SegmentHead | None = None
    taps: tuple[PositiveInt, ...] | None = None
    pyramid: AnyPyramid | None = None
    anchor: float = 8.0
    rois: int = 512
    masks: bool = False
    box_head: BoxHead = "2fc"

    implicit: ClassVar[Mapping[str, object]] = {
        "site": AtInput(), "gated": False, "visible": None, "segment_head": None, "taps": None, "pyramid": None,
        "anchor": 8.0, "rois": 512, "masks": False, "box_head": "2fc",
    }  # fmt: skip

    @property
    def text(self) -> str:
        """The model in a few words."""
        kind = self.head or self.segment_head
        head = f", {kind.kind} head" if kind is not None else ""
        block = f", up to block {self.block}" if self.block else ""
        return f"{self.backbone.name} at {self.image_size} px, {self.stage}{head}{block}"


def costed_model(run: Run) -> Described:
    """The model that a run computes with."""
    source = _source(run)
    pieces = source.model_pieces
    data = source.data
    known = {"finetune": data.known_classes, "detect": data.known_classes, "segment": data.known_segments}
    classes = known.get(pieces["stage"])
    return Described(image_size=source.image_size, channels=data.channels, num_classes=classes, **pieces)


def costed_models(runs: dict[str, Run]) -> list[Described]:
    """The distinct models of some runs, in the order of the runs that first need them."""
    # Runs are compared by digests that specs keep: building and hashing a model for each of 10,000 runs takes seconds.
    seen: dict[tuple[object, ...], Run] = {}
    for run in runs.values():
        source = _source(run)
        pieces = (piece.digest if isinstance(piece, Spec) else piece for piece in source.model_pieces.values())
        seen.setdefault((source.image_size, source.data.digest, *pieces), run)
    return list({model.digest: model for model in map(costed_model, seen.values())}.values())


def _source(run: Run) -> Run:
    source = run if isinstance(run, Pretrain) else run.model_source
    assert isinstance(source, Run)
    return source
