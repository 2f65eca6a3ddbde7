"""The difficulty of masks as text and CSV: what is known before training, and the accuracy once there is one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from harness.report.tables.table import ESTIMATED, csv_text
from harness.store.files import disk_errors, write_atomically

HEADER = ("ratio %", "AvgDist", "visible", "alone %", "distinct")
"""Of `difficulty_texts`."""

_WIDTHS = (5, 12, 7, 5, 8)
"""Characters to which the texts are aligned on the right."""


def difficulty_texts(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns ratio, avgdist, avgdist_error, visible, isolated and distinct of a row, shares in per cent."""
    texts = ["-"] * len(HEADER)
    if not math.isnan(row["avgdist"]):
        distance = f"{row['avgdist']:.2f} ± {row['avgdist_error']:.2f}"
        shares = f"{row['ratio'] * 100:.2f}", f"{row['isolated'] * 100:.1f}"
        texts = [shares[0], distance, f"{row['visible']:.2f}", shares[1], f"{row['distinct']:.0f}"]
    return tuple(text.rjust(width) for text, width in zip(texts, _WIDTHS, strict=True))


def write_difficulty(rows: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """Write difficulty.csv to a folder, a line a mask; returns its name.

    Raises:
        HarnessError: the disk refuses.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "difficulty.csv", csv_text(pd.DataFrame(rows), ESTIMATED).encode())
    return "difficulty.csv"
