"""Writing so that a reader never sees half a file: write beside, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from harness.spec import HarnessError

Check = Callable[[], object]
"""Called when a file is whole, just before it gets its name; what it raises leaves no file behind."""


def write_atomically(path: Path, data: bytes, check: Check = lambda: None) -> None:
    """Replace a file by `data` in one step.

    Raises:
        HarnessError: the disk refuses (full, read-only, over quota); nothing is left behind.
    """
    with file_beside(path) as beside:
        _write_through(beside, lambda file: file.write(data))
        check()
        beside.replace(path)
        sync_folder(path.parent)


def create_exclusively(path: Path, data: bytes, check: Check = lambda: None) -> None:
    """Create a whole file, or raise FileExistsError if there is one already."""
    with file_beside(path) as beside:
        _write_through(beside, lambda file: file.write(data))
        check()
        os.link(beside, path)
        sync_folder(path.parent)


def write_named_by_content(
    folder: Path, name: Callable[[str], str], write: Callable[[IO[bytes]], object], check: Check = lambda: None
) -> Path:
    """Write a file whose name is made from the SHA-256 (hex) of its bytes; return its path."""
    with file_beside(folder / "new") as beside:
        _write_through(beside, write)
        path = folder / name(sha256(beside))
        check()
        beside.replace(path)
        sync_folder(folder)
    return path


def publish_folder(path: Path, fill: Callable[[Path], object]) -> bool:
    """Make a folder with its content in one step; False if another process made it first.

    `fill` must leave at least one file: renaming onto a non-empty folder is what fails for all but one process.
    """
    fresh = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with disk_errors(path):
            fresh.mkdir(parents=True)
            fill(fresh)
            for entry in fresh.iterdir():
                if entry.is_file():
                    sync_file(entry)
            try:
                fresh.rename(path)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    return False
                raise
            sync_folder(path.parent)
            return True
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


@contextlib.contextmanager
def file_beside(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder; whatever is left there in the end is removed."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with disk_errors(path):
            yield beside
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what a disk refuses into one clear line; an existing file is no such refusal."""
    try:
        yield
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError as error:
        raise HarnessError(f"cannot write {path}: {error.strerror or error}") from None


def sync_file(path: Path) -> None:
    """Make what was written to a file so far survive a power loss."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_below(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; what vanishes meanwhile counts as nothing."""
    total = 0
    for entry in (path, *path.rglob("*")):
        with contextlib.suppress(OSError):
            if entry.is_file():
                total += entry.stat().st_size
    return total


def read_json(path: Path) -> Any:
    """The content of a JSON file, or None where it is missing, torn or no JSON."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSONL file; torn ones are left out."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return []
    lines = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                lines.append(found)
    return lines


def _write_through(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    with path.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
