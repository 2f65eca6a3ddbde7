"""Pictures with a truth for each of their pixels: a map of classes, or objects with class, mask and box.

A picture, its map and its objects are cropped, scaled and flipped by the same draws. Crops are whole pixels of the
picture, of which the image takes averages and the truth the nearest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import tee
from typing import Literal, NamedTuple, Protocol, TypeVar, assert_never

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.functional import to_pil_image

from harness.core.data import garments, shapes
from harness.core.data.augment import cropped, normalise, test_batch
from harness.core.data.batches import step_indices, steps_per_epoch
from harness.core.data.datasets import FASHION, Facts, ImageSet, facts, members
from harness.core.data.objects import Objects, labels_of, objects_of
from harness.core.data.samples import collected
from harness.core.data.scene_crops import IGNORED, Want, first_varied, nearest, scene_crops
from harness.core.data.scene_files import (
    MaskFiles,
    ObjectFiles,
    SceneSamples,
    SceneTests,
    load_masks,
    load_objects,
    read_coco,
    resized_whole,
    together,
    whole_size,
)
from harness.core.runtime.ahead import Ahead
from harness.core.runtime.session import Session
from harness.machine import data_location
from harness.spec import Augment, CocoFolder, Data, Garments, HarnessError, MaskFolder, Recipe, Shapes
from harness.spec.data.datasets import coco_json

Fold = Literal["train", "test"]
Names = tuple[str, ...]
Made = TypeVar("Made", Shapes, Garments)
BACKGROUND = "background"

NOTHING = torch.zeros(0)
TEST_BATCH = 64


class SceneBatch(NamedTuple):
    """The rows of a training batch that this process takes, with the truth of the one kind that was asked for.

    step: counted from 0; an int64 scalar where the step is recorded.
    images: float32 [b, C, S, S], normalised. positions: int64 [b], places in the global batch.
    segments: int64 [b, S, S], classes of `Scenes.names("segments")`, IGNORED where nothing is to be learnt.
    classes, masks, boxes: of `Objects`, without crowds. What was not asked for has no element.
    All on the device of the training.
    """

    step: int | Tensor
    images: Tensor
    positions: Tensor
    segments: Tensor = NOTHING
    classes: Tensor = NOTHING
    masks: Tensor = NOTHING
    boxes: Tensor = NOTHING


class TestScenes(NamedTuple):
    """Whole test pictures, prepared, all of one size.

    rows: int64 [b], which of the set; `Scenes.segments(rows)` and `Scenes.objects(rows)` are their truth, in pixels of
        the pictures as they lie in the set.
    images: float32 [b, C, h, w], normalised.
    size: height and width of what the picture takes of these from the top left corner; the rest is padding of 0.
    """

    rows: Tensor
    images: Tensor
    size: tuple[int, int]


class TrainedOnScenes(Protocol):
    """The fields of a run that determine its training batches."""

    @property
    def recipe(self) -> Recipe: ...
    @property
    def image_size(self) -> int: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True, eq=False)
class MadeScenes:
    """Pictures in memory, with the truth of every pixel.

    images: of what is in memory, and labels of the whole pictures.
    slots: uint8 [N, H, W], 0 = background, else 1 + the slot of the object that is seen there.
    classes: int64 [N, M], the class of the object in each slot, -1 = none.
    objects_named: names of the classes of objects.
    """

    images: ImageSet
    slots: Tensor
    classes: Tensor
    objects_named: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        return self.images.channels

    def names(self, want: Want) -> tuple[str, ...]:
        """Names of the classes; those of segments begin with the background, those of objects lack it."""
        return (BACKGROUND, *self.objects_named) if want == "segments" else self.objects_named

    def segments(self, rows: Tensor) -> Tensor:
        """Classes of the pixels of whole pictures: int64 [b, H, W]."""
        return segments_of(self.slots[rows], self.classes[rows])

    def objects(self, rows: Tensor) -> Objects:
        """Objects of whole pictures, crowds among them."""
        return objects_of(_masks(self.slots[rows], self.classes.shape[1]), self.classes[rows])

    def picture(self, index: int) -> Tensor:
        """One whole picture as it lies there, uint8 [C, H, W]."""
        return self.images.images[index]

    def to(self, device: torch.device) -> MadeScenes:
        """The same pictures with their tensors on a device."""
        held = {name: getattr(self, name).to(device) for name in ("images", "slots", "classes")}
        return dataclasses.replace(self, **held)


Scenes = MadeScenes | MaskFiles | ObjectFiles
"""Pictures with their truth, in memory or in files. All have the fields and methods that `MadeScenes` documents."""


@lru_cache(maxsize=4)
def load_scenes(data: Data, part: Fold) -> Scenes:
    """Pictures of a data set with their truth; cached.

    They are those that `datasets.load` gives, in the same order, but for a CocoFolder. There they are those that the
    JSON names, sorted by the names of their files, and for training those with an object that is no crowd; `load` gives
    all that lie in the folder, but for those that are held out here.

    Raises:
        HarnessError: the data set has no such truth, is missing, or something in it cannot be read.
    """
    match data:
        case Shapes():
            return _made(data, part, shapes.scenes, shapes.CLASSES)
        case Garments():
            return _made(data, part, garments.scenes, FASHION)
        case MaskFolder():
            return load_masks(data, part)
        case CocoFolder():
            return load_objects(data, part)
        case _:
            known = "Garments, Shapes, MaskFolder, CocoFolder"
            raise HarnessError(f"{data.title} has neither masks nor boxes; data sets that have: {known}")


def _made(
    data: Made, part: Fold, make: Callable[[Made, Fold], Iterator[tuple[Tensor, Objects]]], names: Names
) -> MadeScenes:
    """Scenes that are made some at a time by `make`, from the training or from the test images of the data set."""
    fold: Fold = "test" if part == "test" and data.split == "test" else "train"
    chunks = [(images, labels_of(found), _slots(found.masks), found.classes) for images, found in make(data, fold)]
    images, labels, slots, classes = (torch.cat(fields) for fields in zip(*chunks, strict=True))
    rows = members(data, labels, part) if fold == "train" else torch.arange(len(labels))
    held = ImageSet(images[rows], labels[rows], *facts(data))
    return MadeScenes(held, slots[rows], classes[rows], names)


def _slots(masks: Tensor) -> Tensor:
    """Slots uint8 [B, H, W] of masks bool [B, M, H, W] that do not overlap."""
    numbers = torch.arange(1, masks.shape[1] + 1, dtype=torch.uint8)
    return (masks * numbers[:, None, None]).sum(1, dtype=torch.uint8)


def _masks(slots: Tensor, count: int) -> Tensor:
    """Masks bool [B, count, H, W] of slots uint8 [B, H, W]."""
    numbers = torch.arange(1, count + 1, dtype=torch.uint8, device=slots.device)
    return slots[:, None] == numbers[:, None, None]


def segments_of(slots: Tensor, classes: Tensor) -> Tensor:
    """Classes int64 [B, H, W], 0 = background, of slots uint8 [B, H, W] that hold objects of classes [B, M]."""
    # The class of each value that a slot can have.
    kinds = torch.full((len(classes), IGNORED + 1), IGNORED, device=classes.device)
    kinds[:, 0] = 0
    kinds[:, 1 : classes.shape[1] + 1] = classes + 1
    return kinds.gather(1, slots.long().flatten(1)).view(slots.shape)


def scene_batches(
    run: TrainedOnScenes, scenes: Scenes, session: Session, want: Want, first_step: int
) -> Iterator[SceneBatch]:
    """Training batches from a step on, cropped, scaled and flipped as the recipe says; this process's rows of each.

    An object of which a crop leaves nothing has class -1. Where a picture is smaller than what is cut out, the rest is
    0 in the normalised image, IGNORED in the map, and no object.

    Raises:
        HarnessError: there are fewer pictures than one batch takes, they have no such truth, or one cannot be read.
    """
    batch_size = run.recipe.batch_size
    rows = session.group.rows(batch_size)
    places = torch.arange(batch_size)[slice(None) if rows is None else rows]
    total = run.recipe.total_steps(steps_per_epoch(scenes.images, batch_size))
    steps = range(first_step, total)
    if isinstance(scenes, MadeScenes):
        here, positions = scenes.to(session.device), places.to(session.device)
        plan = step_indices(here.images, positions, batch_size, run.seed, steps, run.recipe.augment.repeats)
        return _in_memory(run, here, want, plan, positions, total)
    plan = step_indices(scenes.images, places, batch_size, run.seed, steps, run.recipe.augment.repeats)
    return _in_files(run, scenes, want, plan, places, session)


def _in_memory(
    run: TrainedOnScenes,
    scenes: MadeScenes,
    want: Want,
    plan: Iterator[tuple[int, Tensor]],
    positions: Tensor,
    total: int,
) -> Iterator[SceneBatch]:
    augment, side, images = run.recipe.augment, run.image_size, scenes.images
    height, width = scenes.slots.shape[1:]

    def draw(step: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        return scene_crops(height, width, augment, want, seed=run.seed, step=step, positions=positions)

    ahead = Ahead(draw, positions, total)
    for step, indices in plan:
        tries, flip = ahead.at(step)
        slots, classes, boxes = scenes.slots[indices], scenes.classes[indices], tries[:, 0]
        if augment.class_limit is not None:
            boxes = first_varied(segments_of(slots, classes), tries, side, augment.class_limit)
        seen = nearest(slots, boxes, flip, side)
        pictures = _enlarged(images.images[indices], augment)
        shown = cropped(pictures, (boxes, flip), images.colours, augment=augment, image_size=side)
        yield _batch(step, shown.masked_fill((seen == IGNORED)[:, None], 0), positions, seen, classes, want)


def _batch(step: int, images: Tensor, positions: Tensor, slots: Tensor, classes: Tensor, want: Want) -> SceneBatch:
    match want:
        case "segments":
            return SceneBatch(step, images, positions, segments_of(slots, classes))
        case "objects":
            found = objects_of(_masks(slots, classes.shape[1]), classes)
            return SceneBatch(step, images, positions, NOTHING, found.classes, found.masks, found.boxes)
        case _:
            assert_never(want)


def _in_files(
    run: TrainedOnScenes,
    scenes: MaskFiles | ObjectFiles,
    want: Want,
    plan: Iterator[tuple[int, Tensor]],
    places: Tensor,
    session: Session,
) -> Iterator[SceneBatch]:
    made = SceneSamples(scenes, want, run.recipe.augment, run.image_size, run.seed)
    plan, steps = tee(plan)
    wanted = ([(step, *pair) for pair in zip(places.tolist(), indices.tolist(), strict=True)] for step, indices in plan)
    positions = places.to(session.device)
    found = collected(made, wanted, session.device, session.workers, together)
    for tensors, (step, _) in zip(found, steps, strict=False):
        images, *truth = (tensor.to(session.device, non_blocking=True) for tensor in tensors)
        yield SceneBatch(step, images, positions, *((NOTHING, *truth) if want == "objects" else truth))


def _enlarged(pictures: Tensor, augment: Augment) -> Tensor:
    """Pictures [B, C, H, W] with as many rows and columns behind their last as boxes may reach beyond it.

    These repeat the last, so that no other colour reaches the pixels beside them.
    """
    if augment.scale is None or augment.scale[0] >= 1:
        return pictures
    height, width = pictures.shape[2:]
    side = round(max(height, width) / augment.scale[0]) + 1
    return functional.pad(pictures.float(), (0, side - width, 0, side - height), mode="replicate")


def test_scenes(
    scenes: Scenes,
    session: Session,
    *,
    image_size: int,
    want: Want,
) -> Iterator[TestScenes]:
    """All pictures of a set once, whole, in order; with n processes, each gets every n-th batch.

    Squares in memory are resized to image_size. Pictures in files come one by one: for maps their shorter side is
    resized to image_size, for objects their longer one, and the rest of a square is filled up.
    """
    batch_size, group = min(TEST_BATCH, session.micro_batch or TEST_BATCH), session.group
    if not isinstance(scenes, MadeScenes):
        rows = torch.arange(len(scenes))[group.rank :: group.size].split(1)
        made = SceneTests(scenes, want, image_size)
        found = collected(made, (row.tolist() for row in rows), session.device, session.workers)
        for row, (images, size) in zip(rows, found, strict=True):
            height, width = size[0].tolist()
            yield TestScenes(row, images.to(session.device), (height, width))
        return
    held = scenes.images
    for rows in torch.split(torch.arange(len(scenes)), batch_size)[group.rank :: group.size]:
        pictures = held.images[rows].to(session.device)
        images = test_batch(pictures, held.mean, held.std, image_size=image_size, crop=1.0)
        yield TestScenes(rows, images, (image_size, image_size))


def shown_whole(pixels: Tensor, data: Data, shown: Facts, *, image_size: int, want: Want) -> TestScenes:
    """Any picture, uint8 [C, H, W], prepared as `test_scenes` prepares those of a data set; its row is 0."""
    height, width = pixels.shape[1:]
    size = tall, wide = whole_size(height, width, image_size, want)
    if isinstance(data, MaskFolder | CocoFolder):  # its files are resized in 8 bits, pictures in memory in floats
        small = resized_whole(to_pil_image(pixels), image_size, want)
        images = normalise(small, shown.mean, shown.std)[None]
    else:
        values = pixels[None].float()
        if values.shape[2:] != size:
            values = functional.interpolate(values, size=size, mode="bicubic", antialias=True).clamp(0, 255)
        images = normalise(values / 255, shown.mean, shown.std)
    if want == "objects":
        images = functional.pad(images, (0, image_size - wide, 0, image_size - tall))
    return TestScenes(torch.zeros(1, dtype=torch.int64), images, size)


def class_names(data: Data, want: Want) -> tuple[str, ...]:
    """Names of a data set's classes, without its pictures; empty where they are not on this machine."""
    match data:
        case Shapes() | Garments():
            named = shapes.CLASSES if isinstance(data, Shapes) else FASHION
            return (BACKGROUND, *named) if want == "segments" else named
        case MaskFolder():
            return data.names or tuple(map(str, range(data.classes)))
        case CocoFolder():
            root = data_location(data.name)
            there = root is not None and coco_json(root, data.test).is_file()
            return read_coco(root, data.test, data.flat).classes if there and root else ()
        case _:
            return ()
