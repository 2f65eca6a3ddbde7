"""Leases: which process owns a folder of the store, and whether it still lives.

Whatever only one process may write to (a run, a search) has a folder of numbered folders; the highest number owns. A
process takes it over by publishing the next number, which succeeds for one process only, and its lease touches a
heartbeat file. An owner that is found dead is succeeded; if it was only stopped, it finds a higher number when it wakes
up, and must not write any more. Entries of the submission log are numbered folders too; the life of a process that
wrote one is judged here as well.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from harness.machine import heartbeat_limit
from harness.store.files import disk_errors, publish_folder, text_of
from harness.store.layout import AttemptFolder, numbers
from harness.store.records import read_record, sealed

BEAT_SECONDS = 10.0


class Owner(TypedDict):
    """A process, as a record names it.

    machine: identity of kernel and pid namespace, so that pids are only compared where equal ones are the same process.
    started: start time of the process, which tells a reused pid apart.
    job, restart: id of the Slurm job that the process belongs to, if any, and how often that was queued again.
    """

    host: str
    machine: str
    pid: int
    started: str
    job: NotRequired[str]
    restart: NotRequired[str]


UNKNOWN = Owner(host="an unknown host", machine="", pid=0, started="")
"""Owner of a folder without a readable owner record: its life is judged by the heartbeat alone."""


class Lease:
    """This process's right to write below a folder, from the publication of its numbered folder until `release`.

    A thread touches the heartbeat every ten seconds, or four times within a shorter HARNESS_HEARTBEAT_LIMIT.
    """

    def __init__(self, own: AttemptFolder) -> None:
        self._own = own
        self._seconds = min(BEAT_SECONDS, heartbeat_limit() / 4)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        with disk_errors(own.heartbeat):
            own.heartbeat.touch()
        self._thread.start()

    def holds(self) -> bool:
        """True while this process owns the folder: nobody has published a higher number."""
        return numbers(self._own.path.parent, 4)[-1:] == [self._own.number]

    def release(self) -> None:
        """End the heartbeat and remove its file: from now on this owner counts as dead."""
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._own.heartbeat.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                os.utime(self._own.heartbeat)
            except FileNotFoundError:
                return  # the folder was deleted, and the lease with it
            except OSError:
                continue  # a file server that is away for a moment does not end the lease


def publish_owner(own: AttemptFolder, add: Callable[[AttemptFolder], object] = lambda fresh: None) -> bool:
    """Publish a numbered folder with this process as its owner; False if another process was faster.

    The heartbeat file is part of what is published, so nobody sees an owner that never gave a sign of life.

    Args:
        add: makes what else the folder is to hold from the beginning.
    """

    def fill(fresh: Path) -> None:
        files = AttemptFolder(fresh)
        files.owner.write_bytes(sealed(this_process()))
        files.heartbeat.touch()
        add(files)

    return publish_folder(own.path, fill)


def owner_lives(own: AttemptFolder, owner: Owner, now: Callable[[], float]) -> bool:
    """True if the owner of a numbered folder still works, by its last heartbeat. now: gives the time, as `clock`."""
    return is_alive(owner, lambda: now() - modified(own.heartbeat))


def is_alive(owner: Owner, silent_seconds: Callable[[], float]) -> bool:
    """True if a process still works.

    A process that has vanished from this machine is dead at once, so that a restart after a kill need not wait. So is
    an earlier life of the Slurm job that calls, before it was queued again. All others (on another machine, stopped or
    stuck) are dead after `heartbeat_limit` seconds without a sign of life.

    Args:
        silent_seconds: time since the last sign of life, by the clock of the store's file system.
    """
    if owner["machine"] and owner["machine"] == _machine() and _started(owner["pid"]) != owner["started"]:
        return False
    ours = this_process()
    if "job" in owner and owner["job"] == ours.get("job") and owner.get("restart") != ours.get("restart"):
        return False
    return silent_seconds() < heartbeat_limit()


def clock(root: Path) -> float:
    """Seconds since 1970 by the clock that the file system of a folder stamps files with.

    Processes on several hosts compare times of files, so no host's own clock, which may be wrong, may enter.
    """
    file = root / f".clock-{uuid.uuid4().hex[:8]}"
    try:
        file.touch()
        return file.stat().st_mtime
    except OSError:
        return time.time()  # read-only or full: this machine's clock is the next best
    finally:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def modified(path: Path) -> float:
    """Modification time of a file in seconds since 1970, 0 if it does not exist."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def read_owner(path: Path) -> Owner:
    """The process that a file names; UNKNOWN if the file is missing or damaged.

    Raises:
        HarnessError: a later version of harness wrote it, or the disk refuses.
    """
    return owner_of(read_record(path))


def owner_of(record: Any) -> Owner:
    """The process that a record names; UNKNOWN if it names none."""
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


def _machine() -> str:
    """Identity of the running kernel and pid namespace; empty if the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Start time of a process in clock ticks since boot; empty if there is no such process, or it has ended.

    One that has ended is listed until its parent has asked for it: as a zombie (Z), then for a moment as dead (X).
    """
    text = text_of(Path(f"/proc/{pid}/stat"))
    fields = text.rpartition(")")[2].split()  # the process name before it may hold spaces and brackets
    return "" if not fields or fields[0] in ("Z", "X") else fields[19]
