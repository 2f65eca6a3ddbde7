"""Committed results computed again, some of them, and compared to the last bit.

    python tools/recompute.py results/*.records                  # three runs of all that the files hold
    python tools/recompute.py results/*.records --runs 5 --store again --table results/recomputed.csv
    python tools/recompute.py results/*.records --processor AMD  # of those that such a processor made

The runs are drawn by random.Random(18).sample over the sorted keys. They and the pre-trainings that they start from are
computed from their specs, on the CPU with one thread, in an empty store: a temporary one, or one that is kept and in
which the same command goes on. Equal are all metrics, the weights, and what was logged on the way, times aside. Where
instructions or versions differ from those of the committed run, last bits may differ too: those are named. A table,
which tools/evidence.py reads, has a line a run. The exit code is 1 if anything differs.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.launch.job import prepare, work
from harness.launch.resources import Resources
from harness.report.collect import PROVENANCE
from harness.spec import HarnessError, key, upstreams
from harness.store import Store
from harness.store.exchange import import_records

SEED = 18
TIMES = ("seconds", "images_per_second")


def drawn(names: Sequence[str], count: int) -> list[str]:
    """So many of these keys, the same ones whatever their order."""
    return random.Random(SEED).sample(sorted(names), count)


def compute(committed: Store, again: Store, names: Sequence[str]) -> list[str]:
    """Compute runs and what they start from; returns all of their keys, each after what it starts from.

    Raises:
        HarnessError: a run fails.
    """
    resources = Resources(device="cpu")
    device = prepare(resources)
    specs = [committed.spec(name) for name in names]
    chains = {key(run): run for spec in specs for run in (*upstreams(spec), spec)}
    for name, run in chains.items():
        if again.result(name) is None:
            event = work(again, run, device, resources, report=lambda event: None)
            if again.result(name) is None:
                raise HarnessError(f"{name}: {event.kind} {event.text}")
    return list(chains)


def differences(committed: Store, again: Store, name: str) -> Iterator[str]:
    """What of a run is not equal in two stores, in words; nothing where all is."""
    one, two = committed.result(name), again.result(name)
    assert one is not None
    assert two is not None
    for metric in sorted({*one.metrics, *two.metrics}):
        if one.metrics.get(metric) != two.metrics.get(metric):
            yield f"{metric} {one.metrics.get(metric)!r}, here {two.metrics.get(metric)!r}"
    if one.weights != two.weights:
        yield f"weights {one.weights[:12]}, here {two.weights[:12]}"
    logs = [[_timeless(line) for line in store.metrics(name)] for store in (committed, again)]
    if logs[0] != logs[1]:
        same = next((number for number, (a, b) in enumerate(zip(*logs, strict=False)) if a != b), min(map(len, logs)))
        yield f"what was logged, from line {same + 1} of {len(logs[0])}"


def _timeless(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in TIMES}


def surroundings(committed: Store, again: Store, name: str) -> Iterator[str]:
    """Where and with what a run was computed, as far as it differs."""
    one, two = (_facts(store.environment(name)) for store in (committed, again))
    yield from (
        f"{fact} {one.get(fact) or 'unknown'}, here {two.get(fact) or 'unknown'}"
        for fact in PROVENANCE
        if one.get(fact) != two.get(fact)
    )


def _facts(environment: dict[str, Any]) -> dict[str, Any]:
    return {**environment.get("versions", {}), **environment}


def main(arguments: Sequence[str]) -> int:
    """Draw, compute and compare; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="files of harness records export")
    parser.add_argument("--runs", type=int, default=3, help="how many are drawn")
    parser.add_argument("--processor", default="", help="draw among runs of processors whose name has this text")
    parser.add_argument("--store", type=Path, help="kept; by default a temporary one")
    parser.add_argument("--table", type=Path, help="a CSV file of the outcome")
    chosen = parser.parse_args(arguments)
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        committed, again = Store(Path(folder, "committed")), Store(chosen.store or Path(folder, "again"))
        merged = import_records(committed, chosen.files)
        made_by = {name: committed.environment(name).get("processor") or "" for name in merged.new}
        among = [name for name, processor in made_by.items() if chosen.processor in processor]
        names = drawn(among, min(chosen.runs, len(among)))
        print(f"{len(names)} of {len(among)} runs: {', '.join(names)}", flush=True)
        for name in compute(committed, again, names):
            if committed.result(name) is None:
                print(f"not committed  {name}")
                continue
            found, around = list(differences(committed, again, name)), list(surroundings(committed, again, name))
            rows.append((name, "differs" if found else "equal", "; ".join(found), "; ".join(around)))
            print("  ".join((rows[-1][1], name, rows[-1][2])).rstrip())
            print("".join(f"    {line}\n" for line in around), end="", flush=True)
    if chosen.table:
        with chosen.table.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([("run", "outcome", "differences", "surroundings"), *rows])
    return int(any(outcome == "differs" for _, outcome, *_ in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
