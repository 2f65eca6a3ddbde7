"""Published sets of small images, read from this machine or downloaded from their publishers."""

from __future__ import annotations

import gzip
import hashlib
import io
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, assert_never

import numpy as np
import torch
import torchvision.datasets as published
from numpy.typing import NDArray
from torch import Tensor

from harness.machine import cache_folder, data_location, data_variable
from harness.spec import HarnessError
from harness.spec.data.datasets import PUBLISHED, Images

Fold = Literal["train", "unlabelled", "test"]
Bytes = NDArray[np.uint8]

MINI = Path(__file__).parent / "files" / "fashion_mnist_mini.npz"
MINI_KEYS = ("train_images", "train_labels", "test_images", "test_labels")
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")

COLOURS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "fashion-mnist-mini": ((0.2860,), (0.3530,)),
    "fashion-mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "stl10": ((0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2713)),
}
"""Mean and standard deviation of the training images' channels, of values in [0, 1]."""

UNLABELLED = {"stl10": 100_000}
"""Number of unlabelled training images of the sets that have any."""


def content_digest(parts: Iterable[bytes]) -> str:
    """`sha256:` and the SHA-256 (hex) of byte strings, one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return f"sha256:{digest.hexdigest()}"


def read(data: Images, fold: Fold) -> tuple[Tensor, Tensor]:
    """One fold of a published set: images uint8 [N, C, H, W] and labels int64 [N], -1 = unlabelled.

    The two Fashion-MNIST sets are checked here against the digest in the spec. For CIFAR and STL-10 torchvision checks
    the MD5 of a downloaded archive and of every extracted file that it reads.

    Raises:
        HarnessError: the set is not on this machine and cannot be downloaded, or its content is another.
    """
    if data.content != PUBLISHED[data.name].digest:
        raise HarnessError(f"this version reads {data.name} {PUBLISHED[data.name].digest}, not {data.content}")
    match data.name:
        case "fashion-mnist-mini":
            return _fold(_mini(), fold)
        case "fashion-mnist":
            return _fold(_fashion_mnist(), fold)
        case "cifar10" | "cifar100":
            return _cifar(data.name, fold)
        case "stl10":
            return _stl10(fold)
        case _:
            assert_never(data.name)


def _fold(arrays: tuple[Bytes, ...], fold: Fold) -> tuple[Tensor, Tensor]:
    """One fold of (train images, train labels, test images, test labels), images [N, H, W]."""
    match fold:
        case "train":
            images, labels = arrays[:2]
        case "test":
            images, labels = arrays[2:]
        case "unlabelled":
            images, labels = arrays[0][:0], arrays[1][:0]
        case _:
            assert_never(fold)
    return torch.tensor(images)[:, None], torch.tensor(labels).long()


@lru_cache(maxsize=1)
def _mini() -> tuple[Bytes, ...]:
    with np.load(MINI) as file:
        arrays = tuple(file[name] for name in MINI_KEYS)
    _check("fashion-mnist-mini", (array.tobytes() for array in arrays), MINI)
    return arrays


@lru_cache(maxsize=1)
def _fashion_mnist() -> tuple[Bytes, ...]:
    given = _folder("fashion-mnist")
    for folder in (given, given / "FashionMNIST" / "raw", DEBIAN):
        if all(_idx_path(folder, name) for name in IDX_FILES):
            return fashion_mnist(folder)
    _download("fashion-mnist", given, lambda root: published.FashionMNIST(root, download=True))
    return fashion_mnist(given / "FashionMNIST" / "raw")


def fashion_mnist(folder: Path) -> tuple[Bytes, ...]:
    """Fashion-MNIST from its four original files in a folder, compressed (.gz) or not.

    Returns:
        Training images uint8 [60000, 28, 28] and labels uint8 [60000], test images and labels of 10000.

    Raises:
        HarnessError: a file is missing, or the content is not that of the original.
    """
    contents = [_idx_bytes(folder, name) for name in IDX_FILES]
    _check("fashion-mnist", contents, folder)
    flat = [np.frombuffer(content, np.uint8) for content in contents]
    # The headers are 16 bytes of an image file and 8 of a label file; the digest vouches for what they say.
    return (
        flat[0][16:].reshape(-1, 28, 28),
        flat[1][8:],
        flat[2][16:].reshape(-1, 28, 28),
        flat[3][8:],
    )


def _idx_path(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _idx_bytes(folder: Path, name: str) -> bytes:
    path = _idx_path(folder, name)
    if path is None:
        raise HarnessError(f"{folder} holds neither {name} nor {name}.gz")
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError) as error:
        raise HarnessError(f"cannot read {path}: {error}") from None


def _check(name: str, contents: Iterable[bytes], place: Path) -> None:
    digest = content_digest(contents)
    if digest != PUBLISHED[name].digest:
        raise HarnessError(f"{place} does not hold {name} as published: {digest}, not {PUBLISHED[name].digest}")


def _cifar(name: Literal["cifar10", "cifar100"], fold: Fold) -> tuple[Tensor, Tensor]:
    kind = published.CIFAR10 if name == "cifar10" else published.CIFAR100
    train = fold != "test"
    found = _torchvision(name, lambda root, download: kind(str(root), train=train, download=download))
    images = torch.from_numpy(np.ascontiguousarray(found.data.transpose(0, 3, 1, 2)))
    labels = torch.tensor(found.targets, dtype=torch.int64)
    return (images[:0], labels[:0]) if fold == "unlabelled" else (images, labels)


def _stl10(fold: Fold) -> tuple[Tensor, Tensor]:
    split = "unlabeled" if fold == "unlabelled" else fold
    found = _torchvision("stl10", lambda root, download: published.STL10(str(root), split, download=download))
    images = torch.from_numpy(np.ascontiguousarray(found.data))
    return images, torch.from_numpy(np.asarray(found.labels).astype(np.int64))


def _torchvision(name: str, build: Callable[[Path, bool], Any]) -> Any:
    """A torchvision data set from its folder on this machine, downloaded first if it is not there."""
    root = _folder(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, about how the published pickles were written
        try:
            return build(root, False)
        except (RuntimeError, OSError):
            _download(name, root, lambda folder: build(folder, True))
        try:
            return build(root, False)
        except (RuntimeError, OSError) as error:
            raise HarnessError(f"{root} does not hold {name} as published: {_brief(error)}") from None


def _folder(name: str) -> Path:
    return data_location(name) or cache_folder() / "data" / name


def _download(name: str, root: Path, build: Callable[[Path], Any]) -> None:
    """Download into a temporary folder, then rename: other processes never see an incomplete data set."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as beside, _quiet():
            build(Path(beside))
            for child in (path for path in Path(beside).iterdir() if path.is_dir()):
                with suppress(OSError):  # another process was faster
                    child.rename(root / child.name)
    except (RuntimeError, OSError) as error:
        debian = "apt install dataset-fashion-mnist, or " if name == "fashion-mnist" else ""
        raise HarnessError(
            f"{name} is not on this machine and could not be downloaded ({_brief(error)}): {debian}"
            f"set {data_variable(name)}, or {name} under [data] in harness.toml, to a folder with torchvision's files"
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Context without progress bars and with a short network timeout, for machines without internet access."""
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(patience)


def _brief(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[-1]
