"""Protocols of SimMIM's published tables, and of mmpretrain's models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from harness.papers.protocol import Protocol, protocol_of
from harness.papers.simmim.recipes import Variant, simmim_finetune

_MODELS: dict[str, Literal["swin-b", "swin-l", "vit-b"]] = {"Swin-B": "swin-b", "Swin-L": "swin-l", "ViT-B": "vit-b"}
_ABLATION = {"model": "Swin-B", "pretrain_epochs": "100", "pretrain_size": "192", "finetune_size": "192"}
_VIT_B = {"model": "ViT-B", "pretrain_epochs": "800", "pretrain_size": "224", "finetune_size": "224"}


def published_protocol(table: str, column: str, record: Mapping[str, str]) -> Protocol:
    """Protocol of a value of SimMIM's or mmpretrain's tables. Which epoch's accuracy they print is not said."""
    found = _fine_tuned(table, record)
    match column:
        case "linear_top1":
            return found.of_linear_probe()
        case "supervised_top1":
            # Trained on labels from the start, for a length that the tables do not print.
            return replace(found, pretrain_size=0, pretrain_epochs=0, finetune_epochs=None)
        case _:
            return found


def _fine_tuned(table: str, record: Mapping[str, str]) -> Protocol:
    """Protocol of the fine-tuning behind a row; the ablation tables print no lengths and sizes."""
    if table == "simmim_table6_vit_b":
        if record["method"] != "SimMIM":  # others' recipes
            return Protocol(data="imagenet", image_size=int(record["input_size"]), evaluation="finetune")
        record = _VIT_B
    elif table not in ("simmim_table7_scaling", "mmpretrain_simmim"):
        record = _ABLATION
    epochs, pretrain_size, image_size = (int(record[k]) for k in ("pretrain_epochs", "pretrain_size", "finetune_size"))
    # Models of other sizes stand in the table as well, of which no recipe is in this package.
    if record["model"] not in _MODELS:
        return Protocol(
            data="imagenet",
            backbone=record["model"],
            pretrain_size=pretrain_size,
            image_size=image_size,
            pretrain_epochs=epochs,
            evaluation="finetune",
        )
    variant: Variant = "mmpretrain" if table.startswith("mmpretrain") else "official"
    run = simmim_finetune(_MODELS[record["model"]], epochs=epochs, image_size=image_size, variant=variant)
    return replace(protocol_of(run), epoch=None)
