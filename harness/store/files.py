"""Writing so that a reader never sees half a file: write beside, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeVar

from harness.spec import HarnessError

T = TypeVar("T")
Check = Callable[[], object]
"""Called when a file is written, just before it gets its final name; if it raises, no file is left behind."""

PAUSES = (0.1, 1.0, 5.0)
"""Seconds before each further try after a disk error that may pass."""
PASSING = frozenset(
    getattr(errno, name)
    for name in (
        "EIO", "EAGAIN", "EBUSY", "EINTR", "ESTALE", "ETIMEDOUT", "EREMOTEIO", "ENETDOWN", "ENETUNREACH", "ENETRESET",
        "ECONNABORTED", "ECONNRESET", "ECONNREFUSED", "EHOSTDOWN", "EHOSTUNREACH", "ENOTCONN", "ESHUTDOWN",
    )
    if hasattr(errno, name)
)  # fmt: skip
"""Error numbers that pass: a file server is away for a moment."""
REFUSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
NO_LINKS = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK})


class DiskError(HarnessError):
    """The disk is full, read-only, or was away for longer than all pauses. Runs can go on once it is back."""


def leaves_interrupted(error: Exception) -> bool:
    """True for an error of the disk: the run itself is sound and can go on later from its checkpoint."""
    return isinstance(error, DiskError) or (isinstance(error, OSError) and error.errno in PASSING | REFUSING)


def write_atomically(path: Path, data: bytes, check: Check = lambda: None) -> None:
    """Write a file in one step: readers see the old content or the new.

    Raises:
        DiskError: the disk refuses; nothing is left behind.
    """

    def write() -> None:
        with file_beside(path) as beside:
            _write_through(beside, lambda file: file.write(data))
            check()
            beside.replace(path)
            sync_folder(path.parent)

    tried_again(write, path)


def create_exclusively(path: Path, data: bytes, check: Check = lambda: None) -> None:
    """Create a whole file, or raise FileExistsError if there is one already with other content.

    By a hard link. Where the file system has none, by exclusive creation under the name itself, so that a reader can
    see half a file, which is as good as none.

    Raises:
        DiskError: the disk refuses; nothing is left behind.
    """

    def create() -> None:
        with file_beside(path) as beside:
            _write_through(beside, lambda file: file.write(data))
            check()
            try:
                os.link(beside, path)
            except FileExistsError:
                if read_bytes(path) != data:  # else an earlier try made it, whose answer was lost
                    raise
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                _create_in_place(path, data)
            sync_folder(path.parent)

    tried_again(create, path)


def _create_in_place(path: Path, data: bytes) -> None:
    """Create a file by the exclusive creation of its name."""
    while True:
        try:
            file = path.open("xb")
        except FileExistsError:
            if read_bytes(path) != data:
                raise
            return
        try:
            with file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            path.unlink(missing_ok=True)
            raise
        if read_bytes(path) == data:  # else somebody saw half of it and put it aside
            return


@cache
def require_exclusive_creation(folder: Path) -> bool:
    """Check that exclusive creation works in a folder; returns whether by hard links.

    Raises:
        DiskError: several would: a result could be overwritten. Or the disk refuses.
    """
    path = folder / f".exclusive-{uuid.uuid4().hex[:8]}.tmp"
    with disk_errors(path):
        try:
            create_exclusively(path, b"first")
            try:
                create_exclusively(path, b"second")
            except FileExistsError:
                return _links(path)
            raise DiskError(f"{folder}: two files of one name can be created here; a store needs another file system")
        finally:
            path.unlink(missing_ok=True)


def _links(path: Path) -> bool:
    other = path.with_name(f".exclusive-{uuid.uuid4().hex[:8]}.tmp")
    try:
        os.link(path, other)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return False
    other.unlink(missing_ok=True)
    return True


def write_named_by_content(
    folder: Path, name: Callable[[str], str], write: Callable[[IO[bytes]], object], check: Check = lambda: None
) -> Path:
    """Write a file whose name is made from the SHA-256 (hex) of its bytes; return its path.

    Raises:
        DiskError: the disk refuses; nothing is left behind.
    """

    def write_beside() -> Path:
        with file_beside(folder / "new") as beside:
            _write_through(beside, write)
            path = folder / name(sha256(beside))
            check()
            beside.replace(path)
            sync_folder(folder)
        return path

    return tried_again(write_beside, folder / "new")


def publish_folder(path: Path, fill: Callable[[Path], object]) -> bool:
    """Make a folder with its content in one step; False if another process made it first.

    `fill` must leave at least one file: renaming onto a non-empty folder is what fails for all but one process.
    """
    if not tried_again(lambda: _renamed(path, fill), path):
        return False
    try:
        tried_again(lambda: sync_folder(path.parent), path)
    except DiskError:
        shutil.rmtree(path, ignore_errors=True)  # else it would look as if somebody worked in it
        raise
    return True


def _renamed(path: Path, fill: Callable[[Path], object]) -> bool:
    fresh = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
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
        return True
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


@contextlib.contextmanager
def file_beside(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder; a file left there is removed at the end."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield beside
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def tried_again(act: Callable[[], T], path: Path, what: str = "write") -> T:
    """Result of `act`, which is called again after pauses if it raises a disk error that may pass.

    Raises:
        DiskError: the disk refuses, or still does after the last pause.
    """
    for pause in PAUSES:
        try:
            return act()
        except OSError as error:
            if error.errno not in PASSING:
                with disk_errors(path, what):
                    raise
        time.sleep(pause)
    with disk_errors(path, what):
        return act()
    raise AssertionError


@contextlib.contextmanager
def disk_errors(path: Path, what: str = "write") -> Iterator[None]:
    """Turn OSError into DiskError with one clear line, except for files that exist or are missing."""
    try:
        yield
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError as error:
        raise DiskError(f"cannot {what} {path}: {error.strerror or error}") from None


def sync_file(path: Path) -> None:
    """Flush a file to the disk, so that it survives a power loss."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder to the disk, so that a rename survives a power loss; ignored by file systems that cannot."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(folder: Path, paths: list[Path]) -> dict[str, str]:
    """SHA-256 (hex) of files by their path below a folder; they are made to survive a power loss first.

    Raises:
        DiskError: the disk refuses.
    """

    def read() -> dict[str, str]:
        for path in paths:
            sync_file(path)
        return {path.relative_to(folder).as_posix(): sha256(path) for path in paths}

    return tried_again(read, folder)


def size_below(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; what vanishes meanwhile counts as nothing."""
    total = 0
    for entry in (path, *path.rglob("*")):
        with contextlib.suppress(OSError):
            if entry.is_file():
                total += entry.stat().st_size
    return total


def read_bytes(path: Path) -> bytes | None:
    """The content of a file, None where there is none.

    Raises:
        DiskError: the disk refuses, so that nobody knows what is there.
    """

    def read() -> bytes | None:
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    return tried_again(read, path, "read")


def text_of(path: Path) -> str:
    """The text of a file, with a sign for bytes that are no UTF-8; empty where it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def entries(folder: Path) -> list[str]:
    """The names in a folder; none where there is no folder.

    Raises:
        DiskError: the disk refuses.
    """

    def read() -> list[str]:
        try:
            return os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            return []

    return tried_again(read, folder, "read")


def parsed(data: bytes) -> Any:
    """Value of a JSON text, None if it is not valid JSON."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def read_json(path: Path) -> Any:
    """The content of a JSON file, or None where it is missing, torn or no JSON.

    Raises:
        DiskError: the disk refuses.
    """
    return parsed(read_bytes(path) or b"")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSONL file that hold an object; torn ones are left out.

    Raises:
        DiskError: the disk refuses.
    """
    found = (parsed(line) for line in (read_bytes(path) or b"").splitlines())
    return [line for line in found if isinstance(line, dict)]


def _write_through(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    with path.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
