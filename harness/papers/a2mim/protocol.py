"""Protocols of A2MIM's published tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from harness.papers.a2mim.finetune import a2mim_finetune
from harness.papers.a2mim.recipes import Model
from harness.papers.protocol import UNKNOWN, Protocol, protocol_of

MODELS: dict[str, Model] = {
    "ViT-S": "vit-s",
    "ViT-B": "vit-b",
    "ViT-L": "vit-l",
    "ResNet-50": "r50",
    "ResNet-101": "r101",
    "ResNet-152": "r152",
    "ResNet-200": "r200",
    "ConvNeXt-S": "convnext-s",
    "ConvNeXt-B": "convnext-b",
}


def published_protocol(table: str, column: str, record: Mapping[str, str]) -> Protocol:
    """Protocol of a value of A2MIM's tables.

    The main table reports the best of the last ten epochs (release page of its weights). How long the ablations were
    pre-trained is not known.
    """
    match table:
        case "a2mim_imagenet":
            return _main(column, record["backbone"])
        case "a2mim_ablation_memory":
            return _ablation(record["backbone"], record["dataset"])
        case _:
            return UNKNOWN


def _main(column: str, backbone: str) -> Protocol:
    """Protocol of a column of the main table: A2MIM's fine-tuning, or that of the baseline."""
    # The release page says best of the last ten epochs; runs here report the last.
    found = replace(protocol_of(a2mim_finetune(MODELS[backbone])), epoch="best")
    vit = backbone.startswith("ViT")
    if column == "supervised":
        return replace(
            found, pretrain_size=0, pretrain_epochs=0, finetune_epochs=None if vit else found.finetune_epochs
        )
    return replace(found, finetune_epochs=100) if column == "simmim" and vit else found


def _ablation(backbone: str, dataset: str) -> Protocol:
    if dataset != "ImageNet-1K":
        return Protocol(data="imagenet100", evaluation="finetune")
    run = a2mim_finetune(MODELS[backbone], protocol="rsb-a3" if backbone == "ResNet-50" else None)
    return replace(protocol_of(run), pretrain_epochs=None, epoch=None)
