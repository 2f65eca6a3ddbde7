"""Checks of cluster, profile and store that find reasons for failing jobs before anything is queued."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.launch.site import Site, Stage
from harness.launch.slurm import questions
from harness.spec import HarnessError
from harness.store.files import require_exclusive_creation, text_of

SHARED_TYPES = frozenset(
    {"nfs", "nfs4", "lustre", "gpfs", "beegfs", "beegfs_nodev", "ceph", "fuse.ceph", "afs", "panfs", "wekafs",
     "fuse.sshfs", "fuse.glusterfs", "glusterfs", "orangefs", "9p", "virtiofs", "cifs", "smb3", "vast"}
)  # fmt: skip
SMALLEST_SPACE = 100_000_000


@dataclass(frozen=True)
class Problem:
    """A finding in one line. stops: True if nothing should be queued before it is mended."""

    text: str
    stops: bool = True


def problems(store: Path, site: Mapping[Stage, Site]) -> list[Problem]:
    """All problems of the site profile, the cluster and the store, the most serious first."""
    try:
        questions.require_slurm()
    except HarnessError as error:
        return [Problem(str(error)), *_exclusive(store)]
    found = [problem for stage, own in site.items() for problem in _stage(stage, own)]
    found += [*_store(store, site), *_exclusive(store)]
    if _answer("sacct", "-X", "-n", "-S", "now") is None:
        text = "sacct does not answer: how a job ended is known from files and squeue alone"
        found.append(Problem(text, stops=False))
    return list(dict.fromkeys(found))


def probe_node(store: Path, site: Site) -> list[Problem]:
    """Problems found by a short job on a node: store or interpreter not visible there, no command to requeue."""
    python = site.python or shlex.quote(sys.executable)
    missing = shlex.quote(f"the store {store} is not there, or not writable, on")
    without = shlex.quote(f"{python} has no submitit on")
    script = (
        f"test -w {shlex.quote(str(store))} || echo {missing} $SLURMD_NODENAME; "
        f"{site.container or ''} {python} -c 'import submitit' || echo {without} $SLURMD_NODENAME; "
        "command -v scontrol >/dev/null || echo 'note: no scontrol on '$SLURMD_NODENAME': jobs are not queued again'"
    )
    command = ["srun", "--quiet", "--time=2", "--ntasks=1", "--job-name=mim-doctor", *site.placement]
    try:
        done = subprocess.run(
            [*command, "bash", "-c", script], capture_output=True, text=True, timeout=600, check=False
        )
    except subprocess.TimeoutExpired:
        return [Problem("no node took the test job within ten minutes", stops=False)]
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return [Problem(line.removeprefix("note: "), stops=not line.startswith("note: ")) for line in lines]


def _stage(stage: str, site: Site) -> Iterator[Problem]:
    partitions = _partitions()
    if site.partition and site.partition not in partitions:
        valid = ", ".join(sorted(partitions))
        yield Problem(f"[slurm.{stage}] partition {site.partition}: there is none; valid: {valid}")
        return
    name = site.partition or next((name for name, (_, default) in partitions.items() if default), "")
    longest = partitions.get(name, (None, False))[0]
    minutes = site.allocation_minutes(site.pack)
    if longest is not None and minutes > longest:
        yield Problem(f"[slurm.{stage}] {minutes} minutes a job: partition {name} allows {longest}")
    yield from _accounts(stage, site)
    features = {word for line in _lines("sinfo", "-h", "-o", "%f") for word in line.split(",")}
    asked = set(re.findall(r"[A-Za-z_][A-Za-z0-9_.-]*", site.constraint or ""))
    if unknown := sorted(asked - features):
        valid = ", ".join(sorted(features - {"(null)"})) or "none"
        yield Problem(f"[slurm.{stage}] constraint {unknown[0]}: no node has this feature; valid: {valid}")
    kinds = {word.split(":")[0] for line in _lines("sinfo", "-h", "-o", "%G") for word in line.split(",")}
    gres = (site.gres or ("gpu" if site.gpus_per_node else "")).split(":")[0]
    if gres and gres not in kinds:
        valid = ", ".join(sorted(kinds - {"(null)"})) or "none"
        yield Problem(f"[slurm.{stage}] gres {gres}: no node has any; valid: {valid}")


def _accounts(stage: str, site: Site) -> Iterator[Problem]:
    for field, value, command in (
        ("account", site.account, ("sacctmgr", "-n", "-P", "show", "account", "format=Account")),
        ("qos", site.qos, ("sacctmgr", "-n", "-P", "show", "qos", "format=Name")),
    ):
        known = _lines(*command) if value else []
        if value and known and value not in known:
            yield Problem(f"[slurm.{stage}] {field} {value}: there is none; valid: {', '.join(sorted(set(known)))}")


def _exclusive(store: Path) -> Iterator[Problem]:
    try:
        if not require_exclusive_creation(_existing(store)):
            text = f"the store {store} lies on a disk without hard links: results are created by their names instead"
            yield Problem(text, stops=False)
    except HarnessError as error:
        yield Problem(str(error))


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.exists())


def _store(store: Path, site: Mapping[Stage, Site]) -> Iterator[Problem]:
    place = _existing(store)
    if not os.access(place, os.W_OK):
        yield Problem(f"the store {store} cannot be written")
        return
    if "%" in str(store):
        yield Problem(f"the store {store}: Slurm takes % in the place of a log for a sign of its own; rename it")
    if shutil.disk_usage(place).free < SMALLEST_SPACE:
        yield Problem(f"the disk of the store {store} has less than 100 MB left")
    kind = _file_system(place)
    hosts = re.findall(r"NodeHostName=(\S+)", "\n".join(_lines("scontrol", "show", "node", "-o")))
    elsewhere = [
        host for host in sorted(set(hosts)) if host not in (socket.gethostname(), socket.gethostname().split(".")[0])
    ]
    if kind not in SHARED_TYPES and elsewhere and not any(own.shared_store for own in site.values()):
        yield Problem(
            f"the store {store} lies on a disk of this machine ({kind}), which {elsewhere[0]} may not see; name a "
            "shared place with --store or `store` in harness.toml, or set shared_store = true in [slurm] if it is one"
        )


def _partitions() -> dict[str, tuple[int | None, bool]]:
    """For each partition its time limit in minutes (None: no limit) and whether it is the default."""
    found = {}
    for line in _lines("sinfo", "-h", "-o", "%P|%l"):
        name, _, limit = line.partition("|")
        found[name.rstrip("*")] = (_minutes(limit), name.endswith("*"))
    return found


def _minutes(limit: str) -> int | None:
    """`1-02:03:04`, `02:03:04`, `30:00` or `infinite` in minutes."""
    days, _, clock = limit.rpartition("-")
    parts = [int(part) for part in clock.split(":")] if re.fullmatch(r"[0-9:]+", clock) else []
    if not parts:
        return None
    hours, minutes, _ = ([0] * (3 - len(parts)) + parts)[-3:]
    return int(days or 0) * 1440 + hours * 60 + minutes


def _file_system(place: Path) -> str:
    """Type of the file system of a folder, such as nfs4: that of the longest mount point above it."""
    best, kind = "", "unknown"
    for line in text_of(Path("/proc/mounts")).splitlines():
        fields = line.split()
        mount = fields[1].encode().decode("unicode_escape")
        if len(mount) >= len(best) and (place.resolve() == Path(mount) or Path(mount) in place.resolve().parents):
            best, kind = mount, fields[2]
    return kind


def _lines(*command: str) -> list[str]:
    return [line.strip() for line in (_answer(*command) or "").splitlines() if line.strip()]


def _answer(*command: str) -> str | None:
    try:
        return questions.ask(*command)
    except HarnessError:
        return None
