"""`harness avgdist`: what masks are like, before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.common import say
from harness.papers import paper_table
from harness.spec import BlockMask, RandomMask, SquareMask

IMAGE_SIZE = 192
"""Side of the image of SimMIM Table 1, in pixels."""

_MASKS: dict[str, type[RandomMask | SquareMask | BlockMask]] = {
    "random": RandomMask,
    "square": SquareMask,
    "block-wise": BlockMask,
}
"""The table's mask types; block-wise is BEiT's with an exact count, for SimMIM does not publish its own."""


def avgdist(
    out: Annotated[Path, typer.Option("--out", help="folder to write to")] = Path("results/avgdist"),
    draws: Annotated[int, typer.Option("--draws", min=2, help="masks drawn where not all can be gone through")] = 1000,
) -> None:
    """Compute AvgDist of every mask of SimMIM Table 1, print it beside the published accuracy, write CSV and figure.

    AvgDist is the mean distance of a hidden pixel from the nearest visible one, in pixels. Nothing is trained.

    Example: harness avgdist --draws 200
    """
    from harness.report.avgdist import write_avgdist

    say(f"{'mask':<11} {'unit':>4} {'ratio':>5}   {'AvgDist':>16}   {'exact':>6}   {'paper':>5}")
    records = []
    for record in _records(draws):
        records.append(record)
        say(_line(record))
    files = write_avgdist(records, out)
    say(f"AvgDist in pixels of {IMAGE_SIZE}, mean ± standard error of {draws} masks; paper: published top-1")
    say(f"wrote {', '.join(files)} to {out}")


def _records(draws: int) -> Iterator[dict[str, Any]]:
    """The rows of Table 1 with the distances of their masks; `exact` is NaN where there are too many masks."""
    from harness.analysis.avgdist import average_distance, exact_average_distance

    for axes, published in paper_table("simmim_table1_masking").rows:
        size, ratio = int(axes["masked_patch_size"]), float(axes["mask_ratio"])
        mask = _MASKS[axes["mask_type"]](size=size, ratio=ratio)
        found = average_distance(mask, IMAGE_SIZE, draws=draws)
        exact = exact_average_distance(mask, IMAGE_SIZE)
        yield {
            "mask_type": axes["mask_type"],
            "mask_patch_size": size,
            "mask_ratio": ratio,
            "hidden_units": mask.hidden_units(IMAGE_SIZE),
            "avgdist": found.mean,
            "error": found.error,
            "draws": found.draws,
            "exact": math.nan if exact is None else exact,
            "top1": published.value,
            "trust": published.trust,
        }


def _line(record: dict[str, Any]) -> str:
    name = f"{record['mask_type']:<11} {record['mask_patch_size']:>4} {record['mask_ratio']:>5g}"
    exact = "" if math.isnan(record["exact"]) else f"{record['exact']:.3f}"
    return f"{name}   {record['avgdist']:>8.3f} ± {record['error']:.3f}   {exact:>6}   {record['top1']:>5.1f}"
