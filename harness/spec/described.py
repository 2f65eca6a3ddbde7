"""What a run computes with, as far as its cost goes: runs that share it are described once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import PositiveInt

from harness.spec.backbone import Backbone
from harness.spec.base import Spec
from harness.spec.corruption import AtInput, Site
from harness.spec.heads import Head
from harness.spec.keys import Run
from harness.spec.run import Pretrain
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
    """The model that a run computes with."""
    source = run if isinstance(run, Pretrain) else run.model_source
    assert isinstance(source, Run)
    pieces = source.model_pieces
    classes = source.data.known_classes if pieces["stage"] == "finetune" else None
    return Described(image_size=source.image_size, channels=source.data.channels, num_classes=classes, **pieces)


def distinct(runs: dict[str, Run]) -> list[Described]:
    """The models of some runs, each once, in the order of the runs that first need them."""
    # Told apart by digests that specs keep: building and hashing each model takes seconds for ten thousand runs.
    seen: dict[tuple[object, ...], Run] = {}
    for run in runs.values():
        source = run if isinstance(run, Pretrain) else run.model_source
        assert isinstance(source, Run)
        pieces = (piece.digest if isinstance(piece, Spec) else piece for piece in source.model_pieces.values())
        seen.setdefault((source.image_size, source.data.digest, *pieces), run)
    return list({found.digest: found for found in map(described, seen.values())}.values())
