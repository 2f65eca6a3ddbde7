"""Who works on a run: how a process names itself, and how others judge whether it still lives."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from harness.machine import heartbeat_limit
from harness.store.files import disk_errors
from harness.store.records import read_record

BEAT_SECONDS = 10.0


class Owner(TypedDict):
    """A process: `machine` is equal only where pids can be compared; `started` tells reused pids apart.

    job, restart: the Slurm job it belongs to, if any, and how often that had been queued again.
    """

    host: str
    machine: str
    pid: int
    started: str
    job: NotRequired[str]
    restart: NotRequired[str]


UNKNOWN = Owner(host="an unknown host", machine="", pid=0, started="")
"""Who owns what has no readable record of its owner: judged by the heartbeat alone."""


def read_owner(path: Path) -> Owner:
    """The process that a file names; UNKNOWN where the file is missing or damaged.

    Raises:
        HarnessError: a later version of harness wrote it, or the disk refuses.
    """
    return owner_of(read_record(path))


def owner_of(record: Any) -> Owner:
    """The process that a record names; UNKNOWN where it names none."""
    if not isinstance(record, dict) or type(record.get("pid")) is not int:
        return UNKNOWN
    found = {name: record[name] for name in ("host", "machine", "started", "job", "restart") if name in record}
    if not all(isinstance(value, str) for value in found.values()) or not {"host", "machine", "started"} <= set(found):
        return UNKNOWN
    return cast(Owner, found | {"pid": record["pid"]})


def this_process() -> Owner:
    """The owner record of the calling process."""
    pid = os.getpid()
    owner = Owner(host=socket.gethostname(), machine=_machine(), pid=pid, started=_started(pid))
    if job := os.environ.get("SLURM_JOB_ID"):
        owner |= {"job": job, "restart": os.environ.get("SLURM_RESTART_COUNT", "0")}
    return owner


def is_alive(owner: Owner, heartbeat_age: Callable[[], float]) -> bool:
    """Whether an owner still works.

    On this machine a vanished pid is certain at once, so that a restart after a kill need not wait; so is the end of
    what this very Slurm job was before it was queued again. Anything else (another machine, a process that is stopped
    or stuck) is judged by its heartbeat.

    Args:
        heartbeat_age: seconds since the last heartbeat, by the clock of the file system that holds it.
    """
    if owner["machine"] and owner["machine"] == _machine() and _started(owner["pid"]) != owner["started"]:
        return False
    ours = this_process()
    if "job" in owner and owner["job"] == ours.get("job") and owner.get("restart") != ours.get("restart"):
        return False
    return heartbeat_age() < heartbeat_limit()


def _machine() -> str:
    """Identity of the running kernel and pid namespace; empty where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Start time of a process in clock ticks since boot; empty if there is no such process, or it is a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()  # the name may hold spaces; what follows it may not
    return "" if fields[0] == "Z" else fields[19]


class Heartbeat:
    """Touches a file every ten seconds, and several times within the limit, from a thread of its own until stopped."""

    def __init__(self, path: Path) -> None:
        self._path, self._seconds = path, min(BEAT_SECONDS, heartbeat_limit() / 4)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        with disk_errors(path):
            path.touch()
        self._thread.start()

    def _beat(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                os.utime(self._path)
            except FileNotFoundError:
                return  # the folder is gone: so is the ownership
            except OSError:
                continue  # a file server that is away for a moment does not end the ownership

    def stop(self) -> None:
        """End the thread and remove the file: from now on the owner counts as gone."""
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
