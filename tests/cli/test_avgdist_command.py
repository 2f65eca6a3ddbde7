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


def test_the_masks_of_papers(harness: Command, tmp_path: Path) -> None:
    ended = harness("avgdist", "--compared", "--draws", 3, "--out", tmp_path / "out")
    assert (ended.code, ended.err) == (0, "")
    with (tmp_path / "out" / "difficulty.csv").open() as file:
        rows = {row["mask"]: row for row in csv.DictReader(file)}
    board = {name: round(float(value), 2) for name, value in rows["checkerboard 2, phase 0"].items() if name != "mask"}
    assert board == {
        "ratio": 0.49, "avgdist": 6.51, "avgdist_error": 0.0, "visible": 1.75, "isolated": 0.0, "distinct": 1.0,
    }  # fmt: skip
    assert any(line.split()[:3] == ["grid", "75.00", "5.95"] for line in ended.out.splitlines())
    assert len(rows) == 27
    _, header, *lines = ended.out.partition("hidden patch\n")[2].splitlines()
    assert header.split()[0] == "mask"
    assert max(map(len, lines[:27])) <= 80
    assert len(lines) == 28  # a line each, and that of the file


def test_the_masks_of_a_study(harness: Command, tmp_path: Path) -> None:
    study = Path(__file__).resolve().parents[2] / "studies" / "masks_zoo.py"
    options = ("--draws", 3, "--scale", "tiny", "--where", "mask=grid,square", "--store", tmp_path / "runs")
    ended = harness("avgdist", study, *options, "--out", tmp_path / "out")
    assert (ended.code, ended.err) == (0, "")
    assert "masks_zoo · tiny: 28 px in patches of 2" in ended.out
    with (tmp_path / "out" / "difficulty.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["mask"] for row in rows] == ["square 0.75", "square 0.5", "grid 0.75"]
    assert {(row["evaluation"], row["accuracy"], row["n"]) for row in rows} == {("finetune_top1", "", "0")}


def test_a_selection_without_masks_is_refused(harness: Command, study: Path, tmp_path: Path) -> None:
    ended = harness("avgdist", study, "--where", "mask=none", "--out", tmp_path / "out")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "has a pre-training, so there is no mask" in ended.err
    assert not (tmp_path / "out").exists()


def test_options_that_do_not_fit_are_refused(harness: Command, tmp_path: Path) -> None:
    assert "belong to a study" in harness("avgdist", "--scale", "tiny", "--out", tmp_path).err
    ended = harness("avgdist", tmp_path / "a.py", "--compared")
    assert (ended.code, "give one of the two" in ended.err) == (2, True)
