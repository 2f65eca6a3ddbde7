"""How long a cluster takes for a thousand runs that compute nothing, packed 25 to a job, in arrays of 20.

    python tests/bench/queue_bench.py [RUNS [PACK]]

Starts the cluster of tests/cluster (root and Debian's Slurm packages needed), says how long submission and all took,
and whether any run was computed twice.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from cluster import sleeper  # noqa: E402
from cluster import slurm as test_cluster  # noqa: E402

from harness.launch import Resources  # noqa: E402
from harness.launch.executor import overview  # noqa: E402
from harness.launch.site import Site, Stage  # noqa: E402
from harness.launch.slurm.submit import Slurm  # noqa: E402
from harness.spec import key  # noqa: E402
from harness.store import Store  # noqa: E402


def main(count: int, pack: int) -> None:
    """Submit, wait, count."""
    folder = Path(tempfile.mkdtemp(prefix="queue-"))
    project = folder / "project"
    project.mkdir()
    (project / "harness.toml").touch()
    shutil.copy(sleeper.__file__, project)
    runs = {key(run): run for run in map(sleeper.evaluation, range(count))}
    site = Site(minutes=2, pack=pack)
    with test_cluster.start(folder / "cluster", max_array_size=20) as cluster:
        os.environ.update(cluster.environment)
        store = Store(folder / "runs")
        store.root.mkdir()
        begun = time.monotonic()
        sites: dict[Stage, Site] = {"pretrain": site, "evaluation": site}
        done = Slurm(store, "bench", sites, Resources(device="cpu"), project, "sleeper").submit(runs)
        submitted = time.monotonic() - begun
        while (words := Counter(place.word for place in overview(runs, store).places.values()))["done"] < count:
            if not words["queued"] and not words["running"]:
                break
            time.sleep(2)
        total = time.monotonic() - begun
    attempts = Counter(len(store.folder(name).attempts()) for name in runs)
    print(
        f"{count} runs, {done.jobs} jobs, {done.arrays} arrays: submitted in {submitted:.1f} s, over in {total:.1f} s"
    )
    print(f"words: {dict(words)}; attempts a run: {dict(attempts)}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000, int(sys.argv[2]) if len(sys.argv) > 2 else 25)
