"""What `harness plan` takes for many cells, and `harness status` for as many finished runs.

Run     python tests/bench/scale.py [--cells 10000] [--times 5] [--against CHECKOUT] [--record]
Aim     10,000 cells: 2.5 s of user CPU, 100,000 cells: 16 s and 500 MB, each with the start of Python
Record  --record appends to results/bench/scale.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from harness.spec import key
from harness.store import RunFolder, Store
from harness.store.records import sealed
from harness.study import expand, load

HERE = Path(__file__).resolve().parents[2]
RECORDED = HERE / "results" / "bench" / "scale.json"

STUDY = '''"""{cells} cells of one seed."""

from harness import Backbone, FineTune, RandomMask, Recipe, Scale, Scratch, Shapes, Study, axes, simmim

TINY = Scale(
    name="tiny",
    data=Shapes(image_size=192),
    image_size=192,
    backbone=Backbone(name="vit_tiny_patch16_224", patch_size=4),
    pretrain=Recipe(epochs=1, batch_size=8, lr=1e-3),
    finetune=Recipe(epochs=1, batch_size=8, lr=1e-3),
)


def cell(scale, drop_path, size, ratio, seed):
    recipe = scale.finetune.replace(drop_path=drop_path)
    if {pretrain}:
        start = simmim(scale, mask=RandomMask(size=scale.pixels(size), ratio=ratio / 10_000), seed=seed)
    else:
        start = Scratch(backbone=scale.backbone, image_size=scale.image_size)
        recipe = recipe.replace(lr=(100 * ratio + size) * 1e-7)
    return {{"top1": FineTune(start=start, data=scale.data, recipe=recipe, seed=seed)}}


STUDY = Study(
    cell=cell,
    grid=axes(drop_path=(0.0, 0.1, 0.2, 0.3), size=(4, 8, 16, 32), ratio=tuple(range(1000, 1000 + {cells} // 16))),
    scales=(TINY,),
    reference={{"drop_path": 0.0, "size": 32, "ratio": 1000}},
    seeds=1,
)
'''


def finish(store: Store, path: Path) -> int:
    """Write the folders of finished runs as a store would lay them out, without its fsyncs; returns their number."""
    runs = expand(load(path)).runs()
    for run in runs.values():
        name = key(run)
        folder = RunFolder(store.root / name)
        attempt = folder.attempt(1)
        attempt.path.mkdir(parents=True)
        folder.spec.write_bytes(sealed({"key": name, "run": run.to_plain()}))
        attempt.owner.write_bytes(sealed({"host": "", "machine": "", "pid": 1, "started": ""}))
        attempt.metrics.write_text("")
        record = {"metrics": {"top1": 50.0, "loss": 1.0}, "seconds": 1.0, "weights": "", "attempt": 1}
        folder.result.write_bytes(sealed({"key": name, **record}))
    return len(runs)


BYTECODE = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": tempfile.mkdtemp()}
"""As installed: modules are compiled in the first call only, which is not counted."""


class Taken(NamedTuple):
    """What a command took: CPU time in Python and in the system, time on the clock, all in seconds; peak memory."""

    user: float
    system: float
    clock: float
    megabytes: float


def call(checkout: Path, *arguments: str) -> tuple[Taken, str]:
    """What a command of the harness of a checkout takes, and what it printed."""
    with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryDirectory() as elsewhere:
        began = time.perf_counter()
        command = [sys.executable, "-m", "harness.cli", *arguments]
        environment = {**os.environ, **BYTECODE, "PYTHONPATH": str(checkout)}
        process = subprocess.Popen(command, stdout=printed, env=environment, cwd=elsewhere)
        _, code, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
        if process.returncode:
            raise SystemExit(f"harness {' '.join(arguments)} failed")
        printed.seek(0)
        return Taken(used.ru_utime, used.ru_stime, time.perf_counter() - began, used.ru_maxrss / 1024), printed.read()


def measure(times: int, checkouts: Iterable[Path], *arguments: str) -> dict[Path, Taken]:
    """What a command takes, the median of several calls, the checkouts in turns."""
    calls: dict[Path, list[Taken]] = {checkout: [] for checkout in checkouts}
    for _ in range(times + 1):
        for checkout, found in calls.items():
            found.append(call(checkout, *arguments)[0])
    return {checkout: Taken(*map(statistics.median, zip(*found[1:], strict=True))) for checkout, found in calls.items()}


def append(path: Path, checkout: Path, **found: object) -> None:
    """Append figures to the history of a benchmark, with the commit and the machine."""
    history = json.loads(path.read_text()) if path.exists() else []
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    history.append({"commit": commit.strip(), "machine": f"{os.cpu_count()} shared CPU cores", **found})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(history, indent=1) + "\n")


def main() -> None:
    """Measure with evaluations from scratch only (a run a cell), and with pre-trainings that cells share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--commands", nargs="+", default=["plan", "status"])
    parser.add_argument("--against", type=Path, help="another checkout, measured in turns with this one")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    checkouts = [HERE, *([options.against.resolve()] if options.against else [])]
    medians: dict[Path, dict[str, dict[str, float]]] = {checkout: {} for checkout in checkouts}
    for what in ("from scratch", "pre-trained"):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "harness.toml").touch()
            path = Path(folder) / "wide.py"
            path.write_text(STUDY.format(cells=options.cells, pretrain=what == "pre-trained"))
            for command in options.commands:
                if command == "status":
                    finish(Store(Path(folder) / "runs"), path)
                for checkout, taken in measure(options.times, checkouts, command, str(path)).items():
                    medians[checkout][f"{command}, {what}"] = {
                        of: round(value, 2) for of, value in taken._asdict().items()
                    }
                    print(
                        f"{command:<6} {options.cells} cells {what}: {taken.user:.2f} s of user CPU, "
                        f"{taken.system:.2f} of the system's, {taken.megabytes:.0f} MB   {checkout}"
                    )
    for checkout in reversed(checkouts) if options.record else ():
        append(RECORDED, checkout, cells=options.cells, calls=options.times, median=medians[checkout])


if __name__ == "__main__":
    main()
