"""`harness plan` says where a board is not half hidden, or does not reflect what it hides onto what it shows."""

from __future__ import annotations

from pathlib import Path

from conftest import Command

STUDY = Path(__file__).resolve().parents[2] / "studies" / "masks_zoo.py"


def test_plan_names_the_geometry_of_a_board(harness: Command, tmp_path: Path) -> None:
    options = ("--scale", "tiny", "--seeds", 1, "--store", tmp_path / "runs")
    ended = harness("plan", STUDY, *options, "--where", "mask=checkerboard 2")
    assert ended.code == 0
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    assert "geometry checkerboard of 2 x 2 on 14 x 14 units hides 96 of 196 (48.98%), not half" in lines
    assert "checkerboard of 2 x 2 on 14 x 14 units: 0% of the hidden units reflect a visible one, not all" in lines
    assert sum("hides 96 of 196" in line for line in lines) == 1
    assert "geometry" not in harness("plan", STUDY, *options, "--where", "mask=checkerboard 1").out


def test_what_stands_under_geometry_is_not_assumed_again(harness: Command, tmp_path: Path) -> None:
    study = STUDY.with_name("symmim_masks.py")
    said = harness("plan", study, "--scale", "tiny", "--seeds", 1, "--store", tmp_path / "runs").out
    assert "assumed" in said
    assert said.count("checkerboard of 2 x 2 on 14 x 14 units hides 96 of 196 (48.98%), not half") == 1
