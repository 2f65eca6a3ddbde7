"""Protocols of MAE's published tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from harness.papers.mae.preset import BACKBONES, mae_finetune
from harness.papers.protocol import Protocol, protocol_of

ABLATION = Protocol(
    data="imagenet",
    backbone="vit_large_patch16_224",
    pretrain_size=224,
    image_size=224,
    pretrain_epochs=800,
    finetune_epochs=50,
    evaluation="finetune",
)
"""ViT-L, 800 epochs, fine-tuned for 50: section 4 and appendix A.1."""


def published_protocol(table: str, column: str, record: Mapping[str, str]) -> Protocol:
    """Protocol of a value of MAE's tables. Which epoch's accuracy they print is not said."""
    found = ABLATION
    if table == "mae_models":
        model = next(model for model in BACKBONES if model == record["backbone"].lower())
        found = replace(protocol_of(mae_finetune(model, epochs=int(record["pretrain_epochs"]))), epoch=None)
    return found.of_linear_probe() if column == "linear_top1" else found
