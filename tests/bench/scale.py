"""How long `harness plan` takes for 10,000 cells, and `harness status` for 10,000 finished runs.

Run     python tests/bench/scale.py [--cells 10000] [--times 5]
Aim     2 s each, the start of Python included.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness.spec import key
from harness.store import RunFolder, Store
from harness.store.records import sealed
from harness.study import expand, load

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
        start = simmim(scale, mask=RandomMask(size=scale.pixels(size), ratio=ratio / 1000), seed=seed)
    else:
        start = Scratch(backbone=scale.backbone, image_size=scale.image_size)
        recipe = recipe.replace(lr=(100 * ratio + size) * 1e-6)
    return {{"top1": FineTune(start=start, data=scale.data, recipe=recipe, seed=seed)}}


STUDY = Study(
    cell=cell,
    grid=axes(drop_path=(0.0, 0.1, 0.2, 0.3), size=(4, 8, 16, 32), ratio=tuple(range(100, 100 + {cells} // 16))),
    scales=(TINY,),
    reference={{"drop_path": 0.0, "size": 32, "ratio": 100}},
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


def measure(times: int, *arguments: str) -> tuple[float, str]:
    """Median wall time of a command in seconds, and what it printed."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        command = [sys.executable, "-m", "harness.cli", *arguments]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), printed


def main() -> None:
    """Print both figures, once with evaluations from scratch only (a run a cell), once with pre-trainings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    for pretrain in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "harness.toml").touch()
            path = Path(folder) / "wide.py"
            path.write_text(STUDY.format(cells=options.cells, pretrain=pretrain))
            what = "pre-trained" if pretrain else "from scratch"
            plan, printed = measure(options.times, "plan", str(path))
            print(f"plan    {plan:6.2f} s   {what}: {printed.splitlines()[0]}")
            count = finish(Store(Path(folder) / "runs"), path)
            status, printed = measure(options.times, "status", str(path))
            print(f"status  {status:6.2f} s   {count} run folders: {printed.splitlines()[1].strip()}")


if __name__ == "__main__":
    main()
