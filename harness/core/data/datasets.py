"""Data sets: small ones are loaded whole, as uint8; folders of images as lists of files."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, assert_never
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from harness.core.data import garments, published
from harness.core.data.coco import contents
from harness.core.data.objects import labelled
from harness.core.data.pack import Pack, opened
from harness.core.data.shapes import CLASSES, COLOURS, scenes
from harness.core.runtime.custom import call, load_function
from harness.core.runtime.randomness import words
from harness.machine import data_location
from harness.spec import (
    CocoFolder,
    CustomData,
    Data,
    Garments,
    HarnessError,
    ImageFolder,
    Images,
    MaskFolder,
    Shapes,
    seed_stream,
)
from harness.spec.data.datasets import (
    HELD_OUT,
    PUBLISHED,
    Crops,
    Decoder,
    Folder,
    absent,
    check_folder,
    class_names,
    coco_json,
    few_to_hold_out,
    is_uneven,
    scene_content,
)
from harness.spec.data.external_content import Manifest, image_files, manifest

Part = Literal["pretrain", "train", "test"]

IMAGENET_COLOURS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's channels, used for every folder of images."""


FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
NAMES: dict[str, tuple[str, ...]] = {
    "fashion-mnist-mini": FASHION,
    "fashion-mnist": FASHION,
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "stl10": ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
}
"""Names of the classes, in the order of their labels, as the sets' authors give them."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images held in memory.

    images: uint8 [N, C, H, W]. labels: int64 [N], -1 = unlabelled.
    mean, std: per channel, of values in [0, 1].
    """

    images: Tensor
    labels: Tensor
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        return int(self.images.shape[1])

    @cached_property
    def colours(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation, float32 [C] each, on the device of the images."""
        device = self.images.device
        mean, std = torch.tensor((self.mean, self.std), dtype=torch.float32, device=device)
        return mean, std

    def to(self, device: torch.device) -> ImageSet:
        """The same set with its tensors on a device.

        Runs of a process that use a set at the same time share one copy there, so nobody may write to it. The copy goes
        with the last of them.
        """
        there = _COPIES.setdefault(self, WeakValueDictionary())
        if (found := there.get(device)) is None:
            found = dataclasses.replace(self, images=self.images.to(device), labels=self.labels.to(device))
            there[device] = found
        return found


_COPIES: WeakKeyDictionary[ImageSet, WeakValueDictionary[torch.device, ImageSet]] = WeakKeyDictionary()
"""For each set, such as `load` gives every run, its copies on devices."""


@dataclass(frozen=True, eq=False)
class FolderSet:
    """Paths and labels of images that are read as RGB when needed, each from its file or all from a pack.

    paths: of the image files; of a pack, its own path followed by the names in it, as if it were a folder.
    labels: int64 [N], index into `classes`.
    mean, std: per channel, of values in [0, 1].
    decoder: the library that decodes and resizes them. crops: as in `ImageFolder`.
    pack: the pack that the images lie in; None for files.
    """

    paths: tuple[Path, ...]
    labels: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    decoder: Decoder = "pil"
    crops: Crops = "alone"
    pack: Pack | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def channels(self) -> int:
        return 3

    def to(self, device: torch.device) -> FolderSet:
        """The same set: files have no device; batches are moved when they are made."""
        del device
        return self

    @property
    def num_classes(self) -> int:
        return len(self.classes)


@lru_cache(maxsize=8)
def load(data: Data, part: Part) -> ImageSet | FolderSet:
    """One part of a data set, cached: the same object for the same arguments within a process.

    Args:
        part: `pretrain`: all training images that the spec uses, unlabelled ones too; `train`: the labelled
            ones among them; `test`: the images that accuracies are measured on, which are held-out training
            images where data.split says so.

    `train_images` takes the first images of a fixed order in which classes alternate and unlabelled images come last,
    so a smaller subset is contained in a larger one. Held-out images belong to neither `pretrain` nor
    `train`.

    Raises:
        HarnessError: the data set is missing, is not the one that the run was planned with, or is too small.
    """
    match data:
        case ImageFolder():
            return _load_folder(data, part)
        case MaskFolder() | CocoFolder():
            return _load_pictures(data, part)
        case Images() | Shapes() | Garments() | CustomData():
            return _load_images(data, part)
        case _:
            assert_never(data)


def _load_images(data: Images | Shapes | Garments | CustomData, part: Part) -> ImageSet:
    num_classes, mean, std = facts(data)
    if part == "test" and data.split == "test":
        images, labels = _read(data, "test")
        if len(labels) and int(labels.max()) >= num_classes:
            raise HarnessError(f"a test label is {int(labels.max())}, but the training labels end at {num_classes - 1}")
        return ImageSet(images, labels, num_classes, mean, std)
    images, labels = _read(data, "train")
    further = published.UNLABELLED.get(data.name, 0) if isinstance(data, Images) else 0
    if further and part == "pretrain" and isinstance(data, Images):
        more, none = published.read(data, "unlabelled")
        images, labels, further = torch.cat([images, more]), torch.cat([labels, none]), 0
    chosen = members(data, labels, part, further)
    if len(chosen) < len(labels):
        images, labels = images[chosen], labels[chosen]
    return ImageSet(images, labels, num_classes, mean, std)


def facts(data: Images | Shapes | Garments | CustomData) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """Number of classes, and mean and standard deviation of the channels."""
    match data:
        case Images():
            return PUBLISHED[data.name].num_classes, *published.COLOURS[data.name]
        case Shapes():
            return len(CLASSES), *COLOURS
        case Garments():
            return len(FASHION), *garments.COLOURS
        case CustomData():
            images, labels = _custom(data, "train")
            return int(labels.max()) + 1, *_colours(images)
        case _:
            assert_never(data)


def _read(data: Images | Shapes | Garments | CustomData, fold: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
    match data:
        case Images():
            return published.read(data, fold)
        case Shapes():
            return labelled(scenes(data, fold))
        case Garments():
            return labelled(garments.scenes(data, fold))
        case CustomData():
            return _custom(data, fold)
        case _:
            assert_never(data)


@lru_cache(maxsize=2)
def _custom(data: CustomData, fold: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
    made: Any = call(load_function(data.function, data.source), data.function, fold, **dict(data.params))
    try:
        images, labels = (np.asarray(array) for array in made)
    except (TypeError, ValueError):
        raise HarnessError(f"{data.function} should return (images, labels)") from None
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != data.channels:
        got = f"{images.dtype} {list(images.shape)}"
        raise HarnessError(f"{data.function}: images should be uint8 [N, H, W, {data.channels}], not {got}")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1] or not len(labels) or labels.min() < 0:
        got = f"{labels.dtype} {list(labels.shape)}"
        raise HarnessError(f"{data.function}: labels should be int64 [{len(images)}] from 0, not {got}")
    return torch.tensor(images.transpose(0, 3, 1, 2)), torch.tensor(labels.astype(np.int64))


def _colours(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 [N, C, H, W], from a histogram of its 256 values."""
    values = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in range(images.shape[1]):
        share = torch.bincount(images[:, channel].flatten(), minlength=256) / images[:, channel].numel()
        centre = float((share * values).sum())
        mean.append(centre)
        # At least one grey level, so that a channel of one value can be normalised.
        std.append(max(float((share * (values - centre) ** 2).sum()) ** 0.5, 1 / 255))
    return tuple(mean), tuple(std)


def _load_folder(data: ImageFolder, part: Part) -> FolderSet:
    if data.decoder == "torchvision" and not hasattr(torch.ops.image, "decode_jpeg"):
        raise HarnessError("this torchvision decodes no JPEG: install a build that does, or say decoder='pil'")
    root = _checked_root(data)
    paths, names = _labelled_files(root, "train")
    classes = data.classes or class_names(root, data.content)
    held_out = part == "test" and data.split == "test"
    if held_out:
        paths, names = _labelled_files(root, "val")
    number = {name: index for index, name in enumerate(classes)}
    used = [index for index, name in enumerate(names) if name in number]
    paths, labels = tuple(paths[index] for index in used), torch.tensor([number[names[index]] for index in used])
    if not held_out:
        chosen = members(data, labels, part, classes=classes)
        paths, labels = tuple(paths[index] for index in chosen.tolist()), labels[chosen]
    pack = opened(root) if root.is_file() else None
    return FolderSet(paths, labels, classes, *IMAGENET_COLOURS, data.decoder, data.crops, pack)


def _load_pictures(data: MaskFolder | CocoFolder, part: Part) -> FolderSet:
    """Pictures of a folder with masks, without labels."""
    if part == "train":
        known = " and ".join(data.truths)
        raise HarnessError(f"{data.name} has {known}, and no labels of whole pictures to train on")
    root, held_out = checked_scenes(data), part == "test" and data.split == "test"
    paths = list(image_files(root / data.pictures(tested=held_out)))
    if not paths:
        raise HarnessError(f"{root / data.pictures(tested=held_out)} holds no image")
    if not held_out:
        listed = _tenth_of_listed(data, root, paths) if isinstance(data, CocoFolder) else None
        rows = members(data, torch.zeros(len(paths), dtype=torch.int64), part, held_out=listed)
        paths = [paths[index] for index in rows.tolist()]
    return unlabelled(paths)


def _tenth_of_listed(data: CocoFolder, root: Path, paths: Sequence[Path]) -> Tensor | None:
    """The held-out pictures among all files of the folder: bool [N], those that detection holds out; None for none.

    Detection takes a tenth of what the JSON lists, and the folder may hold more: a tenth of all files would be others.
    """
    if data.split != "validation":
        return None
    names = [str(picture["file_name"]) for picture in contents(coco_json(root, data.train))["images"]]
    tested = _held_out(torch.zeros(len(names), dtype=torch.int64)).tolist()
    held_out = {root / data.train / name for name, out in zip(names, tested, strict=True) if out}
    return torch.tensor([path in held_out for path in paths])


def unlabelled(paths: Sequence[Path]) -> FolderSet:
    """Pictures in files, without labels."""
    return FolderSet(tuple(paths), torch.full((len(paths),), -1), (), *IMAGENET_COLOURS)


def checked_scenes(data: MaskFolder | CocoFolder) -> Path:
    """Where a folder of pictures with masks lies.

    Raises:
        HarnessError: it is missing, or is not the one that the run was planned with.
    """
    root = _there(data)
    if data.content is not None:
        _check_content(data, root, scene_content(root, _read_once(root, data.content)))
    return root


def _there(data: Folder) -> Path:
    root = data_location(data.name)
    if root is None or not root.exists():
        raise HarnessError(absent(data))
    return root


def _check_content(data: Folder, root: Path, digest: str) -> None:
    if data.content is not None and digest != data.content:
        told = "that this run was planned with: its files differ; plan again"
        raise HarnessError(f"{root} is not the {data.name} {told}")


def _checked_root(data: ImageFolder) -> Path:
    root = _there(data)
    found = _read_once(root, data.content)
    _check_content(data, root, found.digest)
    as_planned_now = data.replace(deep=found.deep, uneven=is_uneven(found))
    if data.content is not None and as_planned_now.current_revision() != data.current_revision():
        raise HarnessError(f"an earlier version planned this run and meant other numbers by {root}; plan again")
    check_folder(root, found, data.classes, data.decoder, data.crops)
    return root


@lru_cache(maxsize=8)
def _read_once(root: Path, content: str | None) -> Manifest:
    """Manifest of a folder, read once in a process for each content digest that a run was planned with."""
    del content  # it is there for the cache: a run planned with another content reads the folder anew
    return manifest(root)


def _labelled_files(root: Path, part: Literal["train", "val"]) -> tuple[tuple[Path, ...], list[str]]:
    """Paths of the images of a part of a folder or pack, and for each the name of its class folder."""
    folder = root / part
    names = opened(root).names if root.is_file() else None
    paths = tuple(
        image_files(folder) if names is None else (root / name for name in names if name.startswith(f"{part}/"))
    )
    if not paths:
        raise HarnessError(f"{folder} holds no image; images belong into {folder}/<class>/")
    parts = [path.relative_to(folder).parts for path in paths]
    if loose := [path for path, names in zip(paths, parts, strict=True) if len(names) < 2]:
        raise HarnessError(f"{loose[0]} lies in no class folder; images belong into {folder}/<class>/")
    return paths, [names[0] for names in parts]


def members(
    data: Data,
    labels: Tensor,
    part: Part,
    further: int = 0,
    classes: Sequence[str] = (),
    trainable: Tensor | None = None,
    held_out: Tensor | None = None,
) -> Tensor:
    """Indices of the training images that a part consists of: int64, ascending.

    Args:
        labels: int64 [N] of the training images, -1 = unlabelled.
        further: number of unlabelled training images that this part leaves out; `train_images` may count them.
        classes: names of the classes, for a warning; empty if they have none.
        trainable: bool [N], False for images that are not trained on; None for all of them.
        held_out: bool [N], True for images of a validation split that is known; None for that of the labels.
    """
    pool = torch.arange(len(labels))
    if data.split == "validation":
        held_out = _held_out(labels, classes) if held_out is None else held_out
        if part == "test":
            return pool[held_out]
        pool = pool[~held_out]
    if trainable is not None:
        pool = pool[trainable[pool]]
    if data.train_images is not None:
        if data.train_images > len(pool) + further:
            there = f"the {len(pool) + further} training images"
            raise HarnessError(f"train_images {data.train_images} is more than {there} of the data set")
        pool = _turns(labels, pool, "subset")[: data.train_images].sort().values
    return pool


def _held_out(labels: Tensor, classes: Sequence[str] = ()) -> Tensor:
    """Stratified validation split of the training images: bool [N], True = held out, a tenth of each class.

    Where a tenth is not a whole number, the largest remainders are rounded up; equal ones in the hashed order of the
    classes. A class of a single image gives none, as it could not be trained then. A warning names the classes that
    give none.

    Args:
        labels: int64 [N], -1 = unlabelled; these are never held out.

    Raises:
        HarnessError: there is nothing to hold out.
    """
    sizes = torch.bincount(labels[labels >= 0])
    giving = torch.where(sizes > 1, sizes, 0)
    total = int(giving.sum())
    wanted = total // HELD_OUT
    if not wanted:
        raise HarnessError(
            f"split='validation' holds out one image in {HELD_OUT}: of {total} labelled ones "
            "in classes of two or more that is none"
        )
    shares, rests = giving * wanted // total, giving * wanted % total
    places, among = _places(labels, torch.arange(len(labels)), "validation")
    order = torch.argsort(among[1:])
    up = order[torch.argsort(rests[order], descending=True, stable=True)]
    shares[up[: wanted - int(shares.sum())]] += 1
    if none := torch.nonzero((sizes > 0) & (shares == 0))[:, 0].tolist():
        small = [f"{classes[index] if classes else index} ({int(sizes[index])})" for index in none]
        warnings.warn(few_to_hold_out(small, int((sizes > 0).sum()), "lacks"), stacklevel=2)
    return (labels >= 0) & (places < shares[labels])


def _turns(labels: Tensor, pool: Tensor, purpose: str) -> Tensor:
    """Indices of the pool in a fixed order in which classes alternate and unlabelled images come last."""
    places, among = _places(labels, pool, purpose)
    kinds = labels[pool]
    # By turn, and within a turn by the hashed word of the class. Unlabelled images, kind -1, get the last turns.
    turn = places + torch.where(kinds < 0, len(pool), 0)
    return pool[torch.argsort((turn << 32) | among[kinds + 1], stable=True)]


def _places(labels: Tensor, pool: Tensor, purpose: str) -> tuple[Tensor, Tensor]:
    """Hashed rank of each image of the pool within its class, and a hashed word that orders the classes.

    Neither depends on a run's seed: runs of all seeds train and test on the same images.

    Args:
        labels: int64 [N], -1 = unlabelled. pool: int64, indices of the images among these N.

    Returns:
        int64 [len(pool)], counted from 0; int64 [1 + classes], of unlabelled images first.
    """
    stream = seed_stream(0, purpose)
    kinds = labels[pool]
    shuffled = torch.argsort(words(stream, 0, pool, 1)[:, 0], stable=True)
    # The sort is stable, so the images of each class stay in hashed order.
    by_class = shuffled[torch.argsort(kinds[shuffled], stable=True)]
    sizes = torch.bincount(kinds + 1, minlength=int(labels.max()) + 2)
    starts = torch.cumsum(sizes, 0) - sizes
    places = torch.empty_like(pool)
    places[by_class] = torch.arange(len(pool)) - starts[kinds[by_class] + 1]
    return places, words(stream, 1, torch.arange(len(sizes)), 1)[:, 0]


@dataclass(frozen=True)
class Facts:
    """Properties of a data set that a trained model is used with, without its images.

    mean, std: per channel, of values in [0, 1]. classes: names in the order of the labels; empty if unknown.
    """

    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """Dictionary of plain values, for JSON."""
        return asdict(self)

    @staticmethod
    def from_plain(values: dict[str, Any]) -> Facts:
        """Facts from the dictionary of `to_plain`."""
        return Facts(
            int(values["channels"]), tuple(values["mean"]), tuple(values["std"]), tuple(map(str, values["classes"]))
        )


def facts_of(data: Data) -> Facts:
    """Facts of a data set; a folder of images that names no classes has those that lie there (`class_names`)."""
    match data:
        case ImageFolder():
            root = data_location(data.name)
            found = class_names(root, data.content) if root is not None else ()
            return Facts(data.channels, *IMAGENET_COLOURS, data.classes or found)
        case MaskFolder():
            return Facts(data.channels, *IMAGENET_COLOURS, data.names or ())
        case CocoFolder():
            return Facts(data.channels, *IMAGENET_COLOURS)
        case Images():
            return Facts(data.channels, *facts(data)[1:], NAMES.get(data.name, ()))
        case Shapes():
            return Facts(data.channels, *facts(data)[1:], CLASSES)
        case Garments():
            return Facts(data.channels, *facts(data)[1:], FASHION)
        case CustomData():
            return Facts(data.channels, *facts(data)[1:])
        case _:
            assert_never(data)
