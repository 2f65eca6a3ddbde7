"""Provenance of a result: commit, uncommitted changes, package versions, device."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import socket
import subprocess
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import harness
from harness.launch.resources import CPU_FACTS
from harness.machine import PROJECT_VARIABLE, SNAPSHOT_VARIABLE
from harness.store.files import text_of

PACKAGES = {"torch": "torch", "torchvision": "torchvision", "timm": "timm", "numpy": "numpy", "harness": "mim-harness"}
NUMBERS = ("spec", "core", "analysis")
"""Rooms of the package whose code determines numbers."""
LARGEST_PATCH = 1_000_000
GIT_SECONDS = 20
SILENT = "git did not say what is not committed"
"""In place of a patch and of names of files."""
SNAPSHOT_FILE = "provenance.json"
SLURM_VARIABLES = (
    "SLURM_JOB_ID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_RESTART_COUNT",
    "SLURMD_NODENAME",
)


def environment(device: str, threads: int) -> dict[str, Any]:
    """Content of env.json, recorded at the start of an attempt."""
    commit, patch = repository()
    new = untracked() if commit else []
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": bool(patch or new),
        "untracked": new,
        "source": package_digest(),
        "code": package_digest(NUMBERS),
        "versions": {name: _version(package) for name, package in PACKAGES.items()}
        | {"python": platform.python_version()},
        "device": device,
        "threads": threads,
        "processor": _processor(),
        "host": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        "slurm": {name: os.environ[name] for name in SLURM_VARIABLES if name in os.environ},
    }


@lru_cache
def repository() -> tuple[str, str]:
    """Commit of the user's project and the patch of its uncommitted changes; both empty without a git checkout.

    In a job: those of the time of submission.
    """
    if (frozen := _frozen()) is not None:
        return frozen["commit"], frozen["patch"]
    commit = (_git("rev-parse", "HEAD") or "").strip()
    patch = _git("diff", "HEAD", "--no-color", "--no-ext-diff") if commit else ""
    if patch is None:
        return commit, f"{SILENT}\n"  # which is no clean checkout
    cut = f"\n... and {len(patch) - LARGEST_PATCH:,} characters more\n" if len(patch) > LARGEST_PATCH else ""
    return commit, patch[:LARGEST_PATCH] + cut


@lru_cache
def untracked() -> list[str]:
    """Untracked Python files of the user's project, which the patch does not contain."""
    if (frozen := _frozen()) is not None:
        return list(frozen["untracked"])
    found = _git("ls-files", "--others", "--exclude-standard", "*.py")
    return [SILENT] if found is None else found.splitlines()


@lru_cache
def package_digest(parts: tuple[str, ...] = ("",)) -> str:
    """First 16 hex digits of the SHA-256 of the package's source files, in all rooms or in `parts`."""
    root = Path(harness.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(path for part in parts for path in (root / part).rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _frozen() -> dict[str, Any] | None:
    folder = os.environ.get(SNAPSHOT_VARIABLE)
    if not folder:
        return None
    found: dict[str, Any] = json.loads((Path(folder) / SNAPSHOT_FILE).read_text())
    return found


def _git(*command: str) -> str | None:
    """What git says of the user's project; None if it fails, or does not answer in time."""
    root = os.environ.get(PROJECT_VARIABLE) or str(Path.cwd())
    try:
        done = subprocess.run(
            ["git", "-C", root, *command],
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=False,
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    lines = text_of(CPU_FACTS).splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor()
