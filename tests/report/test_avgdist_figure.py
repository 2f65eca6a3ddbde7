"""The figure over AvgDist: every row is drawn, exact distances where they are known; files are whole."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.papers import paper_table
from harness.report.collect import records
from harness.report.figures import drawing
from harness.report.figures.avgdist import draw_avgdist, write_avgdist
from harness.spec import HarnessError


def frame() -> pd.DataFrame:
    """Table 1 with distances that are made up; one row is exact."""
    return pd.DataFrame(
        {
            "mask_type": axes["mask_type"],
            "mask_patch_size": int(axes["masked_patch_size"]),
            "mask_ratio": float(axes["mask_ratio"]),
            "avgdist": 2.0 + number,
            "error": 0.1,
            "exact": 2.5 if number == 0 else math.nan,
            "top1": value.value,
        }
        for number, (axes, value) in enumerate(paper_table("simmim_table1_masking").rows)
    )


def test_every_row_is_a_point_and_exact_distances_are_preferred() -> None:
    rows = frame()
    with drawing.style():
        (axes,) = draw_avgdist(rows).axes
    containers: list[Any] = axes.containers  # of error bars, which have lines
    points = {
        (float(x), float(y)) for container in containers for x, y in zip(*container.lines[0].get_data(), strict=True)
    }
    assert points == set(zip([2.5, *rows["avgdist"][1:]], rows["top1"], strict=True))
    assert len(points) == 29
    assert {container.lines[0].get_marker() for container in containers} == {"o", "s", "^"}
    first = containers[0].lines[0]
    assert list(first.get_xdata()) == sorted(first.get_xdata())
    assert {text.get_text() for text in axes.texts} >= {".1", ".11", ".25", ".44", ".9"}


def test_the_legend_has_what_is_drawn_and_nothing_else() -> None:
    rows = frame()
    with drawing.style():
        whole, part = (draw_avgdist(drawn) for drawn in (rows, rows[rows["mask_patch_size"] == 64]))
    band = "best, as SimMIM is quoted"
    kinds, sizes = ["random", "square", "block-wise"], ["4 px", "8 px", "16 px", "32 px", "64 px"]
    assert [text.get_text() for text in whole.legends[0].texts] == [*kinds, band, *sizes]
    assert [text.get_text() for text in part.legends[0].texts] == ["random", band, "64 px"]


def test_files(tmp_path: Path) -> None:
    names = write_avgdist(records(frame()), tmp_path / "new")
    assert names == ("avgdist.csv", "avgdist.png", "avgdist.pdf")
    back = pd.read_csv(tmp_path / "new" / "avgdist.csv")
    pd.testing.assert_frame_equal(back, frame())
    assert (tmp_path / "new" / "avgdist.png").read_bytes().startswith(b"\x89PNG")
    before = (tmp_path / "new" / "avgdist.pdf").read_bytes()
    assert before.startswith(b"%PDF")
    write_avgdist(records(frame()), tmp_path / "new")
    assert (tmp_path / "new" / "avgdist.pdf").read_bytes() == before


@pytest.mark.parametrize("changes", [{"mask_type": "spiral"}, {"mask_patch_size": 48}])
def test_masks_that_the_figure_has_no_sign_for_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(HarnessError, match=r"random, square, block-wise with units of 4, 8, 16, 32, 64 px, not"):
        draw_avgdist(frame().assign(**changes))
