"""The difficulty of masks as text and CSV: what is known before training, and the accuracy once there is one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from harness.report.tables.table import ESTIMATED, csv_text
from harness.store.files import disk_errors, write_atomically

HEADER = f"{'ratio %':>8}  {'AvgDist':>15}  {'visible':>7}  {'alone %':>7}  {'distinct':>8}"
"""Of `difficulty_line`."""


def difficulty_line(row: Mapping[str, Any]) -> str:
    """The columns ratio, avgdist, avgdist_error, visible, isolated and distinct of a row, shares in per cent."""
    if math.isnan(row["avgdist"]):
        return f"{'-':>8}  {'-':>15}  {'-':>7}  {'-':>7}  {'-':>8}"
    distance = f"{row['avgdist']:.2f} ± {row['avgdist_error']:.2f}"
    return (
        f"{row['ratio'] * 100:>8.2f}  {distance:>15}  {row['visible']:>7.2f}  {row['isolated'] * 100:>7.1f}  "
        f"{row['distinct']:>8.0f}"
    )


def write_difficulty(rows: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """Write difficulty.csv to a folder, a line a mask; returns its name.

    Raises:
        HarnessError: the disk refuses.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "difficulty.csv", csv_text(pd.DataFrame(rows), ESTIMATED).encode())
    return "difficulty.csv"
