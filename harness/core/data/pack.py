"""Pictures of a pack, a file of decoded pictures mapped into memory (`harness.spec.data.packs`, `harness pack`)."""

from __future__ import annotations

import bisect
import json
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from harness.spec import HarnessError
from harness.spec.data.packs import FRACTIONS, PIXELS, read_header, sizes


class PackedPicture:
    """A picture of a pack in the place of an opened file: it has a size, and `draft` as PIL's JPEG files have.

    pixels: uint8 [height, width, 3] at the full size, then at 1/2, 1/4 and 1/8 where PIL's decoder gives them.
    """

    def __init__(self, pixels: list[NDArray[np.uint8]]) -> None:
        self._pixels = pixels
        self._place = 0

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width, _ = self._pixels[self._place].shape
        return width, height

    def draft(self, mode: None, size: tuple[int, int]) -> None:
        """Take the smallest size that is at least `size` (width, height), by PIL's rule for JPEG files."""
        del mode
        height, width, _ = self._pixels[0].shape
        least = min(width // size[0], height // size[1])
        self._place = max(place for place in range(len(self._pixels)) if FRACTIONS[place] <= max(least, 1))

    def image(self) -> Image.Image:
        """The picture in the size that was chosen, RGB."""
        return Image.fromarray(self._pixels[self._place])


class Pack:
    """An opened pack.

    names: of its pictures, such as train/cat/0.jpg, sorted. side: in pixels, of squares; None for whole pictures.
    """

    def __init__(self, path: Path) -> None:
        facts = read_header(path)
        self.path, self.side, self.sha256 = path, facts.side, facts.sha256
        self._beginning = f"{path}/"
        mapped = np.memmap(path, dtype=np.uint8, mode="r")
        first, length = facts.names
        self.names: list[str] = json.loads(mapped[first : first + length].tobytes())
        first, length = facts.table
        self._table = mapped[first : first + length].view("<i4").reshape(-1, 3).astype(np.int64)
        height, width, held = self._table.T
        # Bytes of each picture with its fractions, of which `held` says the number; sides are rounded up.
        lengths = sum(
            np.where(held > place, -(-height // part) * -(-width // part) * 3, 0)
            for place, part in enumerate(FRACTIONS)
        )
        self._starts = PIXELS + np.concatenate([[0], np.cumsum(lengths)])
        self._bytes = mapped
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of memory that must not be written to; nothing here does
            self._tensor = torch.from_numpy(mapped)

    def __reduce__(self) -> tuple[Callable[[Path, str], Pack], tuple[Path, str]]:
        return _opened, (self.path, self.sha256)  # a loader worker maps the file itself

    def row(self, path: Path) -> int:
        """Place of a picture by its path, that of the pack and its name in it."""
        name = str(path)[len(self._beginning) :]
        row = bisect.bisect_left(self.names, name)
        if row == len(self.names) or self.names[row] != name:
            raise HarnessError(f"{self.path} holds no picture {name}")
        return row

    def rows(self, paths: Sequence[Path]) -> Tensor:
        """Places of pictures by their paths, int64 [N]."""
        places = {name: row for row, name in enumerate(self.names)}
        return torch.tensor([places[str(path)[len(self._beginning) :]] for path in paths])

    def picture(self, path: Path) -> PackedPicture:
        """A picture in the place of an opened file."""
        row = self.row(path)
        found, first = [], int(self._starts[row])
        height, width, held = self._table[row].tolist()
        for tall, wide in sizes(height, width, held):
            found.append(self._bytes[first : first + tall * wide * 3].reshape(tall, wide, 3))
            first += tall * wide * 3
        return PackedPicture(found)

    def pixels(self, path: Path) -> Tensor:
        """A picture at its full size, uint8 [3, H, W], in memory that must not be written to."""
        row = self.row(path)
        first, (height, width, _) = int(self._starts[row]), self._table[row].tolist()
        return self._tensor[first : first + height * width * 3].view(height, width, 3).permute(2, 0, 1)

    def squares(self) -> Tensor:
        """All pictures of a pack of squares, uint8 [N, side, side, 3], in memory that must not be written to."""
        assert self.side is not None, "pictures of different sizes"
        return self._tensor[PIXELS : int(self._starts[-1])].view(-1, self.side, self.side, 3)


def opened(path: Path) -> Pack:
    """The pack in a file, opened once in a process, and anew when another lies there."""
    return _opened(path, read_header(path).sha256)


@lru_cache(maxsize=8)
def _opened(path: Path, sha256: str) -> Pack:
    found = Pack(path)
    if found.sha256 != sha256:
        raise HarnessError(f"{path} is another pack than a moment ago")
    return found
