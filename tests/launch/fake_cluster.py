"""A cluster whose nodes are processes of this machine: all that a further executor takes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from harness.launch import Inline, Queue, Resources, drive
from harness.launch.executor import Overview, Place, Submitted, from_files, with_blocked
from harness.spec import Run, key, upstream
from harness.store import Store

Runs = dict[str, Run]


class FakeCluster:
    def __init__(self, store: Store) -> None:
        self.store, self.jobs = store, dict[str, subprocess.Popen[bytes]]()

    def submit(self, runs: Runs, *, retry: bool = False) -> Submitted:
        chosen = set(Queue(runs, self.store, retry=retry).open()) - self._live()
        for name in map(self.store.register, [runs[name] for name in chosen]):
            with Path(f"{self.store.root}/.{name}.log").open("wb") as log:
                command = [sys.executable, __file__, str(self.store.root), name, "retry" * retry]
                self.jobs[name] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        return Submitted(len(chosen), len(chosen))

    def states(self, runs: Runs) -> Overview:
        live, places = self._live(), from_files(self.store.states(runs))  # the jobs first: one may end in between
        for name in live & {name for name in runs if places[name].word not in ("done", "running")}:
            places[name] = Place("queued", "", places[name].state, str(self.jobs[name].pid), 1)
        return Overview(with_blocked(runs, places, self.store))

    def cancel(self, runs: Runs) -> tuple[list[str], list[str]]:
        for name in (chosen := self._live() & set(runs)):
            self.jobs[name].terminate()
        return sorted(chosen), []

    def logs(self, runs: Runs) -> dict[str, Path]:
        return {name: Path(f"{self.store.root}/.{name}.log") for name in runs if name in self.jobs}

    def pending(self) -> bool:
        return False

    def wait(self, *_: object) -> None:
        time.sleep(0.05)

    def close(self, *_: object) -> None:
        """Jobs go on."""

    def _live(self) -> set[str]:
        ended = {name for name in self.jobs if self.store.state(name).word in ("done", "failed")}
        return {name for name, job in self.jobs.items() if (job.wait() if name in ended else job.poll()) is None}


def job(root: str, name: str, retry: str) -> None:
    """Compute one run, after what it starts from."""
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    store = Store(Path(root))
    first = upstream(run := store.spec(name))
    while first and store.state(key(first)).word not in ("done", "failed") and not stopped:
        time.sleep(0.05)
    node = Inline(store, Resources(device="cpu"), program="tiny_program")
    node.submit({name: run}, retry=bool(retry))
    drive(node, lambda event: print(event.kind, event.text, flush=True), stopping=lambda: bool(stopped))


if __name__ == "__main__":
    job(*sys.argv[1:])
