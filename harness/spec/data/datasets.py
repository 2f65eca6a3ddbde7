"""Data sets, by name and content. Where they lie on a machine is not part of a spec."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, PositiveInt, model_validator

from harness.machine import HarnessError, data_location, data_names, data_variable
from harness.spec.base import Side, Spec
from harness.spec.data.external_content import (
    Manifest,
    cached_file_sha256,
    holds_image,
    image_files,
    manifest,
    picture_fault,
)
from harness.spec.data.packs import packed_side, read_header
from harness.spec.user_code import UserFunction


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


Decoder = Literal["pil", "torchvision"]
Truth = Literal["labels", "segments", "objects"]
"""A class of each picture, of each pixel, or of each object with its mask and box."""
Crops = Literal["alone", "batch"]

HELD_OUT = 10
"""One labelled training image in this many is held out for `split="validation"`."""


def few_to_hold_out(small: list[str], number: int, verb: str) -> str:
    """Message about classes of which a tenth is no image.

    small: these classes, as `name (images)`. number: of all classes. verb: lacks or may lack.
    """
    shown = ", ".join(small[:SHOWN]) + (f" and {len(small) - SHOWN} more" if len(small) > SHOWN else "")
    return f"the validation split {verb} {len(small)} of {number} classes, a tenth of which is no image: {shown}"


class _Data(Spec):
    """Fields of every data set.

    train_images: size of the class-balanced subset of the training images that is used, None for all of
        them. The subset is fixed: it depends on neither seed nor cell.
    split: images on which accuracies are measured. `validation` holds out a fixed tenth of the labelled training
        images, of each class in proportion to its size, which are then not trained on; it exists for searches.
    """

    train_images: PositiveInt | None = None
    split: Literal["test", "validation"] = "test"

    truths: ClassVar[tuple[Truth, ...]] = ("labels",)
    """What is known of its images."""

    @property
    def title(self) -> str:
        """Name of the set or folder, or the user's function."""
        return str(next(getattr(self, field) for field in ("name", "function", "kind") if hasattr(self, field)))

    @property
    def caption(self) -> str:
        """The set as captions of tables name it."""
        return self.title

    @property
    def known_classes(self) -> int | None:
        """Number of classes; None where the data set has to be read to know."""
        return None

    @property
    def known_segments(self) -> int | None:
        """Number of classes of its pixels: those of objects and the background; None where that is not known."""
        return self.known_classes + 1 if "segments" in self.truths and self.known_classes else None

    def known_images(self, *, labelled: bool) -> int | None:
        """Number of images that one epoch draws from; None where the data set has to be read to know.

        labelled: True for training on labels, False for pre-training.
        """
        if self.train_images is not None:
            return self.train_images
        whole = self._all_images(labelled=labelled)
        held_out = whole // HELD_OUT if whole is not None and self.split == "validation" else 0
        return None if whole is None else whole - held_out

    def _all_images(self, *, labelled: bool) -> int | None:
        del labelled
        return None

    def fault(self, *, tested: bool) -> str | None:
        """Reason why a run could not use the folder as it lies here; None if it could, and for other sets.

        tested: True if accuracies are measured on it.
        """
        del tested
        return None

    def small_classes(self) -> str | None:
        """Warning about classes too small for the validation split; None if there are none, and for other sets."""
        return None


class Images(_Data):
    """A published set of small images, kept on the device as uint8.

    name: `fashion-mnist-mini` ships with the package. Pre-training on `stl10` uses its unlabelled images too.
    content: digest of the original files; filled in, and checked when the files are read.
    """

    kind: Literal["images"] = "images"
    name: Literal["fashion-mnist-mini", "fashion-mnist", "cifar10", "cifar100", "stl10"]
    content: str = ""

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

    @property
    def known_classes(self) -> int:
        return PUBLISHED[self.name].num_classes

    def _all_images(self, *, labelled: bool) -> int | None:
        # Pre-training on stl10 uses its unlabelled images too, which the table does not count.
        return None if self.name == "stl10" and not labelled else PUBLISHED[self.name].train


class ImageFolder(_Data):
    """A folder `train/<class>/*.jpg` and `val/<class>/*.jpg`, such as ImageNet-1K.

    Both have the same classes, unless `classes` says which count; val/ may be missing where nothing is tested on it.

    name: looked up with `data_location` on each machine (harness.toml: [data] imagenet = "/data/imagenet"): a folder,
        or a pack of one (`harness pack`).
    content: digest of all relative paths and bytes; filled in where the folder is found, otherwise None:
        then a study can be planned but not run. A pack of whole pictures has its folder's content, as it gives the same
        pixels to the bit with the same decoder; one of resized squares has its own, which also names their side.
    classes: the subfolders of train/ that are used, in the order of their labels; images of others are left out, and
        val/ may lack some of them. None for all, in alphabetical order.
    decoder: what decodes, crops and resizes the files: PIL, or torchvision's decode_jpeg and torch, which are faster.
        With `torchvision` every file that begins as a JPEG goes through decode_jpeg, which refuses what it cannot read,
        and every other through PIL; torch resizes both, unless timm's transforms do, which are PIL's.
    crops: `batch` crops and flips the training images of a step together, on the device of the training: only of packs
        of squares, and where the augmentation does nothing else. Bilinear pixels differ by at most 1 of 255 from those
        that the decoder's library gives, one image `alone` after another; bicubic ones by more at edges, as overshoots
        are cut once and not after each of the two passes.
    deep, uneven: True if pictures have 16 bits or floats, and if classes of train/ differ in size; filled in with the
        content, which determines them.
    """

    kind: Literal["imagefolder"] = "imagefolder"
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    content: str | None = None
    classes: tuple[str, ...] | None = Field(default=None, min_length=1)
    decoder: Decoder = "pil"
    crops: Crops = "alone"
    deep: bool = False
    uneven: bool = False

    channels: ClassVar[int] = 3
    implicit: ClassVar[Mapping[str, object]] = {"classes": None, "decoder": "pil", "crops": "alone"}
    unkeyed: ClassVar[frozenset[str]] = frozenset({"deep", "uneven"})
    filled: ClassVar[Mapping[str, str]] = dict.fromkeys(("content", "deep", "uneven"), "name")

    @model_validator(mode="before")
    @classmethod
    def _fill_content(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("content") is None and "name" in values:
            root = data_location(str(values["name"]))
            if root is not None and root.exists():
                try:
                    found = planned_manifest(root)
                    decoder, crops = values.get("decoder", "pil"), values.get("crops", "alone")
                    check_folder(root, found, values.get("classes"), decoder, crops)
                except HarnessError as error:
                    raise ValueError(str(error)) from None
                return {**values, "content": found.digest, "deep": found.deep, "uneven": is_uneven(found)}
        return values

    def current_revision(self) -> int:
        """One more where deep pictures were cut off at white, or the validation images were as many of each class."""
        return self.revision + (self.deep or (self.uneven and self.split == "validation"))

    @property
    def known_classes(self) -> int | None:
        if self.classes is not None:
            return len(self.classes)
        root = data_location(self.name)
        return (len(class_names(root, self.content)) or None) if root is not None else None

    def fault(self, *, tested: bool) -> str | None:
        root = data_location(self.name)
        if root is None or not root.exists():
            return None
        # Classes, decoder and crops may have been named after the folder was read.
        if self.classes is not None or self.crops == "batch" or root.is_file():
            try:
                check_folder(root, planned_manifest(root), self.classes, self.decoder, self.crops)
            except HarnessError as error:
                return str(error)
        held = planned_manifest(root).val if root.is_file() else any((root / "val").glob("*/*"))
        if tested and self.split == "test" and not held:
            hint = "put them there, or use split='validation'"
            return f"{root} has no images in val/<class>/ to measure accuracies on: {hint}"
        return None

    def small_classes(self) -> str | None:
        root = data_location(self.name) if self.split == "validation" else None
        if root is None or self.content is None:
            return None
        counts = planned_manifest(root).train
        sizes = {name: count for name, count in counts.items() if self.classes is None or name in self.classes}
        total = sum(count for count in sizes.values() if count > 1)
        wanted = total // HELD_OUT
        small = [f"{name} ({count})" for name, count in sorted(sizes.items()) if count == 1 or count * wanted < total]
        return f"{self.name}: {few_to_hold_out(small, len(sizes), 'may lack')}" if small else None


@cache
def planned_manifest(root: Path) -> Manifest:
    """Manifest of a folder, looked at once for each study file that is loaded (`run_file` clears this cache).

    A study of ImageNet names it dozens of times, in presets and in rows of published tables, and whether one of its
    million files has changed takes half a minute to see.
    """
    return manifest(root)


@lru_cache(maxsize=8)
def class_names(root: Path, content: str | None) -> tuple[str, ...]:
    """Classes of an ImageFolder that names none, in the order of their labels; empty if there are none here.

    They are the subfolders of train/ that hold an image. A folder is looked at once for each content digest.
    """
    del content  # it is there for the cache: a folder with another content is looked at anew
    if root.is_file():
        return tuple(sorted(read_header(root).train))
    folders = (root / "train").iterdir() if (root / "train").is_dir() else ()
    return tuple(sorted(folder.name for folder in folders if folder.is_dir() and holds_image(folder)))


def is_uneven(folder: Manifest) -> bool:
    """True if classes of train/ differ in their number of images."""
    return len(set(folder.train.values())) > 1


def check_folder(
    root: Path, folder: Manifest, classes: Sequence[str] | None, decoder: str, crops: str = "alone"
) -> None:
    """Refuse a folder that has not the form that `ImageFolder` describes, or a pack of other pixels.

    Raises:
        HarnessError: names the classes, the file, the decoder or the crops.
    """
    if folder.decoder not in (None, decoder):
        raise HarnessError(
            f"{root} was packed with decoder {folder.decoder!r}, and decoder={decoder!r} gives other pixels: "
            f"say ImageFolder(decoder={folder.decoder!r}), or pack the folder with --decoder {decoder}"
        )
    if crops == "batch" and packed_side(folder.digest) is None:
        raise HarnessError(f"crops='batch' needs squares of one size: pack {root} with --image-size")
    if folder.loose is not None:
        raise HarnessError(f"{root / folder.loose} lies in no class folder; images belong into train/<class>/")
    if not folder.train:
        raise HarnessError(f"{root} has no images in train/<class>/, where they belong (and into val/<class>/)")
    if folder.unreadable is not None and (fault := picture_fault(root / folder.unreadable)):
        raise HarnessError(f"cannot read {root / folder.unreadable}: {fault}")
    if classes is not None:
        if unknown := sorted(set(classes) - set(folder.train)):
            raise HarnessError(f"{root / 'train'} lacks {_named(unknown)} of classes; it has {_named(folder.train)}")
        return
    for part, ours, theirs in (("val", folder.val, folder.train), ("train", folder.train, folder.val)):
        if folder.val and (missing := sorted(set(theirs) - set(ours))):
            other = "train" if part == "val" else "val"
            raise HarnessError(
                f"{root / part} lacks {_named(missing)}, which {other}/ has: the accuracy would leave that out; "
                "mend the folder, or name the classes that count: ImageFolder(classes=(...))"
            )


SHOWN = 10
"""Classes that a message names."""


def _named(classes: Collection[str]) -> str:
    names = sorted(classes)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def absent(data: Folder) -> str:
    """Advice about a folder that is not found here, in one line that names the known data sets."""
    name, here = data.name, data_names() - {data.name}
    close = [name] if name in PUBLISHED else difflib.get_close_matches(name, here | set(PUBLISHED), n=1)
    kind = "Images" if close and close[0] in PUBLISHED else type(data).__name__
    hint = f"; did you mean {kind}(name={close[0]!r})?" if close else ""
    root = data_location(name)
    place = "is not here" if root is None else f"should lie in {root}, which is no folder"
    return (
        f"data set {name} {place}: set {data_variable(name)}, or {name} under [data] in harness.toml{hint}; "
        f"known folders: {', '.join(sorted(here)) or 'none'}; sets that are read as Images: {', '.join(PUBLISHED)}"
    )


class Shapes(_Data):
    """A procedural RGB set: one to three filled shapes on a textured ground, at any resolution.

    Every object comes with its class, mask and box. The label of an image is the class of its largest object.

    image_size: side in pixels.
    train, test: number of images.
    seed: of all that is drawn; another one gives other images. It is no run's seed.
    """

    kind: Literal["shapes"] = "shapes"
    image_size: Side = 32
    train: int = Field(default=4096, ge=1, le=10_000_000)
    test: int = Field(default=1024, ge=1, le=10_000_000)
    seed: int = 0

    channels: ClassVar[int] = 3
    num_classes: ClassVar[int] = 6
    truths: ClassVar[tuple[Truth, ...]] = ("labels", "segments", "objects")

    @property
    def caption(self) -> str:
        return f"shapes ({self.image_size} px)"

    @property
    def known_classes(self) -> int:
        return self.num_classes

    def _all_images(self, *, labelled: bool) -> int:
        del labelled
        return self.train

    def current_revision(self) -> int:
        """One more where the validation images were as many of each class: the drawn classes differ in size."""
        return self.revision + (self.split == "validation")


class Garments(_Data):
    """Scenes of one to six garments, from the pictures of Fashion-MNIST, over a blurred picture of the same.

    Each is scaled, mirrored and tinted, and a later one covers an earlier one. Every garment comes with its class, mask
    and box; masks are derived: a garment is where of a pixel and its eight neighbours in its picture most are not 0.
    The label of an image is the class of the garment of which most is seen. Training and test images are made of the
    training and test pictures.

    image_size: side in pixels; an index shows the same scene at any. train, test: number of images.
    seed: of all that is drawn; another one gives other scenes. It is no run's seed.
    source: the set of the pictures; `fashion-mnist-mini` ships with the package.
    content: digest of that set; filled in, and checked when it is read.
    """

    kind: Literal["garments"] = "garments"
    image_size: Side = 64
    train: int = Field(default=4096, ge=1, le=10_000_000)
    test: int = Field(default=1024, ge=1, le=10_000_000)
    seed: int = 0
    source: Literal["fashion-mnist-mini", "fashion-mnist"] = "fashion-mnist-mini"
    content: str = ""

    channels: ClassVar[int] = 3
    num_classes: ClassVar[int] = 10
    truths: ClassVar[tuple[Truth, ...]] = ("labels", "segments", "objects")
    filled: ClassVar[Mapping[str, str]] = {"content": "source"}

    @model_validator(mode="before")
    @classmethod
    def _fill_content(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("content"):
            facts = PUBLISHED.get(str(values.get("source", cls.model_fields["source"].default)))
            return {**values, "content": facts.digest if facts else ""}
        return values

    @property
    def pictures(self) -> Images:
        """The set of the pictures."""
        return Images(name=self.source, content=self.content)

    @property
    def caption(self) -> str:
        return f"garments ({self.image_size} px)"

    @property
    def known_classes(self) -> int:
        return self.num_classes

    def _all_images(self, *, labelled: bool) -> int:
        del labelled
        return self.train


class CustomData(_Data, UserFunction):
    """A user's own data set.

    function: `package.module:name`; called as `name(split, **params)` with split "train" or "test", it
        returns `(images, labels)`: uint8 array [N, H, W, C] and int64 array [N]. It must give the same images
        each time.
    channels: C.
    """

    kind: Literal["custom"] = "custom"
    channels: PositiveInt = 3

    def current_revision(self) -> int:
        """One more where the validation images were as many of each class, whose sizes only the function knows."""
        return self.revision + (self.split == "validation")


class _SceneFolder(_Data):
    """Fields of a folder of pictures with masks.

    name: looked up with `data_location`, as of ImageFolder.
    content: digest of all pictures and masks below the folder and of its annotations; filled in where it is found.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    content: str | None = None

    channels: ClassVar[int] = 3
    filled: ClassVar[Mapping[str, str]] = {"content": "name"}

    @model_validator(mode="before")
    @classmethod
    def _fill_content(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("content") is None and "name" in values:
            root = data_location(str(values["name"]))
            if root is not None and root.exists():
                try:
                    return {**values, "content": scene_content(root, planned_manifest(root))}
                except HarnessError as error:
                    raise ValueError(str(error)) from None
        return values

    def fault(self, *, tested: bool) -> str | None:
        root = data_location(self.name)
        try:
            if root is not None and root.exists():
                self.check(root, tested=tested)
        except HarnessError as error:
            return str(error)
        return None

    def check(self, root: Path, *, tested: bool) -> None:
        """Refuse a folder that has not the form that the class describes, as far as names of files tell.

        tested: True if something is measured on it.

        Raises:
            HarnessError: names the file that is missing.
        """
        raise NotImplementedError


class MaskFolder(_SceneFolder):
    """Pictures with a class for each pixel, as ADE20K has them, for Segment and for pre-training.

    `images/training/*.jpg` with `annotations/training/*.png` of the same names and sizes, and `validation` beside
    `training`. A mask holds a number for each pixel, grey or as the index into a palette.

    classes: number of classes. names: of them, for figures.
    shift: what is added to a number to give the class, from 0. ADE20K has -1: its 0, which becomes -1, stands for no
        class, and is neither learnt nor counted.
    ignore: a number that is neither learnt nor counted; None if there is none.
    """

    kind: Literal["maskfolder"] = "maskfolder"
    classes: int = Field(ge=2, le=255)
    names: tuple[str, ...] | None = None
    shift: int = 0
    ignore: int | None = 255

    truths: ClassVar[tuple[Truth, ...]] = ("segments",)
    unkeyed: ClassVar[frozenset[str]] = frozenset({"names"})

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.names is not None and len(self.names) != self.classes:
            raise ValueError(f"names has {len(self.names)} names for {self.classes} classes")
        return self

    @property
    def all_known(self) -> bool:
        """True if every pixel of a mask has a class."""
        return self.ignore is None and self.shift >= 0

    def check(self, root: Path, *, tested: bool) -> None:
        for part in ("training", "validation")[: 1 + (tested and self.split == "test")]:
            mask_pairs(root, part)

    def pictures(self, *, tested: bool) -> str:
        """Folder of the pictures below that of the set; tested: of those that it is tested on."""
        return f"images/{'validation' if tested else 'training'}"


class CocoFolder(_SceneFolder):
    """Pictures with objects, as COCO has them, for Detect and for pre-training.

    `annotations/instances_<part>.json` and the pictures that it names, in `<part>/`. Polygons and run-length masks are
    read by pycocotools (`pip install mim-harness[detection]`). Categories are numbered from 0 by their ids. Pictures
    without an object are not trained on. Crowds are not either, and count as COCO defines it in a test. Pre-training
    takes all pictures in `<train>/`, but for those that `split="validation"` holds out of the ones that the JSON names.
    Annotations with a box alone, as Objects365 has them, serve `Detect(masks=False)`. Objects are small or large by the
    `area` that the JSON states, or by the pixels of their outline.

    train, test: the parts.
    flat: what becomes of an annotation whose box has no area: COCO's train2017 has two of them.
    """

    kind: Literal["cocofolder"] = "cocofolder"
    train: str = Field(default="train2017", pattern=r"^[\w.-]+$")
    test: str = Field(default="val2017", pattern=r"^[\w.-]+$")
    flat: Literal["refuse", "drop"] = "refuse"

    truths: ClassVar[tuple[Truth, ...]] = ("objects",)

    def current_revision(self) -> int:
        """One more for a subset, and one for a validation split.

        The subset once was smaller by its pictures without objects. Of the held-out pictures some were pre-trained on
        where the folder has files that the JSON does not list.
        """
        return self.revision + (self.train_images is not None) + (self.split == "validation")

    def check(self, root: Path, *, tested: bool) -> None:
        for part in (self.train, self.test)[: 1 + (tested and self.split == "test")]:
            for path, there in ((coco_json(root, part), Path.is_file), (root / part, Path.is_dir)):
                if not there(path):
                    raise HarnessError(
                        f"{path} is missing: annotations/instances_{part}.json names the pictures in {part}/"
                    )

    def pictures(self, *, tested: bool) -> str:
        """Folder of the pictures below that of the set; tested: of those that it is tested on."""
        return self.test if tested else self.train


def coco_json(root: Path, part: str) -> Path:
    """Where the annotations of a part of a CocoFolder lie."""
    return root / "annotations" / f"instances_{part}.json"


def mask_pairs(root: Path, part: str) -> list[tuple[Path, Path]]:
    """Pictures of a part of a MaskFolder with their masks, sorted by name.

    Raises:
        HarnessError: there are none, or one lacks the other.
    """
    pictures, masks = (root / kind / part for kind in ("images", "annotations"))
    for folder in (pictures, masks):
        if not folder.is_dir():
            raise HarnessError(
                f"{folder} is missing: pictures belong into images/{part}/, masks into annotations/{part}/"
            )
    found = {path.relative_to(masks).with_suffix(""): path for path in image_files(masks)}
    pairs = []
    for path in image_files(pictures):
        mask = found.pop(path.relative_to(pictures).with_suffix(""), None)
        if mask is None:
            raise HarnessError(f"{path} has no mask in {masks}")
        pairs.append((path, mask))
    if found:
        raise HarnessError(f"{min(found.values())} is the mask of no picture in {pictures}")
    if not pairs:
        raise HarnessError(f"{pictures} holds no image")
    return pairs


def scene_content(root: Path, folder: Manifest) -> str:
    """Digest of a folder of pictures with masks: of its images, and of the JSON files in annotations/."""
    texts = sorted((root / "annotations").glob("*.json"))
    named = "".join(f"{path.name}\0{cached_file_sha256(path)}\n" for path in texts)
    return hashlib.sha256(f"{folder.digest}\n{named}".encode()).hexdigest()


Folder = ImageFolder | MaskFolder | CocoFolder
"""What lies in a folder of the user's."""

Data = Annotated[
    Images | ImageFolder | MaskFolder | CocoFolder | Shapes | Garments | CustomData, Field(discriminator="kind")
]
