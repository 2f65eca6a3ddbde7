"""The file that `harness pack` writes: its form, and its facts without its pixels.

    MAGIC, zeros up to PIXELS           where the pixels begin
    pixels                              uint8 [height, width, 3] of each picture, one after another
    names                               JSON list of paths such as train/cat/0.jpg, sorted as text, in the same order
    table                               int32 [images, 3], little-endian: height, width, sizes in which it is held
    header                              JSON object
    TRAILER                             length and SHA-256 of the header, MAGIC

A picture is held at its full size and, where it is a JPEG that PIL decodes, also at 1/2, 1/4 and 1/8 of it, since PIL's
decoder gives these for crops that are larger than needed (`sizes`).
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from harness.machine import HarnessError

MAGIC = b"harness pack 1\n\0"
PIXELS = 4096
TRAILER = struct.Struct(">Q32s16s")
FRACTIONS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Packed:
    """Facts of a pack.

    folder: digest of the folder that was packed. content: what stands for it in keys, see `content_of`.
    side: of the squares that the pictures were resized to, in pixels; None if they have the size of their files.
    decoder: what decoded and resized them. train, val: number of images of each class. deep: as in `Manifest`.
    images: number of pictures. names, table: first byte and number of bytes of these parts.
    sha256: of all bytes before the header.
    """

    folder: str
    side: int | None
    decoder: str
    train: dict[str, int]
    val: dict[str, int]
    deep: bool
    images: int
    names: tuple[int, int]
    table: tuple[int, int]
    sha256: str

    @property
    def content(self) -> str:
        return content_of(self.folder, self.side)


def content_of(folder: str, side: int | None) -> str:
    """Content of a pack in keys: that of its folder where the pixels are those of its files, else one of its own."""
    return folder if side is None else f"{folder} at {side} px"


def packed_side(content: str | None) -> int | None:
    """Side in pixels of the squares of a pack with this content; None for a folder, and a pack of whole pictures."""
    _, found, side = (content or "").partition(" at ")
    return int(side.removesuffix(" px")) if found else None


def sizes(height: int, width: int, count: int) -> list[tuple[int, int]]:
    """Height and width of the first `count` sizes that a picture is held in: fractions of it, rounded up."""
    return [(-(-height // part), -(-width // part)) for part in FRACTIONS[:count]]


def header_of(facts: Packed) -> bytes:
    """Header and trailer of a pack."""
    text = json.dumps(asdict(facts)).encode()
    return text + TRAILER.pack(len(text), hashlib.sha256(text).digest(), MAGIC)


def read_header(path: Path) -> Packed:
    """Facts of a pack, checked against its trailer; its pixels are not read.

    Raises:
        HarnessError: the file is no pack, was written by another version, or was cut off or changed.
    """
    try:
        with path.open("rb") as file:
            return _read(path, file)
    except OSError as error:
        raise HarnessError(f"cannot read {path}: {error.strerror}") from None


def _read(path: Path, file: BinaryIO) -> Packed:
    if file.read(len(MAGIC)) != MAGIC:
        raise HarnessError(f"{path} is neither a folder nor a pack that this version's `harness pack` wrote")
    end = file.seek(0, 2)
    file.seek(max(0, end - TRAILER.size))
    trailer = file.read()
    length, digest, magic = TRAILER.unpack(trailer) if len(trailer) == TRAILER.size else (0, b"", b"")
    file.seek(max(0, end - TRAILER.size - length))
    text = file.read(length if magic == MAGIC else 0)
    if magic != MAGIC or hashlib.sha256(text).digest() != digest:
        raise HarnessError(f"{path} is damaged or was cut off: pack its folder again")
    values: dict[str, Any] = json.loads(text)
    return Packed(**{**values, "names": tuple(values["names"]), "table": tuple(values["table"])})


def body_length(facts: Packed) -> int:
    """Number of bytes before the header."""
    return sum(facts.table)
