"""How long `harness run --on slurm` takes to submit many runs, with stand-ins for Slurm's commands that answer at once.

Run     python tests/bench/submit.py [--runs 10000] [--profile] [--record]
Aim     10,000 runs within 60 s, besides what the cluster's own sbatch takes for each array
Record  --record appends to results/bench/submit.json
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "launch"))

from fake_slurm import FakeSlurm  # noqa: E402
from scale import HERE as ROOT  # noqa: E402
from scale import RECORDED, STUDY, append  # noqa: E402

from harness.launch.resources import Resources  # noqa: E402
from harness.launch.site import Site  # noqa: E402
from harness.launch.slurm.submit import Slurm  # noqa: E402
from harness.store import Store  # noqa: E402
from harness.study import expand, load  # noqa: E402


def main() -> None:
    """Submit once to an empty store and once more, when nothing is left to submit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "harness.toml").touch()
        (folder / "wide.py").write_text(STUDY.format(cells=options.runs * 4 // 5, pretrain=True))
        slurm = FakeSlurm(folder / "slurm")
        slurm.says("scontrol", "MaxArraySize = 1001")
        os.environ["PATH"] = slurm.path()
        runs = expand(load(folder / "wide.py")).runs()
        store = Store(folder / "runs")
        cluster = Slurm(store, "bench", {"pretrain": Site(), "evaluation": Site()}, Resources(), folder)
        profile = cProfile.Profile()
        clock, cpu = time.perf_counter(), time.process_time()
        done = profile.runcall(cluster.submit, runs) if options.profile else cluster.submit(runs)
        found = {"clock": time.perf_counter() - clock, "cpu": time.process_time() - cpu}
        print(f"{len(runs)} runs: {done}")
        print(f"{len(slurm.calls('sbatch'))} calls of sbatch; {found['clock']:.1f} s, {found['cpu']:.1f} s of them CPU")
        if options.profile:
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)
            pstats.Stats(profile).sort_stats("cumtime").print_stats(45)
        if options.record:
            append(RECORDED.with_name("submit.json"), ROOT, runs=len(runs), arrays=done.arrays, **found)


if __name__ == "__main__":
    main()
