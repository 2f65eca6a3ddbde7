"""Protocols: the conditions of a measurement, which have to be equal before two numbers may be subtracted."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from harness.spec import Backbone, CustomEvaluation, Detect, Evaluation, Segment, Slide, UPerNet, Whole, pretraining
from harness.spec.keys import Training


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Conditions of a measured accuracy; None where one is not known.

    Attributes:
        data: the set of fine-tuning and tests.
        backbone: timm's name of the model, with the arguments it is built with.
        pretrain_size, image_size: sides of the network's input in pixels, in pre-training and in the evaluation.
        pretrain_epochs, finetune_epochs: lengths of the two stages, the second of an evaluation of any kind. 0: there
            is no such stage.
        evaluation: such as `finetune` or `linear-probe`.
        epoch: the epoch whose accuracy is reported: `last` or `best`.
    """

    data: str | None = None
    backbone: str | None = None
    pretrain_size: int | None = None
    image_size: int | None = None
    pretrain_epochs: int | None = None
    finetune_epochs: int | None = None
    evaluation: str | None = None
    epoch: str | None = None

    def items(self) -> dict[str, str]:
        """Known conditions, by name in words."""
        return {_words(name): str(value) for name, value in asdict(self).items() if value is not None}

    def differing(self, other: Protocol) -> dict[str, tuple[str, str]]:
        """Items that differ, by name in words: values of this protocol and of the other. Both have to know an item."""
        mine, theirs = self.items(), other.items()
        return {name: (mine[name], theirs[name]) for name in mine if name in theirs and mine[name] != theirs[name]}

    def of_linear_probe(self) -> Protocol:
        """The protocol of a linear probe of the same encoder, whose length is another."""
        return replace(self, finetune_epochs=None, evaluation="linear-probe")

    def unknown(self) -> tuple[str, ...]:
        """Names of the items that are not known."""
        return tuple(_words(item.name) for item in fields(self) if getattr(self, item.name) is None)


@dataclass(frozen=True, kw_only=True)
class DenseProtocol(Protocol):
    """Conditions of a measured segmentation or detection; `finetune_epochs` where its length is stated so.

    Attributes:
        head: what predicts, such as `UPerNet 768`.
        steps: length in steps, where it is stated so.
        rate: the learning rate of a batch.
        test: how test pictures are shown: `whole`, in windows, or at several scales.
    """

    head: str | None = None
    steps: int | None = None
    rate: str | None = None
    test: str | None = None


UNKNOWN = Protocol()
"""Protocol of which nothing is known, so that it differs from none."""


def _words(name: str) -> str:
    return name.replace("_", " ")


def protocol_of(run: Evaluation) -> Protocol:
    """Protocol of an evaluation of this package, which reports the accuracy after the last epoch."""
    if isinstance(run, Segment | Detect):
        return DenseProtocol(**_stages(run), **_dense(run))
    return Protocol(
        **_stages(run),
        evaluation=run.function if isinstance(run, CustomEvaluation) else run.kind,
        # A probe without training has no epochs to choose among.
        epoch="last" if isinstance(run, Training) else None,
    )


def _stages(run: Evaluation) -> dict[str, Any]:
    """Data, models and lengths of the two stages."""
    first = pretraining(run)
    limited = run.data.train_images
    return {
        # A subset of the training images is another measurement than the whole set.
        "data": run.data.title + ("" if limited is None else f" ({limited} images)"),
        "backbone": _backbone_name(getattr(run, "built", None) or getattr(run.start, "backbone", None)),
        "pretrain_size": first.image_size if first else 0,
        "image_size": run.image_size,
        # A length in steps is none that papers of classification state.
        "pretrain_epochs": (first.recipe.epochs or None) if first else 0,
        "finetune_epochs": (run.recipe.epochs or None) if isinstance(run, Training) else 0,
    }


def _dense(run: Segment | Detect) -> dict[str, Any]:
    frozen = " of a frozen encoder" * run.frozen
    shared = {
        "evaluation": run.kind + frozen,
        "steps": run.recipe.steps,
        "rate": f"{run.recipe.scaled(run.recipe.lr):g}",
    }
    if isinstance(run, Segment):
        head = f"UPerNet {run.head.width}" if isinstance(run.head, UPerNet) else "linear"
        return {**shared, "head": head, "test": _tested(run.test)}
    pyramid = "simple pyramid" if run.pyramid.kind == "simple" else "FPN"
    return {**shared, "head": f"Mask R-CNN {pyramid}" + " 4conv1fc LN" * (run.box_head == "4conv1fc")}


def _tested(test: Whole | Slide) -> str:
    if len(test.scales) > 1:  # papers say no more than this
        return "several scales"
    windows = f"windows at a stride of {test.stride}" if isinstance(test, Slide) else "whole"
    return f"{windows}, {test.text}" if test.text else windows


def _backbone_name(backbone: Backbone | None) -> str | None:
    if backbone is None:
        return None
    # With its arguments: a Swin with other windows is another model.
    args = ", ".join(f"{name}={value}" for name, value in backbone.args)
    return backbone.name + (f" ({args})" if args else "")
