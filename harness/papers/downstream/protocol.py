"""Protocols of published segmentation and detection results."""

from __future__ import annotations

import re
from collections.abc import Mapping

from harness.papers.protocol import DenseProtocol

EVALUATIONS = {"segmentation": "segment", "detection": "detect", "instance segmentation": "detect"}
"""What a printed task is here: one detector gives boxes and masks."""


def published_protocol(table: str, column: str, record: Mapping[str, str]) -> DenseProtocol:
    """Protocol of a row, as far as its columns state it.

    A rate is taken as it is printed: where a paper searched it, or two files have two, ours differs from that.
    """
    epochs = int(record["pretrain_epochs"]) if record["pretrain_epochs"] else None
    thousands = re.match(r"(\d+)k iterations", record["schedule"])
    return DenseProtocol(
        data=record["dataset"].lower(),
        image_size=_number(r"(\d+)(?!\S)", record["crop_or_size"]),
        pretrain_epochs=epochs,
        finetune_epochs=_number(r"(\d+) epochs", record["schedule"]),
        evaluation=EVALUATIONS[record["task"]],
        # Without its width a UPerNet is not known to be another.
        head=None if record["head"] in ("", "UPerNet") else record["head"].split(" + ")[0],
        steps=int(thousands[1]) * 1000 if thousands else _number(r"(\d+) iterations", record["schedule"]),
        rate=_rate(record["lr"]),
        test=_tested(record["test"]),
    )


def _rate(text: str) -> str | None:
    """A rate as `protocol_of` writes it (6e-05), or other words than a number as they are printed."""
    try:
        return f"{float(text):g}"
    except ValueError:
        return text or None


def _number(pattern: str, text: str) -> int | None:
    found = re.match(pattern, text)
    return int(found[1]) if found else None


def _tested(text: str) -> str | None:
    """How test pictures are shown, in the words of `protocol_of`; detectors state no more than one scale or several."""
    if text.startswith("multi-scale"):
        return "several scales"
    windows = re.match(r"slide \d+ stride (\d+)", text)
    return f"windows at a stride of {windows[1]}" if windows else "whole" if text.startswith("whole") else None
