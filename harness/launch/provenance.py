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

PACKAGES = {"torch": "torch", "torchvision": "torchvision", "timm": "timm", "numpy": "numpy", "harness": "mim-harness"}
LARGEST_PATCH = 1_000_000


def environment(device: str, threads: int) -> dict[str, Any]:
    """What env.json records of one attempt, at its start."""
    commit, patch = repository()
    new = untracked() if commit else []
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": bool(patch or new),
        "untracked": new,
        "source": package_digest(),
        "versions": {name: _version(package) for name, package in PACKAGES.items()}
        | {"python": platform.python_version()},
        "device": device,
        "threads": threads,
        "processor": _processor(),
        "host": socket.gethostname(),
    }


@lru_cache
def repository() -> tuple[str, str]:
    """Commit of the user's project and the patch of its uncommitted changes; empty where it is no git checkout."""
    commit = _git("rev-parse", "HEAD").strip()
    patch = _git("diff", "HEAD", "--no-color", "--no-ext-diff") if commit else ""
    return commit, patch[:LARGEST_PATCH]


@lru_cache
def untracked() -> list[str]:
    """Python files of the user's project that git does not know yet: a patch does not hold them."""
    return _git("ls-files", "--others", "--exclude-standard", "*.py").splitlines()


@lru_cache
def package_digest() -> str:
    """Digest of the installed package's source files, in whatever way it was installed."""
    root = Path(harness.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _git(*command: str) -> str:
    root = os.environ.get(PROJECT_VARIABLE) or str(Path.cwd())
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
