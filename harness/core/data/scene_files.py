"""Scenes that lie in a user's folder: pictures with maps of classes, and pictures with objects in COCO's JSON.

Pictures and truth are read one by one in loader workers. A sample is a function of the seed, the step, the place in the
global batch and the picture.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import functional as pil

from harness.core.data.augment import normalise
from harness.core.data.coco import contents
from harness.core.data.datasets import FolderSet, checked_scenes, members, unlabelled
from harness.core.data.objects import Objects, objects_of
from harness.core.data.pictures import prepared, read
from harness.core.data.samples import pil_filter
from harness.core.data.scene_crops import IGNORED, Want, first_varied, nearest, scene_crops
from harness.spec import Augment, CocoFolder, HarnessError, MaskFolder
from harness.spec.data.datasets import coco_json, mask_pairs

REQUIRED = "pycocotools is not installed: pip install 'mim-harness[detection]'"


@dataclass(frozen=True, eq=False)
class MaskFiles:
    """Pictures in files, with a map of classes each.

    images: the pictures. masks: path of the map of each. sizes: height and width of each.
    """

    images: FolderSet
    masks: tuple[Path, ...]
    sizes: tuple[tuple[int, int], ...]
    data: MaskFolder

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def channels(self) -> int:
        return self.images.channels

    def names(self, want: Want) -> tuple[str, ...]:
        """Names of the classes, or their numbers as text if they have none."""
        if want == "objects":
            raise HarnessError(f"{self.data.title} has maps of classes and no objects; those are in a CocoFolder")
        return self.data.names or tuple(map(str, range(self.data.classes)))

    def segments(self, rows: Tensor) -> Tensor:
        """Classes of the pixels of whole pictures of one size: int64 [b, H, W], IGNORED where there is none."""
        return torch.stack([self.map_of(index) for index in rows.tolist()]).long()

    def objects(self, rows: Tensor) -> Objects:
        """There are none."""
        raise HarnessError(f"{self.data.title} has maps of classes and no objects; those are in a CocoFolder")

    def picture(self, index: int) -> Tensor:
        """One whole picture as it lies there, uint8 [3, H, W]."""
        return whole_picture(self.images, index)

    def to(self, device: torch.device) -> MaskFiles:
        """The same set: files have no device."""
        del device
        return self

    def map_of(self, index: int) -> Tensor:
        """Map of one picture, uint8 [H, W].

        Raises:
            HarnessError: the file is no picture of one channel, or has a value that is no class.
        """
        path = self.masks[index]
        return _classes_of(path, read(path, lambda file: _values(path, file)), self.data)


def whole_picture(images: FolderSet, index: int) -> Tensor:
    """A picture in a file, uint8 [3, H, W]."""
    pixels: Tensor = read(images.paths[index], lambda file: pil.pil_to_tensor(prepared(file)))
    return pixels


def _values(path: Path, file: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    if file.mode not in ("1", "L", "P", "I", "I;16"):
        raise HarnessError(f"{path} is a picture of mode {file.mode}: a mask holds one number a pixel")
    return np.asarray(file).astype(np.int64)


def _classes_of(path: Path, values: np.ndarray[Any, np.dtype[np.int64]], data: MaskFolder) -> Tensor:
    classes = values + data.shift
    known = (classes >= 0) if data.ignore is None else (classes >= 0) & (values != data.ignore)
    if len(bad := values[known & (classes >= data.classes)]):
        shifted = f", shifted {bad.max() + data.shift}," if data.shift else ""
        raise HarnessError(f"{path} has the value {bad.max()}{shifted} but classes are 0 to {data.classes - 1}")
    return torch.from_numpy(np.where(known, classes, IGNORED).astype(np.uint8))


class Annotation(NamedTuple):
    """An object as a JSON of COCO states it.

    kind: class from 0. box: x0, y0, x1, y1. outline: polygons or a run-length mask; None if there is the box alone.
    crowd, area: see `Objects`.
    """

    number: Any
    kind: int
    box: tuple[float, float, float, float]
    outline: Any
    crowd: bool
    area: float

    @property
    def shape(self) -> Any:
        """The outline, or the box as a polygon."""
        x0, y0, x1, y1 = self.box
        return [[x0, y0, x1, y0, x1, y1, x0, y1]] if self.outline is None else self.outline


@dataclass(frozen=True, eq=False)
class ObjectFiles:
    """Pictures in files, with their objects.

    images: the pictures. annotations: of each. sizes: height and width of each. classes: names. source: the JSON.
    """

    images: FolderSet
    annotations: tuple[tuple[Annotation, ...], ...]
    sizes: tuple[tuple[int, int], ...]
    classes: tuple[str, ...]
    source: Path

    def __len__(self) -> int:
        return len(self.annotations)

    @property
    def channels(self) -> int:
        return self.images.channels

    def names(self, want: Want) -> tuple[str, ...]:
        """Names of the classes."""
        if want == "segments":
            raise HarnessError(f"{self.source} has objects and no maps of classes; those are in a MaskFolder")
        return self.classes

    def segments(self, rows: Tensor) -> Tensor:
        """There are none."""
        raise HarnessError(f"{self.source} has objects and no maps of classes; those are in a MaskFolder")

    def objects(self, rows: Tensor) -> Objects:
        """Objects of whole pictures of one size, crowds among them; boxes as the JSON states them, float32."""
        return stacked([self.objects_of(index) for index in rows.tolist()])

    def picture(self, index: int) -> Tensor:
        """One whole picture as it lies there, uint8 [3, H, W]."""
        return whole_picture(self.images, index)

    def to(self, device: torch.device) -> ObjectFiles:
        """The same set: files have no device."""
        del device
        return self

    def require_outlines(self) -> None:
        """Refuse objects that have a box alone, of which no mask can be learnt or judged.

        Raises:
            HarnessError: names the first of them.
        """
        for one in chain.from_iterable(self.annotations):
            if one.outline is None:
                raise HarnessError(
                    f"annotation {one.number} of {self.source} has no segmentation, neither polygons nor a run-length "
                    "mask; for boxes alone say Detect(masks=False)"
                )

    def objects_of(self, index: int, *, crowds: bool = True) -> Objects:
        """Objects of one picture, batch 1; crowds: False leaves those out.

        Raises:
            HarnessError: an outline cannot be read.
        """
        found = [one for one in self.annotations[index] if crowds or not one.crowd]
        height, width = self.sizes[index]
        masks = [decoded_mask(one.shape, height, width, f"annotation {one.number} of {self.source}") for one in found]
        return Objects(
            torch.tensor([[one.kind for one in found]], dtype=torch.int64),
            torch.stack(masks)[None] if masks else torch.zeros(1, 0, height, width, dtype=torch.bool),
            torch.tensor([one.box for one in found], dtype=torch.float32).view(1, -1, 4),
            torch.tensor([[one.crowd for one in found]], dtype=torch.bool),
            torch.tensor([[one.area for one in found]], dtype=torch.float64),  # as exact as the JSON
        )


def stacked(scenes: Sequence[Objects]) -> Objects:
    """Objects of several pictures of one size in one; free slots have class -1."""
    most = max(found.classes.shape[1] for found in scenes)
    free = Objects(*(torch.zeros(()),) * 5)._replace(classes=torch.tensor(-1))
    fields = [
        [_filled(field, most, float(empty)) for field, empty in zip(found, free, strict=True)] for found in scenes
    ]
    return Objects(*(torch.cat(rows) for rows in zip(*fields, strict=True)))


def _filled(field: Tensor, most: int, value: float) -> Tensor:
    """A field [1, M, ...] with `most` slots."""
    more = field.new_full((1, most - field.shape[1], *field.shape[2:]), value)
    return torch.cat([field, more], dim=1)


def decoded_mask(outline: Any, height: int, width: int, whose: str) -> Tensor:
    """Mask bool [height, width] of polygons (lists of x, y, x, y, ...) or a run-length mask, as COCO has them.

    Args:
        whose: what the outline belongs to, for the complaint.

    Raises:
        HarnessError: it is neither, or of another size; or pycocotools is not installed.
    """
    try:
        from pycocotools import mask as coco
    except ImportError:
        raise HarnessError(REQUIRED) from None
    try:
        packed = isinstance(outline, dict) and not isinstance(outline["counts"], list)
        coded = outline if packed else coco.frPyObjects(outline, height, width)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's, about how pycocotools makes an array
            found = coco.decode(coco.merge(coded) if isinstance(coded, list) else coded)
    except Exception as error:  # pycocotools raises all kinds, some of them without a text
        raise HarnessError(f"{whose} has no outline that pycocotools reads: {error or outline!r:.80}") from None
    if found.shape != (height, width):
        raise HarnessError(
            f"{whose} has a mask of {found.shape[1]} x {found.shape[0]}, its picture is {width} x {height}"
        )
    return torch.from_numpy(found).bool()


def load_masks(data: MaskFolder, part: Literal["train", "test"]) -> MaskFiles:
    """A part of a MaskFolder, `train` or `test`.

    Raises:
        HarnessError: it is missing, changed since it was planned, or a mask and its picture differ in size.
    """
    held_out = part == "test" and data.split == "test"
    pairs = mask_pairs(checked_scenes(data), "validation" if held_out else "training")
    sizes = []
    for picture, mask in pairs:
        (width, height), (wide, tall) = (read(path, lambda file: file.size) for path in (picture, mask))
        if (width, height) != (wide, tall):
            raise HarnessError(f"{mask} is {wide} x {tall}, its picture {picture.name} {width} x {height}")
        sizes.append((height, width))
    rows = list(range(len(pairs)))
    if not held_out:
        rows = members(data, torch.zeros(len(pairs), dtype=torch.int64), part).tolist()
    return MaskFiles(
        unlabelled([pairs[row][0] for row in rows]),
        tuple(pairs[row][1] for row in rows),
        tuple(sizes[row] for row in rows),
        data,
    )


def load_objects(data: CocoFolder, part: Literal["train", "test"]) -> ObjectFiles:
    """A part of a CocoFolder, `train` or `test`, pictures sorted by their files' names.

    Raises:
        HarnessError: it is missing, changed since it was planned, or its JSON is not as COCO has it.
    """
    held_out = part == "test" and data.split == "test"
    whole = read_coco(checked_scenes(data), data.test if held_out else data.train, data.flat)
    if held_out:
        return whole
    shows = torch.tensor([not all(one.crowd for one in found) for found in whole.annotations])
    rows = members(data, torch.zeros(len(whole), dtype=torch.int64), part, trainable=shows).tolist()
    return ObjectFiles(
        unlabelled([whole.images.paths[index] for index in rows]),
        tuple(whole.annotations[index] for index in rows),
        tuple(whole.sizes[index] for index in rows),
        whole.classes,
        whole.source,
    )


@lru_cache(maxsize=2)
def read_coco(root: Path, part: str, flat: str) -> ObjectFiles:
    """All pictures of a JSON of COCO with their objects; flat: see `CocoFolder`.

    Raises:
        HarnessError: the JSON is missing or no such JSON, or a picture that it names is.
    """
    source = coco_json(root, part)
    content = contents(source)
    kinds: dict[Any, int] = {}
    for category in sorted(content["categories"], key=lambda one: one["id"]):
        if not category.get("name"):
            raise HarnessError(f"category {category['id']} of {source} has no name")
        kinds[category["id"]] = len(kinds)
    names = {one["id"]: str(one["name"]) for one in content["categories"]}
    there = {path.name for path in (root / part).iterdir()} if (root / part).is_dir() else set()
    pictures = content["images"]
    for picture in pictures:
        if picture["file_name"] not in there:
            raise HarnessError(f"{source} names {picture['file_name']}, which is not in {root / part}")
    held: dict[Any, list[Annotation]] = {picture["id"]: [] for picture in pictures}
    for annotation in content["annotations"]:
        if (found := _annotation(annotation, source, kinds, held, flat)) is not None:
            held[annotation["image_id"]].append(found)
    return ObjectFiles(
        unlabelled([root / part / picture["file_name"] for picture in pictures]),
        tuple(tuple(held[picture["id"]]) for picture in pictures),
        tuple((int(picture["height"]), int(picture["width"])) for picture in pictures),
        tuple(names[number] for number in kinds),
        source,
    )


def _annotation(
    given: dict[str, Any], source: Path, kinds: dict[Any, int], pictures: dict[Any, Any], flat: str
) -> Annotation | None:
    whose = f"annotation {given.get('id')} of {source}"
    for field, known, of in (("image_id", pictures, "picture"), ("category_id", kinds, "category")):
        if given.get(field) not in known:
            raise HarnessError(f"{whose} is of {of} {given.get(field)}, which is not in the list there")
    box = given.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise HarnessError(f"{whose} has the box {box!r:.80}, not x, y, width, height")
    x, y, width, height = box
    if not (width > 0 and height > 0):
        if flat == "drop":
            return None
        raise HarnessError(f"{whose} has the box {box}, without area; mend it, or say CocoFolder(flat='drop')")
    corners = (float(x), float(y), float(x + width), float(y + height))
    kind, crowd = kinds[given["category_id"]], bool(given.get("iscrowd", 0))
    outline, area = given.get("segmentation") or None, _area(given.get("area"), whose)
    return Annotation(given.get("id"), kind, corners, outline, crowd, area)


def _area(stated: Any, whose: str) -> float:
    if stated is None:
        return -1.0
    if not isinstance(stated, int | float) or not stated >= 0:  # neither is nan
        raise HarnessError(f"{whose} has the area {stated!r:.80}, no number of pixels")
    return float(stated)


class SceneSamples(Dataset[tuple[Tensor, ...]]):
    """Augmented training scenes: (step, position, index) gives an image float32 [C, S, S], normalised, and its truth.

    That is a map int64 [S, S]; or classes [M], masks bool [M, S, S] and boxes int64 [M, 4] of M objects, which stand in
    one batch with the objects of others by `together`.
    """

    def __init__(
        self, scenes: MaskFiles | ObjectFiles, want: Want, augment: Augment, image_size: int, seed: int
    ) -> None:
        scenes.names(want)  # refuses a truth that is not there
        self.scenes, self.want, self.augment, self.image_size, self.seed = scenes, want, augment, image_size, seed

    def __getitem__(self, sample: tuple[int, int, int]) -> tuple[Tensor, ...]:
        step, position, index = sample
        images = self.scenes.images

        def cut(file: Any) -> tuple[Tensor, ...]:
            width, height = file.size
            place = torch.tensor([position])
            tries, flip = scene_crops(
                height, width, self.augment, self.want, seed=self.seed, step=step, positions=place
            )
            box, truth = self._truth(index, (height, width), tries, flip)
            filter_ = pil_filter(self.augment.interpolation)
            shown = shown_part(file, box[0].tolist(), self.image_size, filter_)
            image = normalised(shown, (self.image_size, self.image_size), images)
            return (image.flip(2) if flip else image, *truth)

        return read(images.paths[index], cut)

    def _truth(
        self, index: int, size: tuple[int, int], tries: Tensor, flip: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The box that is taken, int64 [1, 4], and the truth in it."""
        scenes, side, limit = self.scenes, self.image_size, self.augment.class_limit
        if isinstance(scenes, MaskFiles):
            whole = scenes.map_of(index)[None]
            box = tries[:, 0] if limit is None else first_varied(whole.long(), tries, side, limit)
            return box, (nearest(whole, box, flip, side)[0].long(),)
        if size != scenes.sizes[index]:
            stated = f"{scenes.source} says {scenes.sizes[index][1]} x {scenes.sizes[index][0]}"
            raise HarnessError(f"{scenes.images.paths[index]} is {size[1]} x {size[0]}, and {stated}")
        found, box = scenes.objects_of(index, crowds=False), tries[:, 0]
        count = found.classes.shape[1]
        masks = nearest(found.masks[0].byte(), box.expand(count, 4), flip.expand(count), side, beyond=0).bool()
        seen = objects_of(masks[None], found.classes)
        return box, (seen.classes[0], seen.masks[0], seen.boxes[0])


def shown_part(file: Any, box: list[int], size: int, filter_: Image.Resampling) -> Tensor:
    """What a box shows of a picture that is resized with it to `size`: uint8 [3, h, w], as far as the picture goes."""
    top, left, tall, wide = box
    width, height = file.size
    rows, columns = (_within(*line, size) for line in ((top, tall, height), (left, wide, width)))
    # Cropped first: what lies beside the box would reach the pixels at its edge.
    part = prepared(file).crop((left, top, min(left + wide, width), min(top + tall, height)))
    right, bottom = columns * wide / size, rows * tall / size
    if right > part.width or bottom > part.height:  # the last pixel reaches beyond the picture, whose edge is repeated
        more = math.ceil(bottom) - part.height, math.ceil(right) - part.width
        part = Image.fromarray(
            np.pad(np.asarray(part), [(0, max(0, more[0])), (0, max(0, more[1])), (0, 0)], mode="edge")
        )
    image = part.resize((columns, rows), filter_, box=(0, 0, right, bottom))
    pixels: Tensor = pil.pil_to_tensor(image)
    return pixels


def _within(start: int, length: int, end: int, size: int) -> int:
    """Number of the `size` pixels of a window from `start` on whose centres lie before `end`."""
    return sum(start + (2 * place + 1) * length // (2 * size) < end for place in range(size))


def normalised(pixels: Tensor, size: tuple[int, int], images: FolderSet) -> Tensor:
    """Pixels uint8 [3, h, w] normalised, in the top left corner of zeros: float32 [3, *size]."""
    canvas = torch.zeros(3, *size)
    canvas[:, : pixels.shape[1], : pixels.shape[2]] = normalise(pixels, images.mean, images.std)
    return canvas


def together(samples: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
    """Samples of `SceneSamples` in a batch: free slots of objects have class -1."""
    images = torch.stack([sample[0] for sample in samples])
    if len(samples[0]) == 2:
        return [images, torch.stack([sample[1] for sample in samples])]
    found = [
        Objects(classes[None], masks[None], boxes[None], *torch.zeros(2, 1, len(classes)))
        for _, classes, masks, boxes in samples
    ]
    return [images, *stacked(found)[:3]]


class SceneTests(Dataset[tuple[Tensor, Tensor]]):
    """Whole test pictures: float32 [3, h, w], normalised, and the size int64 [2] that the picture takes of it.

    For maps the shorter side becomes image_size; for objects the longer one, and zeros fill a square.
    """

    def __init__(self, scenes: MaskFiles | ObjectFiles, want: Want, image_size: int) -> None:
        self.images, self.want, self.image_size = scenes.images, want, image_size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels = read(self.images.paths[index], self._resized)
        height, width = pixels.shape[1:]
        size = (height, width) if self.want == "segments" else (self.image_size, self.image_size)
        return normalised(pixels, size, self.images), torch.tensor([height, width])

    def _resized(self, file: Any) -> Tensor:
        return resized_whole(prepared(file), self.image_size, self.want)


def resized_whole(image: Image.Image, image_size: int, want: Want) -> Tensor:
    """A whole test picture from a file, uint8 [3, h, w], at the size of `whole_size`."""
    tall, wide = whole_size(image.height, image.width, image_size, want)
    pixels: Tensor = pil.pil_to_tensor(image.resize((wide, tall), Image.Resampling.BICUBIC))
    return pixels


def whole_size(height: int, width: int, image_size: int, want: Want) -> tuple[int, int]:
    """Height and width of a test picture whose shorter side, or for objects the longer one, becomes image_size."""
    of = min(width, height) if want == "segments" else max(width, height)
    return max(1, round(height * image_size / of)), max(1, round(width * image_size / of))
