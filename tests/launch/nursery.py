"""A process that has imported torch, and forks one that computes a store's runs for each line that it reads.

Prints the child's pid. So a test can kill many processes, and pay for one import.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path

import torch

from harness.launch import Inline, Resources, drive
from harness.launch import job as _job  # imported before the fork, like everything that takes long
from harness.store import Store


def child(root: Path) -> int:
    """Compute what is registered in a store."""
    store = Store(root)
    names = store.keys()
    inline = Inline(store, Resources(device="cpu", checkpoint_seconds=0.0))
    inline.submit({name: store.spec(name) for name in names})
    drive(inline)
    return int(set(inline.queue.endings.values()) != {"done"})


def main() -> None:
    """Serve until the input ends."""
    assert _job
    torch.set_num_threads(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                code = child(Path(line.strip()))
            except BaseException:
                traceback.print_exc()
                code = 2
            os._exit(code)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
