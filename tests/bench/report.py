"""How long `harness report` takes for 1,000 cells of 5 seeds, and how soon a browser shows its page.

Run     python tests/bench/report.py [--cells 1000] [--seeds 5]
Aim     30 s, the start of Python included.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scale import HERE, STUDY, call

from harness.spec import Pretrain, key
from harness.store import RunFolder, Store
from harness.store.records import sealed
from harness.study import expand, load

ENVIRONMENT = {
    "commit": "a" * 40, "dirty": False, "device": "cpu", "threads": 1, "host": "node", "started": "2026-01-01",
    "versions": {"torch": "2.6.0", "timm": "1.0.20", "harness": "0.1.0"},
}  # fmt: skip
EPOCHS = 100
IMAGES, SIDE = 8, 96


def finish(store: Store, path: Path, seeds: int) -> int:
    """Write folders of runs: most done, some failed, some missing. Pre-trainings have curves and reconstructions."""
    runs, chance = expand(load(path), seeds=seeds).runs(), random.Random(0)
    pictures = reconstructions()
    for run in runs.values():
        if (fate := chance.random()) < 0.02:
            continue
        name = key(run)
        folder = RunFolder(store.root / name)
        attempt = folder.attempt(1)
        attempt.artefacts.mkdir(parents=True)
        folder.spec.write_bytes(sealed({"key": name, "run": run.to_plain()}))
        attempt.owner.write_bytes(sealed({"host": "", "machine": "", "pid": 1, "started": ""}))
        attempt.environment.write_text(json.dumps(ENVIRONMENT))
        if fate < 0.04:
            attempt.error.write_text("Traceback (most recent call last):\nRuntimeError: CUDA out of memory\n")
            continue
        if isinstance(run, Pretrain):
            lines = ({"step": step, "epoch": step, "loss": 1 / (1 + step)} for step in range(1, EPOCHS + 1))
            attempt.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
            (attempt.artefacts / "reconstructions.npz").write_bytes(pictures)
        metrics = {"top1": chance.gauss(80, 0.1), "loss": 1.0}
        record = {"metrics": metrics, "seconds": 1.0, "weights": "", "attempt": 1}
        folder.result.write_bytes(sealed({"key": name, **record}))
    return len(runs)


def reconstructions() -> bytes:
    """An artefact with noise, which compresses worst."""
    noise = np.random.default_rng(0).integers(0, 256, (3, IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, original=noise[0], masked=noise[1], predicted=noise[2], hidden=noise[0][..., 0] > 128)
    return buffer.getvalue()


def browse(path: Path, folder: Path) -> tuple[float, float]:
    """Seconds until a browser has loaded the page, and until it has sorted the table."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "report"))
    from browser import Browser

    browser = Browser(folder)
    began = time.perf_counter()
    browser.open(path)
    loaded = time.perf_counter()
    browser.ask("document.querySelector('#cells th:nth-last-child(3) button').click()")
    browser.ask("document.body.offsetHeight")
    end = time.perf_counter()
    browser.close()
    return loaded - began, end - loaded


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "harness.toml").touch()
        path = Path(folder) / "wide.py"
        path.write_text(STUDY.format(cells=options.cells, pretrain=True))
        count = finish(Store(Path(folder) / "runs"), path, options.seeds)
        os.environ["COLUMNS"] = "200"
        taken, printed = call(HERE, "report", str(path), "--seeds", str(options.seeds))
        page = next(Path(folder).glob("results/*/*/report.html"))
        print(f"report  {taken.clock:6.2f} s   {count} runs; {len(printed.splitlines())} lines")
        print(f"of it   {taken.user + taken.system:6.2f} s of processor time")
        print(f"page    {page.stat().st_size / 1e6:6.2f} MB")
        loaded, sorted_after = browse(page, Path(folder) / "browser")
        print(f"browser {loaded:6.2f} s to load, {sorted_after:.2f} s to sort")


if __name__ == "__main__":
    main()
