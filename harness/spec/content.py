"""What lies outside a spec enters it by content: files, folders of images, source code. Digests are cached."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.spec.base import HarnessError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})
PROJECT_VARIABLE = "HARNESS_PROJECT"


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
    """As `file_sha256`, computed once for a path, size and modification time."""
    try:
        stat = path.stat()
    except OSError as error:
        raise HarnessError(f"cannot read {path}: {error.strerror}") from None
    stamp = f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}"
    return _cached("file", stamp, lambda: file_sha256(path))


def image_files(root: Path) -> Iterator[Path]:
    """The image files below a folder, sorted by their path relative to it."""
    found = [
        Path(folder) / name
        for folder, _, names in os.walk(root, followlinks=True)
        for name in names
        if Path(name).suffix.lower() in IMAGE_SUFFIXES
    ]
    return iter(sorted(found, key=lambda path: path.relative_to(root).as_posix()))


def manifest_digest(root: Path) -> str:
    """Digest of a folder of images: every relative path and the SHA-256 of its bytes.

    The contents are read once; afterwards the digest is cached for the same list of paths, sizes and
    modification times. It does not depend on where the folder lies.

    Raises:
        HarnessError: the folder is missing or holds no image.
    """
    if not root.is_dir():
        raise HarnessError(f"there is no folder {root}")
    stamp = hashlib.sha256(str(root.resolve()).encode())
    paths = list(image_files(root))
    if not paths:
        raise HarnessError(f"{root} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    for path in paths:
        stat = path.stat()
        name = path.relative_to(root).as_posix()
        stamp.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())

    def compute() -> str:
        digest = hashlib.sha256()
        for path in paths:
            line = f"{path.relative_to(root).as_posix()}\0{file_sha256(path)}\n"
            digest.update(line.encode())
        return digest.hexdigest()

    return _cached("manifest", stamp.hexdigest(), compute)


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


def project_root(start: Path) -> Path:
    """The nearest folder at or above `start` that holds harness.toml or pyproject.toml, else `start`."""
    for folder in (start, *start.parents):
        if (folder / "harness.toml").is_file() or (folder / "pyproject.toml").is_file():
            return folder
    return start


def data_location(name: str) -> Path | None:
    """Where a named data set lies on this machine, or None.

    Asked in this order: the variable HARNESS_DATA_<NAME>, the table [data] of harness.toml in the project
    root, the same table in ~/.config/harness/site.toml.
    """
    variable = "HARNESS_DATA_" + name.upper().replace("-", "_")
    if found := os.environ.get(variable):
        return Path(found)
    root = Path(os.environ.get(PROJECT_VARIABLE) or project_root(Path.cwd()))
    user = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "harness/site.toml"
    for profile in (root / "harness.toml", user):
        if profile.is_file() and (place := _data_table(profile).get(name)):
            return (profile.parent / Path(place).expanduser()).resolve()
    return None


def _data_table(profile: Path) -> dict[str, str]:
    try:
        table = tomllib.loads(profile.read_text()).get("data", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise HarnessError(f"{profile}: {error}") from None
    if not isinstance(table, dict) or not all(isinstance(place, str) for place in table.values()):
        raise HarnessError(f'{profile}: [data] should hold lines like imagenet = "/data/imagenet"')
    return table


def _cached(kind: str, stamp: str, compute: Callable[[], str]) -> str:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "harness" / "digests"
    path = base / f"{kind}-{hashlib.sha256(stamp.encode()).hexdigest()}.json"
    try:
        value = json.loads(path.read_text())["digest"]
        if isinstance(value, str):
            return value
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no entry, or a torn one: compute
    digest = compute()
    try:
        base.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.tmp")
        beside.write_text(json.dumps({"digest": digest}))
        beside.replace(path)
    except OSError:
        pass  # a cache that cannot be written costs time, not truth
    return digest
