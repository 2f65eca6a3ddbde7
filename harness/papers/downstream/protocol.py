"""Protocols of published segmentation and detection results."""

from __future__ import annotations

from collections.abc import Mapping

from harness.papers.protocol import Protocol


def published_protocol(table: str, column: str, record: Mapping[str, str]) -> Protocol:
    """Protocol of a row: what it shares with a classification is the pre-training alone."""
    epochs = int(record["pretrain_epochs"]) if record["pretrain_epochs"] else None
    return Protocol(data=record["dataset"].lower(), pretrain_epochs=epochs, evaluation=record["task"])
