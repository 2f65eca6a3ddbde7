"""`harness avgdist`: distances, neighbours and numbers of masks, before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track

from harness.cli.common import ScaleName, StorePath, Where, console, planned, results_folder, say, show_table
from harness.papers import compared_masks, paper_table
from harness.spec import BlockMask, HarnessError, Mask, Pretrain, RandomMask, SquareMask, pretraining
from harness.store import Store
from harness.study import Plan

IMAGE_SIZE = 192
"""Side of the image of SimMIM Table 1, in pixels."""

_MASKS: dict[str, type[RandomMask | SquareMask | BlockMask]] = {
    "random": RandomMask,
    "square": SquareMask,
    "block-wise": BlockMask,
}
"""The table's mask types; block-wise is BEiT's with an exact count, for SimMIM does not publish its own."""


def avgdist(
    study: Annotated[
        Path | None, typer.Argument(metavar="[STUDY]", help="a study file: the masks of its cells instead of Table 1's")
    ] = None,
    compared: Annotated[bool, typer.Option("--compared", help="the masks that papers compare, at 224 px")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="folder to write to")] = None,
    draws: Annotated[int, typer.Option("--draws", min=2, help="masks drawn where not all can be gone through")] = 1000,
    scale: ScaleName = None,
    where: Where = None,
    store: StorePath = None,
) -> None:
    """Compute AvgDist of every mask of SimMIM Table 1, print it beside the published accuracy, write CSV and figure.

    AvgDist is the mean distance of a hidden pixel from the nearest visible one, in pixels. Nothing is trained. Of the
    masks of a study (beside the accuracy, where there is one) or of many papers it also says the visible neighbours of
    a hidden patch, the share of hidden patches that have none, and how many of the masks differ.

    Example: harness avgdist studies/masks_zoo.py --scale small
    """
    if study is not None and compared:
        raise HarnessError("--compared shows the masks of papers, not those of a study: give one of the two")
    if study is not None:
        found = planned(study, scale, where, None, store)
        plan = found.plan
        starts = [pretraining(one) for row in plan.firsts() for one in row.evaluations.values()]
        if not any(starts):
            raise HarnessError(f"no cell of {plan.study.name} that was chosen has a pre-training, so there is no mask")
        rows = list(_shown(_study_rows(plan, found.store, draws), len(starts) - starts.count(None)))
        _show(rows, out or results_folder(plan), f"{plan.study.name} · {plan.scale.name}: {_sizes(plan)}", draws)
        return
    if scale or where or store:
        raise HarnessError("--scale, --where and --store belong to a study: name its file")
    if compared:
        masks = compared_masks()
        drawn = ({"mask": name, **_difficulty(mask, 224, 16, draws)} for name, mask in masks.items())
        rows = list(_shown(drawn, len(masks)))
        _show(rows, out or Path("results/avgdist"), "224 px in patches of 16", draws)
        return
    _table_1(out or Path("results/avgdist"), draws)


def _shown(rows: Iterable[dict[str, Any]], total: int) -> Iterable[dict[str, Any]]:
    """Rows as they come, with a bar in a terminal."""
    return track(rows, "masks", total, console=console, transient=True, disable=not console.is_terminal)


def _show(rows: list[dict[str, Any]], out: Path, title: str, draws: int) -> None:
    """Print and write rows that have the columns of `_difficulty`, a mask's name, and perhaps an accuracy."""
    from harness.report.difficulty import HEADER, difficulty_texts, write_difficulty

    scored = ("accuracy", "n") if "accuracy" in rows[0] else ()
    say(f"{title}; means of {draws} masks ± standard error, AvgDist in pixels, visible neighbours of a hidden patch")
    texts = [(row["mask"], *difficulty_texts(row), *(_accuracy(row) if scored else ())) for row in rows]
    show_table(("mask", *HEADER, *scored), texts)
    say(f"wrote {write_difficulty(rows, out)} to {out}")


def _accuracy(row: dict[str, Any]) -> tuple[str, str]:
    return (f"{row['accuracy']:8.2f}", str(row["n"])) if row["n"] else (f"{'-':>8}", "-")


def _sizes(plan: Plan) -> str:
    """Sides of images and patches of a plan's pre-trainings, in words, each pair once."""
    starts = [run for run in plan.runs().values() if isinstance(run, Pretrain)]
    return ", ".join(
        dict.fromkeys(f"{start.image_size} px in patches of {start.backbone.patch_size}" for start in starts)
    )


def _study_rows(plan: Plan, runs: Store, draws: int) -> Iterator[dict[str, Any]]:
    """A row for each cell and evaluation that starts from a pre-training, with the mean over the finished seeds."""
    from harness.report.collect import runs_frame

    frame = runs_frame(plan, runs)
    for row in plan.firsts():  # all seeds of a cell have the same kind of mask
        for name, evaluation in row.evaluations.items():
            start = pretraining(evaluation)
            if start is None:
                continue
            number = plan.study.cells.index(row.axes)
            values = frame[(frame["cell"] == number) & (frame["evaluation"] == name)]["value"].dropna()
            yield {
                "mask": row.text,
                **_difficulty(start.mask, start.image_size, start.backbone.patch_size, draws),
                "evaluation": name,
                "accuracy": float(values.mean()) if len(values) else math.nan,
                "n": len(values),
            }


def _difficulty(mask: Mask, image_size: int, patch: int, draws: int) -> dict[str, float]:
    """The columns of a mask's difficulty; NaN for one that hides no fixed part of the image."""
    from harness.analysis.difficulty import difficulty

    names = ("ratio", "avgdist", "avgdist_error", "visible", "isolated", "distinct")
    if not mask.hides_blindly:
        return dict.fromkeys(names, math.nan)
    found = difficulty(mask, image_size, patch, draws=draws)
    values = (
        found.ratio.mean, found.avgdist.mean, found.avgdist.error, found.visible.mean, found.isolated.mean,
        found.distinct,
    )  # fmt: skip
    return dict(zip(names, values, strict=True))


def _table_1(out: Path, draws: int) -> None:
    from harness.report.figures.avgdist import write_avgdist

    say(f"{'mask':<11} {'unit':>4} {'ratio':>5}   {'AvgDist':>16}   {'exact':>6}   {'paper':>5}")
    records = []
    for record in _shown(_records(draws), len(paper_table("simmim_table1_masking").rows)):
        records.append(record)
        say(_line(record))
    files = write_avgdist(records, out)
    say(f"AvgDist in pixels of {IMAGE_SIZE}, mean ± standard error of {draws} masks; paper: published top-1")
    say(f"wrote {', '.join(files)} to {out}")


def _records(draws: int) -> Iterator[dict[str, Any]]:
    """The rows of Table 1 with the distances of their masks; `exact` is NaN where there are too many masks."""
    from harness.analysis.difficulty import difficulty, exact_average_distance

    for axes, published in paper_table("simmim_table1_masking").rows:
        size, ratio = int(axes["masked_patch_size"]), float(axes["mask_ratio"])
        mask = _MASKS[axes["mask_type"]](size=size, ratio=ratio)
        found = difficulty(mask, IMAGE_SIZE, mask.size, draws=draws)
        exact = exact_average_distance(mask, IMAGE_SIZE)
        yield {
            "mask_type": axes["mask_type"],
            "mask_patch_size": size,
            "mask_ratio": ratio,
            "hidden_units": mask.hidden_units(IMAGE_SIZE),
            "avgdist": found.avgdist.mean,
            "error": found.avgdist.error,
            "draws": found.draws,
            "exact": math.nan if exact is None else exact,
            "top1": published.value,
            "trust": published.trust,
        }


def _line(record: dict[str, Any]) -> str:
    name = f"{record['mask_type']:<11} {record['mask_patch_size']:>4} {record['mask_ratio']:>5g}"
    exact = "" if math.isnan(record["exact"]) else f"{record['exact']:.3f}"
    return f"{name}   {record['avgdist']:>8.3f} ± {record['error']:.3f}   {exact:>6}   {record['top1']:>5.1f}"
