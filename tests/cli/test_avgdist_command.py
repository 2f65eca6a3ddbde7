"""`harness avgdist`: a row for each of SimMIM's masks, and the files."""

from __future__ import annotations

import csv
from pathlib import Path

from conftest import Command


def test_avgdist(harness: Command, tmp_path: Path) -> None:
    ended = harness("avgdist", "--draws", 3, "--out", tmp_path / "out")
    assert (ended.code, ended.err) == (0, "")
    with (tmp_path / "out" / "avgdist.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 29
    assert {row["mask_type"] for row in rows} == {"random", "square", "block-wise"}
    found = {(row["mask_type"], row["mask_patch_size"], row["mask_ratio"]): row for row in rows}
    assert [round(float(found["square", "32", ratio]["exact"]), 3) for ratio in ("0.11", "0.25", "0.44")] == [
        14.157, 22.502, 33.687,
    ]  # fmt: skip
    best = found["random", "32", "0.5"]
    assert (best["hidden_units"], best["top1"], best["exact"], best["draws"]) == ("18", "83.0", "", "3")
    assert sum(line.startswith(("random", "square", "block-wise")) for line in ended.out.splitlines()) == 29
    assert "14.157    82.6" in ended.out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["avgdist.csv", "avgdist.pdf", "avgdist.png"]


def test_one_draw_has_no_error_and_is_refused(harness: Command, tmp_path: Path) -> None:
    ended = harness("avgdist", "--draws", 1, "--out", tmp_path)
    assert ended.code == 2
    assert "--draws" in ended.err
