"""Writing of packs: all pictures of a folder decoded once, in one file that is mapped into memory."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from harness.core.data.pack import PackedPicture
from harness.core.data.pictures import central, decoded, prepared, read
from harness.machine import data_location
from harness.spec import HarnessError, ImageFolder
from harness.spec.data.datasets import Decoder, absent, check_folder
from harness.spec.data.external_content import Manifest, image_files, manifest, note_pack
from harness.spec.data.packs import FRACTIONS, MAGIC, PIXELS, Packed, header_of

AHEAD = 8
"""Pictures that each thread may be ahead of the file."""


def pack(
    name: str,
    target: Path,
    *,
    side: int | None,
    decoder: Decoder,
    threads: int,
    advance: Callable[[int, int], None] = lambda done, number: None,
) -> Packed:
    """Write a pack of a folder of images: whole or not at all, beside the target and then renamed.

    Args:
        name: of the data set, as `ImageFolder` names it.
        side: in pixels, of squares: the shorter side is resized to it, bicubic, and the central square is taken, as of
            test images. None keeps whole pictures.
        threads: that decode.
        advance: called with the number of pictures written and of all.

    Raises:
        HarnessError: the folder is missing, of another form, has a picture that cannot be read, or changed meanwhile;
            the target is there, or cannot be written; or another process writes it.
    """
    root = _folder(name, decoder)
    if target.exists():
        raise HarnessError(f"{target} is there already: remove it, or name another file")
    if not target.parent.is_dir():
        raise HarnessError(f"there is no folder {target.parent} for the pack")
    found = manifest(root)
    check_folder(root, found, tuple(found.train), decoder)
    files = sorted(
        (path for part in ("train", "val") if (root / part).is_dir() for path in image_files(root / part)),
        key=lambda path: path.relative_to(root).as_posix(),
    )
    _refuse_too_large(target, len(files), side)
    with _whole(target) as file:
        written = _Writer(file)
        with ThreadPoolExecutor(threads) as pool:
            made = _in_order(pool, lambda path: pictures(path, side, decoder), files, threads * AHEAD)
            for number, held in enumerate(made, 1):
                written.picture(held)
                advance(number, len(files))
        if manifest(root) != found:
            raise HarnessError(f"{root} changed while it was packed: pack it again")
        facts = written.end([path.relative_to(root).as_posix() for path in files], found, side, decoder)
    note_pack(target)
    return facts


def _folder(name: str, decoder: Decoder) -> Path:
    root = data_location(name)
    if root is None or not root.exists():
        raise HarnessError(absent(ImageFolder.model_construct(name=name, decoder=decoder)))
    if not root.is_dir():
        raise HarnessError(f"{name} is {root} here, which is no folder: packs are made of folders of images")
    return root


def _refuse_too_large(target: Path, images: int, side: int | None) -> None:
    needed, free = images * (side or 0) ** 2 * 3, shutil.disk_usage(target.parent).free
    if needed > free:
        there = f"{target.parent} has {free / 1e9:.1f} GB free"
        raise HarnessError(f"{images} pictures of {side} px take {needed / 1e9:.1f} GB, and {there}")


@contextmanager
def _whole(target: Path) -> Iterator[BinaryIO]:
    """A file beside the target, renamed to it at the end; nothing is left of it if something fails before.

    Raises:
        HarnessError: the disk refuses, or another process writes it.
    """
    beside = target.with_name(f".{target.name}.part")
    opened = _locked(beside)
    try:
        with opened as file:
            yield file
            beside.replace(target)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise HarnessError(f"cannot write {target}: {error.strerror}; nothing is left of it") from None
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _locked(path: Path) -> BinaryIO:
    """The empty file at `path`, opened for this process alone.

    What a killed process left there is overwritten; its lock ended with it.
    """
    try:
        file = path.open("ab")
    except OSError as error:
        raise HarnessError(f"cannot write {path}: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The process that had the lock may have renamed the file before it gave the lock up.
        if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise BlockingIOError(errno.EWOULDBLOCK, "renamed")
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            file.close()
            raise HarnessError(f"another process is writing {path}") from None
    file.truncate(0)
    return file


def pictures(path: Path, side: int | None, decoder: Decoder) -> list[NDArray[np.uint8]]:
    """Pixels that a pack holds for a file, uint8 [height, width, 3]: a square; or the whole, and PIL's fractions of it.

    Raises:
        HarnessError: the file cannot be read.
    """
    if decoder == "torchvision":
        pixels = decoded(path)
        return [_rows(pixels if side is None else central(pixels, side, 1.0))]
    if side is not None:
        return [_rows(read(path, lambda file: central(prepared(file), side, 1.0)))]
    held = FRACTIONS[: read(path, _drafts)]
    return [read(path, partial(_fraction, part=part)) for part in held]


def _rows(pixels: Any) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
    return found


def _drafts(file: Image.Image | PackedPicture) -> int:
    """Number of sizes in which PIL decodes a file for crops of two pixels and more."""
    if not isinstance(file, JpegImagePlugin.JpegImageFile):
        return 1
    return sum(part == 1 or min(file.size) >= 2 * part for part in FRACTIONS)


def _fraction(file: Image.Image | PackedPicture, part: int) -> NDArray[np.uint8]:
    if part > 1:
        file.draft(None, (file.size[0] // part, file.size[1] // part))
    return np.asarray(prepared(file))


def _in_order(
    pool: ThreadPoolExecutor, make: Callable[[Path], Any], paths: Iterable[Path], ahead: int
) -> Iterator[Any]:
    pending: deque[Future[Any]] = deque()
    try:
        for path in paths:
            pending.append(pool.submit(make, path))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


class _Writer:
    """A pack that is being written: counts and digests what goes into the file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._length = 0
        self._table: list[tuple[int, int, int]] = []
        self._write(MAGIC.ljust(PIXELS, b"\0"))

    def _write(self, content: bytes | memoryview) -> tuple[int, int]:
        place = (self._length, len(content))
        self._file.write(content)
        self._digest.update(content)
        self._length += len(content)
        return place

    def picture(self, held: list[NDArray[np.uint8]]) -> None:
        height, width, _ = held[0].shape
        self._table.append((height, width, len(held)))
        for pixels in held:
            self._write(np.ascontiguousarray(pixels).reshape(-1).data)

    def end(self, names: list[str], found: Manifest, side: int | None, decoder: Decoder) -> Packed:
        placed = self._write(json.dumps(names).encode())
        table = self._write(np.array(self._table, dtype="<i4").tobytes())
        facts = Packed(
            folder=found.digest, side=side, decoder=decoder, train=found.train, val=found.val, deep=found.deep,
            images=len(names), names=placed, table=table, sha256=self._digest.hexdigest(),
        )  # fmt: skip
        self._file.write(header_of(facts))
        self._file.flush()
        os.fsync(self._file.fileno())  # on the disk before the caller gives it its name
        return facts
