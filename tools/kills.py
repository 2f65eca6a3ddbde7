"""Kill processes, and have the disk refuse, in the middle of tiny runs; what comes out is equal bit for bit.

    python tools/kills.py                # 200 kills and disk errors at random file operations, and 60 signals
    python tools/kills.py --share 0.05

A study of two pre-trainings and two fine-tunings is computed by one process after the other, as plain `harness run`
does. Each process meets one trouble: it is killed at a file operation of the store, with the file that it was writing
cut off or not; or an operation, or all from one on, end in a disk error; or it gets a signal at a random moment. Once
all runs are done they are compared with undisturbed ones. Counted are runs that differ, that are lost (not done, or
failed) and that are computed twice (again, though there was a result).
"""

from __future__ import annotations

import argparse
import errno
import mmap
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "launch")]

import torch  # noqa: E402
from tiny_runs import finetuning, outcome, pretraining  # noqa: E402

from harness.cli.launch.live import Stop  # noqa: E402
from harness.launch import Inline, Resources, drive, job  # noqa: E402
from harness.spec import HarnessError, Run, key  # noqa: E402
from harness.store import Store, files  # noqa: E402
from harness.store.cleaning import left_by_kills  # noqa: E402

OPERATIONS = frozenset(
    ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.utime", "os.listdir")
)
"""Events of Python's audit hooks; os.fsync is counted besides."""
ERRORS = (errno.EIO, errno.ESTALE, errno.ENOSPC, errno.EDQUOT, errno.EROFS)
SIGNALS = ("TERM", "INT", "KILL", "USR2", "STOP", "INT INT")
DONE, LEFT, SAID, BROKEN = 0, 1, 3, 2
"""Exit codes of a process: all done; some not; it ended with one clear line; it ended with a traceback."""


@dataclass
class Trouble:
    """What a process meets at one of its file operations. at: counted from 1. errors: how many; 0 for a kill."""

    root: str
    at: int
    errors: int
    number: int
    cut: float
    met: mmap.mmap
    count: int = 0

    def begin(self) -> None:
        """Meet it in this process, which must end afterwards."""
        self._fsync = os.fsync
        os.fsync = self._sync  # type: ignore[assignment]
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in OPERATIONS and isinstance(arguments[0], str | os.PathLike) and self.root in str(arguments[0]):
            self._operation()

    def _sync(self, descriptor: int) -> None:
        self._operation(descriptor)
        self._fsync(descriptor)

    def _operation(self, descriptor: int | None = None) -> None:
        self.count += 1
        self.met[1:9] = self.count.to_bytes(8, "big")
        if not self.at <= self.count < self.at + max(self.errors, 1):
            return
        self.met[0] = 1
        if self.errors:
            raise OSError(self.number, os.strerror(self.number))
        if descriptor is not None and self.cut < 1 and not os.path.isdir(f"/proc/self/fd/{descriptor}"):
            os.ftruncate(descriptor, int(os.fstat(descriptor).st_size * self.cut))
        os.kill(os.getpid(), signal.SIGKILL)


def compute(root: Path, runs: dict[str, Run], trouble: Trouble | None) -> int:
    """What a process does."""
    torch.set_num_threads(1)
    stop = Stop()
    if trouble is not None:
        trouble.begin()
    try:
        inline = Inline(Store(root), Resources(device="cpu", checkpoint_seconds=0.0))
        inline.submit(runs)
        drive(inline, stopping=stop)
    except (HarnessError, OSError):  # the command line makes one line of either
        return SAID
    return DONE if set(inline.queue.endings.values()) == {"done"} else LEFT


def started(root: Path, runs: dict[str, Run], trouble: Trouble | None = None) -> int:
    """The pid of such a process."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    code = BROKEN
    try:
        code = compute(root, runs, trouble)
    except KeyboardInterrupt:  # a second signal
        code = LEFT
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def ended(pid: int) -> int:
    """How it ends: its exit code, or minus the number of the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Campaign:
    """Troubles until so many were met, and what became of the runs."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.draw, self.folder, self.met = random.Random(seed), folder, mmap.mmap(-1, 9)
        firsts = [pretraining(epochs=1, seed=seed) for seed in range(2)]
        made: list[Run] = [*firsts, *(finetuning(first, epochs=1) for first in firsts)]
        self.runs: dict[str, Run] = {key(run): run for run in made}
        self.whole = Store(folder / "whole")
        begun = time.monotonic()
        trouble = Trouble(str(self.whole.root), 10**9, 1, errno.EIO, 1.0, self.met)
        assert ended(started(self.whole.root, self.runs, trouble)) == DONE
        self.seconds, self.operations = time.monotonic() - begun, int.from_bytes(self.met[1:9], "big")
        self.found: Counter[str] = Counter()

    def run(self, troubles: int, signals: int) -> None:
        """Compute study after study."""
        number = 0
        while (met := self.found["kills"] + self.found["disk errors"]) < troubles or self.found["signals"] < signals:
            store = Store(self.folder / f"store-{(number := number + 1)}")
            while not self._whole(store):
                before = self._results(store)
                disturb = self._signal if met >= troubles else self._trouble
                code = disturb(store)
                self.found["tracebacks"] += code == BROKEN
                self._check(store, before)
                if code == DONE:
                    break
                met = self.found["kills"] + self.found["disk errors"]
            self._compare(store)

    def _trouble(self, store: Store) -> int:
        kill = self.draw.random() < 0.5
        trouble = Trouble(
            str(store.root),
            at=self.draw.randrange(1, self.operations // 4),  # so that a study meets several
            errors=0 if kill else self.draw.choice((1, 1, 3, 10**9)),
            number=self.draw.choice(ERRORS),
            cut=self.draw.choice((1.0, self.draw.random())),
            met=self.met,
        )
        self.met[0] = 0
        code = ended(started(store.root, self.runs, trouble))
        self.found["kills" if kill else "disk errors"] += self.met[0]
        self.found["of these passed by in the same process"] += self.met[0] and code == DONE
        return code

    def _signal(self, store: Store) -> int:
        which = self.draw.choice(SIGNALS)
        pid = started(store.root, self.runs)
        time.sleep(self.draw.uniform(0.0, self.seconds / 4))
        self.found["signals"] += os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        for name in which.split():
            os.kill(pid, signal.Signals[f"SIG{name}"])
            time.sleep(self.draw.uniform(0.0, 0.05))
        if which == "STOP":
            os.kill(pid, signal.SIGCONT)
        return ended(pid)

    def _results(self, store: Store) -> dict[str, bytes]:
        found = {name: store.folder(name).result for name in self.runs}
        return {name: path.read_bytes() for name, path in found.items() if store.result(name)}

    def _check(self, store: Store, before: dict[str, bytes]) -> None:
        """No result is gone or changed, none is computed twice, and no run has failed."""
        now = self._results(store)
        for name in self.runs:
            state = store.state(name)
            self.found["failed"] += state.word == "failed"
            if name in before:
                self.found["results lost"] += now.get(name) != before[name]
                result = store.result(name)
                latest = store.folder(name).attempts()[-1].number
                self.found["computed twice"] += result is None or latest > result.attempt

    def _whole(self, store: Store) -> bool:
        return all(store.result(name) for name in self.runs)

    def _compare(self, store: Store) -> None:
        self.found["studies"] += 1
        for name in self.runs:
            if store.result(name) is None:
                self.found["lost"] += 1
            elif outcome(store, name) != outcome(self.whole, name):
                self.found["different"] += 1
            else:
                self.found["runs equal bit for bit"] += 1
        self.found["temporary files for clean"] += len(left_by_kills(store, seconds=-1.0))


def main() -> int:
    """Run the campaign and print the counts; 1 if anything was lost, differs or was computed twice."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="share of the 200 kills and errors and 60 signals")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    files.PAUSES = (0.0, 0.0, 0.0)
    assert job  # imported before the forks, like everything that takes long
    with tempfile.TemporaryDirectory() as name:
        campaign = Campaign(Path(name), chosen.seed)
        print(f"{campaign.operations} file operations, {campaign.seconds:.1f} s without trouble", flush=True)
        campaign.run(round(200 * chosen.share), round(60 * chosen.share))
    for what in ("lost", "results lost", "computed twice", "different", "failed", "tracebacks"):
        campaign.found[what] += 0
    for what, count in sorted(campaign.found.items()):
        print(f"{count:>6}  {what}")
    bad = ("lost", "results lost", "computed twice", "different", "failed", "tracebacks")
    return int(any(campaign.found[what] for what in bad))


if __name__ == "__main__":
    sys.exit(main())
