"""Protocols of MAE's published tables."""

from __future__ import annotations

from collections.abc import Mapping

from harness.papers.protocol import Protocol

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
    """Protocol of a value of MAE's tables."""
    return ABLATION.of_linear_probe() if column == "linear_top1" else ABLATION
