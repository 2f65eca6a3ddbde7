"""How far the best cell found is from the best there is, over trials: samplers on a table of measured cells.

    python tests/bench/search_regret.py table STORE    compute every cell of studies/search_masking.py at scale tiny
    python tests/bench/search_regret.py keep STORE     keep the trials of a search in a store, and its evaluations
    python tests/bench/search_regret.py regret         replay searches on that table, and draw the figure

The table (results/search_masking/table-tiny.csv) holds the validation accuracy of each cell with two seeds; a search is
told their mean, as with `seeds=2`. It is replayed by the search's own proposals, one at a time, for 20 seeds of the
sampler. Regret is the best value of the table minus the best told so far, over the number of distinct cells paid for.
"""

from __future__ import annotations

import csv
import json
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna

from harness.launch.resources import Resources
from harness.search import load_search
from harness.search.measure import with_starts
from harness.search.sampling import Proposals, quiet
from harness.search.session import Opened, open_search
from harness.search.space import cell_id, present
from harness.spec import HarnessError, key
from harness.store import Store
from harness.store.exchange import export_records

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "results" / "search_masking"
TABLE, CURVES, FIGURE = FOLDER / "table-tiny.csv", FOLDER / "regret.csv", FOLDER / "regret.png"
RECORDS, PROVENANCE = FOLDER / "table-tiny.records", FOLDER / "table-tiny.json"
SEEDS = (0, 1)
SAMPLERS = ("random", "tpe")
REPEATS = 20
TRIALS = 60
AXES = (
    "mask_type", "masked_patch_size", "mask_ratio", "min_block", "scope", "head_layers", "target",
)  # fmt: skip


def opened(store: Path) -> Opened:
    return open_search(load_search(ROOT / "studies" / "search_masking.py"), Store(store), scale="tiny")


def table(place: Path) -> None:
    """Compute what is missing, in this process, and write the table, and the records of the evaluations in it."""
    from harness.launch.job import prepare, work

    search, resources = opened(place), Resources(device="cpu", checkpoint_seconds=1e9)
    device, store = prepare(resources), search.store
    rows: list[list[object]] = []
    names: list[str] = []
    for point in search.space.points or ():
        candidate = search.measure.candidate(point.cell, SEEDS)
        if candidate.excluded:
            continue
        wanted = search.measure.wanted(candidate)
        for name, run in with_starts(wanted).items():
            if store.result(name) is None:
                work(store, run, device, resources, report=lambda event: None)
        values = search.measure.values(candidate, store)[0]
        rows.append([*(point.cell.get(axis) for axis in AXES), *values, key(wanted[0])])
        names += map(key, wanted)
        print(len(rows), point.cell, values, flush=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*AXES, *(f"top1_seed{seed}" for seed in SEEDS), "key_seed0"])
        writer.writerows(rows)
    export_records(store, names, RECORDS)
    found = store.environment(str(rows[0][-1]))
    kept = {
        name: found[name] for name in ("commit", "dirty", "versions", "device", "threads", "started") if name in found
    }
    PROVENANCE.write_text(json.dumps(kept | {"cells": len(rows), "seeds": SEEDS}, indent=1) + "\n")


def keep(place: Path) -> None:
    """Copy the journal of a search, and write the records of its evaluations and of its fresh seeds."""
    search = opened(place)
    shutil.copy(search.folder.journal, FOLDER / "tiny.journal")
    names = [name for name in sorted(search.store.keys()) if name.startswith("knn-")]
    export_records(search.store, names, FOLDER / "tiny.records")


def read_table() -> dict[str, float]:
    """Mean accuracy by cell."""
    found = {}
    with TABLE.open(newline="") as file:
        for row in csv.DictReader(file):
            cell = {
                "mask_type": row["mask_type"],
                "masked_patch_size": int(row["masked_patch_size"]),
                "mask_ratio": float(row["mask_ratio"]),
                "min_block": float(row["min_block"]) if row["min_block"] else None,
                "scope": row["scope"],
                "head_layers": int(row["head_layers"]),
                "target": row["target"],
            }
            found[cell_id(present(cell))] = statistics.fmean(float(row[f"top1_seed{seed}"]) for seed in SEEDS)
    return found


def replay(search: Opened, values: dict[str, float], sampler: str, seed: int) -> list[float]:
    """The best value after each distinct cell, as the coordinator with one slot asks and tells."""
    study = optuna.create_study(direction="maximize")
    proposals = Proposals(sampler, seed, search.space)
    known: dict[str, float | None] = {}
    best: list[float] = []
    while len(best) < TRIALS:
        proposed = proposals.ask(study)
        name = cell_id(proposed.cell)
        value = known.setdefault(name, values.get(name)) if name in known else None
        if name not in known:
            value = known[name] = values.get(name)
            if value is not None:
                best.append(max([value, *best[-1:]]))
        if value is None:
            study.tell(proposed.number, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(proposed.number, value)
    return best


def regret() -> None:
    """Replay, and write the curves and the figure."""
    quiet()
    search, values = opened(ROOT / "runs"), read_table()
    if len(values) < 200:
        raise HarnessError(f"the table holds {len(values)} cells")
    top = max(values.values())
    curves: dict[str, list[list[float]]] = {}
    for sampler in SAMPLERS:
        curves[sampler] = [[top - best for best in replay(search, values, sampler, seed)] for seed in range(REPEATS)]
        means = [statistics.fmean(column) for column in zip(*curves[sampler], strict=True)]
        print(
            sampler,
            "regret after 10, 20, 40, 60:",
            [round(means[n - 1], 3) for n in (10, 20, 40, 60)],
            flush=True,
        )
    with CURVES.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["sampler", "cells", "mean_regret", "sd", "seeds"])
        for sampler, found in curves.items():
            for count, column in enumerate(zip(*found, strict=True), 1):
                row = [sampler, count, f"{statistics.fmean(column):.4f}", f"{statistics.stdev(column):.4f}", REPEATS]
                writer.writerow(row)
    draw(curves, len(values))


def draw(curves: dict[str, list[list[float]]], cells: int) -> None:
    import numpy as np
    from matplotlib.figure import Figure

    from harness.report.figures.drawing import COLOURS, DASHES, png, style

    with style():
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes: Any = figure.subplots()
        for number, (sampler, found) in enumerate(curves.items()):
            array = np.array(found)
            mean, half = array.mean(axis=0), 2.09 * array.std(axis=0, ddof=1) / REPEATS**0.5  # t of 19 degrees
            places = range(1, TRIALS + 1)
            axes.plot(places, mean, DASHES[number], color=COLOURS[number], label=sampler)
            axes.fill_between(places, mean - half, mean + half, color=COLOURS[number], alpha=0.15, linewidth=0)
        axes.set_xlabel(f"distinct cells computed, of {cells}")
        axes.set_ylabel("regret, points of top-1")
        axes.set_ylim(bottom=0)
        axes.set_title(f"mean of {REPEATS} sampler seeds, 95 % interval", fontsize=8, loc="left")
        figure.legend(loc="outside lower center", ncols=3)
        FIGURE.write_bytes(png(figure))


def main(arguments: Sequence[str]) -> None:
    match list(arguments):
        case ["table", store]:
            table(Path(store).resolve())
        case ["keep", store]:
            keep(Path(store).resolve())
        case ["regret"]:
            regret()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
