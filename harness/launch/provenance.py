"""Where a number comes from: commit, uncommitted changes, versions, device."""

from __future__ import annotations

import hashlib
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
from harness.spec.content import PROJECT_VARIABLE

PACKAGES = ("torch", "torchvision", "timm", "numpy", "mim-harness")
LARGEST_PATCH = 1_000_000


def environment(device: str, threads: int) -> dict[str, Any]:
    """What env.json records of one attempt, at its start."""
    commit, patch = repository()
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": bool(patch),
        "source": package_digest(),
        "versions": {name: _version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "device": device,
        "threads": threads,
        "processor": _processor(),
        "host": socket.gethostname(),
    }


@lru_cache
def repository() -> tuple[str, str]:
    """Commit of the user's project and the patch of its uncommitted changes; empty where it is no git checkout."""
    root = os.environ.get(PROJECT_VARIABLE) or str(Path.cwd())
    commit = _git(root, "rev-parse", "HEAD").strip()
    patch = _git(root, "diff", "HEAD", "--no-color", "--no-ext-diff") if commit else ""
    return commit, patch[:LARGEST_PATCH]


@lru_cache
def package_digest() -> str:
    """Digest of the installed package's source files, in whatever way it was installed."""
    root = Path(harness.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _git(root: str, *command: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", root, *command],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()
