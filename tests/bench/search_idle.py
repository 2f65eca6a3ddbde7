"""Idle nodes of a search on a cluster of four: a free slot gets the next trial at once, or batches of four wait.

    python tests/bench/search_idle.py [TRIALS] [SHORTEST] [LONGEST]

Starts the test cluster (root, Linux), runs a search of TRIALS cells (24) with four at a time whose runs take between
SHORTEST (20) and LONGEST (80) seconds, then the same runs in batches of four, each begun when the last of the batch
before has ended. Idle is the share of node time, from the first job's start to the last trial's start, in which no job
holds the node, as squeue shows it every half second; "not computing" counts a node as busy only while its run is at
work, so that the start of Python counts as idle.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "search")]

import toy  # noqa: E402
from cluster import slurm as test_cluster  # noqa: E402

from harness.launch import Resources  # noqa: E402
from harness.launch.site import Site, Stage  # noqa: E402
from harness.launch.slurm.submit import Slurm  # noqa: E402
from harness.search.measure import with_starts  # noqa: E402
from harness.search.session import history, open_search, run_search  # noqa: E402
from harness.spec import Run, key  # noqa: E402
from harness.store import Store  # noqa: E402

NODES = 4
SITE: dict[Stage, Site] = {stage: Site(minutes=10) for stage in ("pretrain", "evaluation")}


class Watch:
    """Counts, every half second, the nodes that a job holds."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            asked = subprocess.run(
                ["squeue", "-h", "-t", "R,CG", "-o", "%N"], capture_output=True, text=True, check=False
            )
            self.seen.append((time.time(), len({node for node in asked.stdout.split() if node})))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def idle(self, until: float) -> float:
        """Share of node time that nobody held, from the first job to a moment."""
        begun = next(moment for moment, busy in self.seen if busy)
        held = total = 0.0
        for (moment, busy), (later, _) in zip(self.seen, self.seen[1:], strict=False):
            if moment >= begun and later <= until:
                held, total = held + busy * (later - moment), total + NODES * (later - moment)
        return 1 - held / total


def spans(store: Store) -> list[tuple[float, float]]:
    """When each run was at work."""
    begun: dict[str, float] = {}
    found = []
    for line in (store.root / ".log").read_text().splitlines():
        word, name, moment = line.split()
        if word == "begin":
            begun[name] = float(moment)
        else:
            found.append((begun[name], float(moment)))
    return sorted(found)


def told(title: str, store: Store, watch: Watch) -> None:
    at_work = spans(store)
    first, last = at_work[0][0], at_work[-1][0]
    busy = sum(min(end, last) - begin for begin, end in at_work)
    computing = 1 - busy / (NODES * (last - first))
    print(
        f"{title}: {len(at_work)} runs, mean {sum(e - b for b, e in at_work) / len(at_work):.1f} s, "
        f"over in {at_work[-1][1] - first:.0f} s (last end {max(e for _, e in at_work) - first:.0f} s); "
        f"nodes idle {100 * watch.idle(last):.1f} %, not computing {100 * computing:.1f} %",
        flush=True,
    )


def cluster(store: Store, project: Path) -> Slurm:
    """Where runs are computed."""
    return Slurm(store, "bench", SITE, Resources(device="cpu"), project, "toy")


def search(store: Store, project: Path, trials: int) -> list[Run]:
    """Run the search; returns the runs in the order of trials."""
    opened = open_search(toy.toy(sampler="random", trials={"toy": trials}), store)
    print(run_search(opened, cluster(store, project), budget=trials, parallel=NODES, confirm=False))
    found, _ = history(opened)
    runs: list[Run] = []
    for trial in found:
        if trial.computed:
            runs += with_starts(opened.measure.wanted(opened.measure.candidate(trial.cell, [0]))).values()
    return runs


def batches(runs: list[Run], store: Store, project: Path) -> None:
    """The same runs, four by four."""
    for first in range(0, len(runs), NODES):
        batch = {key(run): run for run in runs[first : first + NODES]}
        cluster(store, project).submit(batch)
        while not all(store.result(name) for name in batch):
            time.sleep(1)


def main(trials: int, shortest: float, longest: float) -> None:
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    project = folder / "project"
    project.mkdir()
    (project / "harness.toml").touch()
    shutil.copy(toy.__file__, project)
    try:
        with test_cluster.start(folder / "cluster") as cluster:
            os.environ.update(cluster.environment)
            stores = [Store(folder / name) for name in ("ours", "batches")]
            for store in stores:
                store.root.mkdir()
                (store.root / ".seconds").write_text(f"{shortest} {longest}")
            watch = Watch()
            runs = search(stores[0], project, trials)
            watch.stop()
            told("a free slot gets the next trial", stores[0], watch)
            watch = Watch()
            batches(runs, stores[1], project)
            watch.stop()
            told("batches of four", stores[1], watch)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    given = [float(word) for word in sys.argv[1:]]
    main(int(given[0]) if given else 24, *(given[1:3] or (20.0, 80.0)))
