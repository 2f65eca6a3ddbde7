"""Under what a number was measured: what has to be equal before two numbers may be subtracted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Literal

from harness.papers.simmim_recipes import Variant, simmim_finetune
from harness.spec import Backbone, CustomEvaluation, Evaluation, FineTune, LinearProbe, pretraining


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How an accuracy was measured; None where that is not known.

    Attributes:
        data: what is fine-tuned and tested on.
        backbone: timm's name of the model, with the arguments it is built with.
        pretrain_size, image_size: sides of the network's input in pixels, in pre-training and in the evaluation.
        pretrain_epochs, finetune_epochs: lengths of the two stages, the second of an evaluation of any kind. 0: there
            is no such stage.
        evaluation: such as `finetune` or `linear-probe`.
        epoch: which epoch's accuracy is told: `last` or `best`.
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
        """What is known, by name in words."""
        return {_words(name): str(value) for name, value in asdict(self).items() if value is not None}

    def differing(self, other: Protocol) -> dict[str, tuple[str, str]]:
        """Items that both know and that differ, by name in words: this one's and the other's."""
        mine, theirs = self.items(), other.items()
        return {name: (mine[name], theirs[name]) for name in mine if name in theirs and mine[name] != theirs[name]}

    def unknown(self) -> tuple[str, ...]:
        """Names of the items that are not known."""
        return tuple(_words(item.name) for item in fields(self) if getattr(self, item.name) is None)


UNKNOWN = Protocol()


def _words(name: str) -> str:
    return name.replace("_", " ")


def protocol_of(run: Evaluation) -> Protocol:
    """How an evaluation of ours is measured: its last epoch counts."""
    first = pretraining(run)
    limited = run.data.train_images
    return Protocol(
        data=_data_name(run) + ("" if limited is None else f" ({limited} images)"),
        backbone=_backbone_name(_built(run)),
        pretrain_size=first.image_size if first else 0,
        image_size=run.image_size,
        pretrain_epochs=first.recipe.epochs if first else 0,
        finetune_epochs=run.recipe.epochs if isinstance(run, FineTune | LinearProbe) else 0,
        evaluation=run.function if isinstance(run, CustomEvaluation) else run.kind,
        epoch="last" if isinstance(run, FineTune | LinearProbe) else None,
    )


def _data_name(run: Evaluation) -> str:
    return str(getattr(run.data, "name", getattr(run.data, "function", run.data.kind)))


def _built(run: Evaluation) -> Backbone | None:
    match run:
        case FineTune():
            return run.built
        case _:
            return getattr(run.start, "backbone", None)


def _backbone_name(backbone: Backbone | None) -> str | None:
    if backbone is None:
        return None
    args = ", ".join(f"{name}={value}" for name, value in backbone.args)
    return backbone.name + (f" ({args})" if args else "")


_MODELS: dict[str, Literal["swin-b", "swin-l", "vit-b"]] = {"Swin-B": "swin-b", "Swin-L": "swin-l", "ViT-B": "vit-b"}
_ABLATION = {"model": "Swin-B", "pretrain_epochs": "100", "pretrain_size": "192", "finetune_size": "192"}


def published_protocol(table: str, record: Mapping[str, str]) -> Protocol:
    """What is known of how a row of a shipped table was measured."""
    match table.split("_")[0]:
        case "simmim" | "mmpretrain":
            return simmim_protocol(table, record)
        case "downstream":  # other tasks: what they share with a classification is the pre-training alone
            epochs = int(record["pretrain_epochs"]) if record["pretrain_epochs"] else None
            return Protocol(data=record["dataset"].lower(), pretrain_epochs=epochs, evaluation=record["task"])
        case "mae":  # ViT-L, 800 epochs, fine-tuned for 50: the paper's section 4 and appendix A.1
            return Protocol(
                data="imagenet",
                backbone="vit_large_patch16_224",
                pretrain_size=224,
                image_size=224,
                pretrain_epochs=800,
                finetune_epochs=50,
                evaluation="finetune",
            )
        case _:
            return UNKNOWN


def simmim_protocol(table: str, record: Mapping[str, str]) -> Protocol:
    """The protocol of a row of SimMIM's or mmpretrain's tables. Which epoch's accuracy they print is not said."""
    if table == "simmim_table6_vit_b":
        if record["method"] != "SimMIM":  # others' recipes
            return Protocol(data="imagenet", image_size=int(record["input_size"]), evaluation="finetune")
        record = {"model": "ViT-B", "pretrain_epochs": "800", "pretrain_size": "224", "finetune_size": "224"}
    elif table not in ("simmim_table7_scaling", "mmpretrain_simmim"):
        record = _ABLATION
    epochs, sizes = int(record["pretrain_epochs"]), (int(record["pretrain_size"]), int(record["finetune_size"]))
    if record["model"] not in _MODELS:
        return Protocol(
            data="imagenet",
            backbone=record["model"],
            pretrain_size=sizes[0],
            image_size=sizes[1],
            pretrain_epochs=epochs,
            evaluation="finetune",
        )
    variant: Variant = "mmpretrain" if table.startswith("mmpretrain") else "official"
    run = simmim_finetune(_MODELS[record["model"]], epochs=epochs, image_size=sizes[1], variant=variant)
    return replace(protocol_of(run), epoch=None)
