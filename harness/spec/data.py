"""Data sets, by name and content. Where they lie on a machine is not part of a spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, assert_never

from pydantic import Field, PositiveInt, model_validator

from harness.spec.base import HarnessError, Spec
from harness.spec.content import data_location, manifest_digest
from harness.spec.own import OwnFunction


class Published(NamedTuple):
    """Facts of a public data set: channels, classes, side in pixels, images, digest of its original files."""

    channels: int
    num_classes: int
    image_size: int
    train: int
    test: int
    digest: str


PUBLISHED = {
    "fashion-mnist-mini": Published(
        1, 10, 28, 10_000, 5_000, "sha256:c551abe2b1f2343d43b0996daefa2af5258f82bfeb3084e9b57417e38a29e168"
    ),
    "fashion-mnist": Published(
        1, 10, 28, 60_000, 10_000, "sha256:14410854cf7a289477dcfc7df3f8ec24741e281cdcc425ede0d9a748ca630214"
    ),
    "cifar10": Published(3, 10, 32, 50_000, 10_000, "md5:c58f30108f718f92721af3b95e74349a"),
    "cifar100": Published(3, 100, 32, 50_000, 10_000, "md5:eb9058c3a382ffc7106e4002c42a8d85"),
    "stl10": Published(3, 10, 96, 5_000, 8_000, "md5:91f7769df0f17e558f3565bffb0c7dfb"),
}


class _Data(Spec):
    """Fields of every data set.

    train_images: size of the class-balanced subset of the training images that is used, None for all of
        them. The subset is fixed: it depends on neither seed nor cell.
    split: what accuracies are measured on. `validation` holds out a fixed tenth of the training images,
        which are then not trained on; it exists for searches.
    """

    train_images: PositiveInt | None = None
    split: Literal["test", "validation"] = "test"


class Images(_Data):
    """A published set of small images, kept on the device as uint8.

    `fashion-mnist-mini` ships with the package. Pre-training on `stl10` uses its unlabelled images too.
    """

    kind: Literal["images"] = "images"
    name: Literal["fashion-mnist-mini", "fashion-mnist", "cifar10", "cifar100", "stl10"]
    content: str = ""
    """Digest of the original files; filled in, and checked when the files are read."""

    filled: ClassVar[Mapping[str, str]] = {"content": "name"}

    @model_validator(mode="before")
    @classmethod
    def _fill_content(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("content"):
            facts = PUBLISHED.get(str(values.get("name")))
            return {**values, "content": facts.digest if facts else ""}
        return values

    @property
    def channels(self) -> int:
        return PUBLISHED[self.name].channels


class ImageFolder(_Data):
    """A folder `train/<class>/*.jpg` and `val/<class>/*.jpg`, such as ImageNet-1K.

    name: looked up with `data_location` on each machine (harness.toml: [data] imagenet = "/data/imagenet").
    content: digest of all relative paths and bytes; filled in where the folder is found, otherwise None:
        then a study can be planned but not run.
    """

    kind: Literal["imagefolder"] = "imagefolder"
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    content: str | None = None

    channels: ClassVar[int] = 3
    filled: ClassVar[Mapping[str, str]] = {"content": "name"}

    @model_validator(mode="before")
    @classmethod
    def _fill_content(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("content") is None and "name" in values:
            root = data_location(str(values["name"]))
            if root is not None and root.is_dir():
                try:
                    return {**values, "content": manifest_digest(root)}
                except HarnessError as error:
                    raise ValueError(str(error)) from None
        return values


class Shapes(_Data):
    """A procedural RGB set: one to three filled shapes on a textured ground, at any resolution.

    Every object comes with its class, mask and box. The label of an image is the class of its largest object.

    image_size: side in pixels. train, test: number of images.
    """

    kind: Literal["shapes"] = "shapes"
    image_size: PositiveInt = 32
    train: PositiveInt = 4096
    test: PositiveInt = 1024
    seed: int = 0

    channels: ClassVar[int] = 3
    num_classes: ClassVar[int] = 6


class CustomData(_Data, OwnFunction):
    """A user's own data set.

    function: `package.module:name`; called as `name(split, **params)` with split "train" or "test", it
        returns `(images, labels)`: uint8 array [N, H, W, C] and int64 array [N]. It must give the same images
        each time.
    """

    kind: Literal["custom"] = "custom"
    channels: PositiveInt = 3


Data = Annotated[Images | ImageFolder | Shapes | CustomData, Field(discriminator="kind")]


HELD_OUT = 10
"""One labelled training image in this many is held out for `split="validation"`."""


def number_of_classes(data: Data) -> int | None:
    """Classes of a data set, as far as they are known without reading it: a folder's are its subfolders."""
    match data:
        case Images():
            return PUBLISHED[data.name].num_classes
        case Shapes():
            return data.num_classes
        case ImageFolder():
            root = data_location(data.name)
            found = sum(entry.is_dir() for entry in (root / "train").glob("*")) if root else 0
            return found or None
        case CustomData():
            return None
        case _:
            assert_never(data)


def training_images(data: Data, *, labelled: bool) -> int | None:
    """Images that one epoch draws from, as far as they are known without reading the data set.

    labelled: those that a labelled training takes, else those that a pre-training takes.
    """
    if data.train_images is not None:
        return data.train_images
    match data:
        case Images(name="stl10") if not labelled:
            return None
        case Images():
            whole = PUBLISHED[data.name].train
        case Shapes():
            whole = data.train
        case ImageFolder() | CustomData():
            return None
        case _:
            assert_never(data)
    return whole - (whole // HELD_OUT if data.split == "validation" else 0)
