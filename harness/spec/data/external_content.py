"""Digests of what lies outside a spec: files, folders of images, source code. They are cached."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple

from harness.machine import HarnessError, cache_folder
from harness.spec.data.packs import body_length, read_header

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes.

    Raises:
        HarnessError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise HarnessError(f"cannot read {path}: {error.strerror}") from None


def cached_file_sha256(path: Path) -> str:
    """Cached `file_sha256`, computed anew when the file's stamp changes: see `_stamp`."""
    try:
        stamp = f"{path.resolve()}\0{_stamp(path.stat())}"
    except OSError as error:
        raise HarnessError(f"cannot read {path}: {error.strerror}") from None
    return str(_cached("file", stamp, lambda: file_sha256(path)))


def _stamp(stat: os.stat_result) -> str:
    """Stamp that tells a file from others, and from its own earlier content, without reading it.

    Size and modification time can be kept by a file that is written anew; the inode and the time of its last change of
    any kind, which only the system sets, cannot both.
    """
    return f"{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\0{stat.st_ino}"


def image_files(root: Path) -> Iterator[Path]:
    """The image files below a folder, sorted by their path relative to it.

    Symbolic links are followed, those that lead out of the folder too. No folder is entered from within itself, and
    behind a link each but once, so links that lead back or round end.

    Raises:
        HarnessError: a folder cannot be read.
    """
    return iter(sorted(_found(root), key=lambda path: path.relative_to(root).as_posix()))


def holds_image(root: Path) -> bool:
    """True if `image_files` of a folder gives any; it looks no further than the first.

    Raises:
        HarnessError: a folder cannot be read.
    """
    return next(_found(root), None) is not None


def _found(root: Path) -> Iterator[Path]:
    pending: list[_Pending] = [_Pending(root, frozenset(), None)]
    while pending:
        folder, above, behind = pending.pop()
        try:
            status = folder.stat()
            here = (status.st_dev, status.st_ino)
            if here in above or (behind is not None and here in behind):
                continue
            if behind is not None:
                behind.add(here)
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):  # which of two ways comes first is fixed
                    path = folder / entry.name
                    if _is_folder(entry):
                        entered = set() if behind is None and entry.is_symlink() else behind
                        pending.append(_Pending(path, above | {here}, entered))
                    elif path.suffix.lower() in IMAGE_SUFFIXES:
                        yield path
        except OSError as error:
            if folder.name != "lost+found":  # of a file system's root, which its owner alone can read
                raise HarnessError(f"cannot read {folder}: {error.strerror}") from None


class _Pending(NamedTuple):
    """A folder that is to be looked into, those above it, and those seen behind the first link on the way to it."""

    folder: Path
    above: frozenset[tuple[int, int]]
    behind: set[tuple[int, int]] | None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself leads nowhere
            return False
        raise


@dataclass(frozen=True)
class Manifest:
    """Facts of a folder of images, from reading it once.

    digest: of every relative path and the SHA-256 of its bytes; it does not depend on where the folder lies.
    train, val: number of images of each class, a subfolder of train/ or val/.
    loose: the first image of these that lies in no class, or None.
    deep: True if a picture of these has 16 bits or floats in a channel.
    unreadable: the first file of these that was no picture or too large a one, or None; see `picture_fault`.
    decoder: what decoded the pictures of a pack; None for a folder.
    """

    digest: str
    train: dict[str, int]
    val: dict[str, int]
    loose: str | None
    deep: bool
    unreadable: str | None
    decoder: str | None = None


def manifest(root: Path) -> Manifest:
    """The manifest of a folder of images, or of a pack of one.

    The contents are read once; afterwards it is cached for the same list of paths and the same files (`_stamp`).

    Raises:
        HarnessError: the folder is missing or holds no image, or something in it cannot be read; a pack is damaged.
    """
    if root.is_file():
        return _manifest_of_pack(root)
    if not root.is_dir():
        raise HarnessError(f"there is no folder {root}")
    stamp = hashlib.sha256(str(root.resolve()).encode())
    paths = list(image_files(root))
    if not paths:
        raise HarnessError(f"{root} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    for path in paths:
        try:
            stat = path.stat()
        except OSError as error:
            raise HarnessError(f"cannot read {path}: {error.strerror}") from None
        if not S_ISREG(stat.st_mode):
            raise HarnessError(f"{path} is no file")
        stamp.update(f"{path.relative_to(root).as_posix()}\0{_stamp(stat)}\n".encode())
    return Manifest(**_cached("manifest", stamp.hexdigest(), lambda: asdict(_read_whole(root, paths))))


def _manifest_of_pack(path: Path) -> Manifest:
    facts = read_header(path)
    stamp = f"{path.resolve()}\0{_stamp(path.stat())}"
    if _cached("pack", stamp, lambda: _sha256_of_beginning(path, body_length(facts))) != facts.sha256:
        raise HarnessError(f"{path} is damaged: its pixels are not those that were packed; pack its folder again")
    return Manifest(facts.content, facts.train, facts.val, None, facts.deep, None, facts.decoder)


def _sha256_of_beginning(path: Path, length: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while length > 0 and (block := file.read(min(length, 2**24))):
            digest.update(block)
            length -= len(block)
    return digest.hexdigest()


def note_pack(path: Path) -> None:
    """Note that a pack that was just written holds what its header says, so that it need not be read for that."""
    _cached("pack", f"{path.resolve()}\0{_stamp(path.stat())}", lambda: read_header(path).sha256)


def _read_whole(root: Path, paths: list[Path]) -> Manifest:
    digest = hashlib.sha256()
    counts: dict[str, Counter[str]] = {"train": Counter(), "val": Counter()}
    loose, deep, unreadable = None, False, None
    for path in paths:
        name = path.relative_to(root).as_posix()
        digest.update(f"{name}\0{file_sha256(path)}\n".encode())
        part, *inner = name.split("/")
        if part not in counts:
            continue
        if len(inner) < 2:
            loose = loose or name
            continue
        counts[part][inner[0]] += 1
        mode, fault = _header(path)
        deep = deep or mode.startswith(("I", "F"))
        unreadable = unreadable or (name if fault else None)
    return Manifest(digest.hexdigest(), dict(counts["train"]), dict(counts["val"]), loose, deep, unreadable)


def picture_fault(path: Path) -> str:
    """Reason why a file cannot be read as a picture, judged by its header; empty if it can."""
    return _header(path)[1]


def _header(path: Path) -> tuple[str, str]:
    """PIL's mode of a picture, and what is wrong with it."""
    from PIL import Image  # here alone, and once for a folder: specs are made without it

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pictures that are large, but not too large
            with Image.open(path) as file:
                return file.mode, ""
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return "", str(error).replace("\n", " ")


def source_digest(function: str) -> str:
    """SHA-256 (hex) of the source file of `package.module:name`, found without importing the module.

    Raises:
        HarnessError: the name has another form, or there is no such module with a source file.
    """
    module, colon, name = function.partition(":")
    if not colon or not name.isidentifier():
        raise HarnessError(f"{function!r} should read package.module:function")
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError) as error:
        raise HarnessError(f"{function!r}: cannot find module {module!r} ({error})") from None
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        raise HarnessError(
            f"{function!r}: cannot find module {module!r}; it is looked for from the project root "
            "(the folder of harness.toml or pyproject.toml) and among the installed packages"
        )
    text = Path(found.origin).read_bytes().replace(b"\r\n", b"\n")
    return hashlib.sha256(text).hexdigest()


def _cached(kind: str, stamp: str, compute: Callable[[], Any]) -> Any:
    """The cached value for a stamp; computed and cached if there is none. It has to be JSON."""
    base = cache_folder() / "digests"
    path = base / f"{kind}-{hashlib.sha256(stamp.encode()).hexdigest()}.json"
    try:
        check, _, text = path.read_text().partition("\n")
        if check == hashlib.sha256(text.encode()).hexdigest():
            return json.loads(text)
    except (OSError, ValueError):
        pass  # no entry, or a damaged one: compute
    value = compute()
    text = json.dumps(value)
    try:
        base.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.tmp")
        beside.write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")
        beside.replace(path)
    except OSError:
        pass  # a cache that cannot be written costs time, not truth
    return value
