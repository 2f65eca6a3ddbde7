"""Pictures with a truth for each of their pixels: a map of classes, or objects with class, mask and box.

A picture, its map and its objects are cropped, scaled and flipped by the same draws. Crops are whole pixels of the
picture, of which the image takes averages and the truth the nearest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol, TypeVar, assert_never

import torch
from torch import Tensor
from torch.nn import functional

from harness.core.data import garments, shapes
from harness.core.data.augment import crop_boxes, cropped, flips, squares, test_batch
from harness.core.data.batches import step_indices, steps_per_epoch
from harness.core.data.datasets import FASHION, ImageSet, facts, members
from harness.core.data.objects import Objects, labels_of, objects_of
from harness.core.runtime.ahead import Ahead
from harness.core.runtime.session import Session
from harness.spec import Augment, Data, Garments, HarnessError, Recipe, Shapes

Want = Literal["segments", "objects"]
Fold = Literal["train", "test"]
Names = tuple[str, ...]
Made = TypeVar("Made", Shapes, Garments)
IGNORED = 255
"""Value of a map of classes where nothing is known, or nothing is there."""
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
class Scenes:
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

    def to(self, device: torch.device) -> Scenes:
        """The same pictures with their tensors on a device."""
        held = {name: getattr(self, name).to(device) for name in ("images", "slots", "classes")}
        return dataclasses.replace(self, **held)


@lru_cache(maxsize=4)
def load_scenes(data: Data, part: Fold) -> Scenes:
    """Pictures of a data set with their truth: those that `datasets.load` gives, in the same order; cached.

    Raises:
        HarnessError: the data set has no such truth, is missing, or something in it cannot be read.
    """
    match data:
        case Shapes():
            return _made(data, part, shapes.scenes, shapes.CLASSES)
        case Garments():
            return _made(data, part, garments.scenes, FASHION)
        case _:
            raise HarnessError(f"{data.title} has neither masks nor boxes; data sets that have: Shapes, Garments")


def _made(
    data: Made, part: Fold, make: Callable[[Made, Fold], Iterator[tuple[Tensor, Objects]]], names: Names
) -> Scenes:
    """Scenes that are made some at a time by `make`, from the training or from the test images of the data set."""
    fold: Fold = "test" if part == "test" and data.split == "test" else "train"
    chunks = [(images, labels_of(found), _slots(found.masks), found.classes) for images, found in make(data, fold)]
    images, labels, slots, classes = (torch.cat(fields) for fields in zip(*chunks, strict=True))
    rows = members(data, labels, part) if fold == "train" else torch.arange(len(labels))
    held = ImageSet(images[rows], labels[rows], *facts(data))
    return Scenes(held, slots[rows], classes[rows], names)


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
    kinds = torch.full(
        (len(classes), IGNORED + 1), IGNORED, device=classes.device
    )  # of each value that a slot can have
    kinds[:, 0] = 0
    kinds[:, 1 : classes.shape[1] + 1] = classes + 1
    return kinds.gather(1, slots.long().flatten(1)).view(slots.shape)


def nearest(maps: Tensor, boxes: Tensor, flip: Tensor, size: int, beyond: int = IGNORED) -> Tensor:
    """Maps [B, H, W] cropped to boxes int64 [B, 4], resized to [B, size, size] by nearest neighbour, and mirrored.

    Geometry and arguments are those of `augment.resample`; each pixel is the one below its centre. Boxes may reach
    beyond the map on the right and below, where the value is `beyond`.
    """
    height, width = maps.shape[1:]
    top, left, tall, wide = (values[:, None] for values in boxes.unbind(1))
    centres = 2 * torch.arange(size, device=maps.device) + 1  # in half pixels, so that all is whole numbers
    rows = (top + centres * tall // (2 * size))[:, :, None]
    columns = left + centres * wide // (2 * size)
    columns = torch.where(flip[:, None], columns.flip(1), columns)[:, None]
    which = torch.arange(len(maps), device=maps.device)[:, None, None]
    found = maps[which, rows.clamp(max=height - 1), columns.clamp(max=width - 1)]
    return found.masked_fill((rows >= height) | (columns >= width), beyond)


def first_varied(maps: Tensor, tries: Tensor, size: int, limit: float) -> Tensor:
    """The first of each picture's boxes of which no class fills `limit` or more, or the last: int64 [B, 4].

    Args:
        maps: int64 [B, H, W], IGNORED is no class. tries: int64 [B, T, 4]. size: side of what is cut out.
    """
    count = len(tries)
    never = torch.zeros(count, dtype=torch.bool, device=maps.device)
    shares = []
    for boxes in tries.unbind(1):
        seen = nearest(maps, boxes, never, size).flatten(1)
        times = torch.zeros(count, IGNORED + 1, device=maps.device).scatter_add_(1, seen, torch.ones_like(seen).float())
        shares.append(times[:, :IGNORED].amax(1) / times[:, :IGNORED].sum(1).clamp(min=1))
    fits = torch.stack(shares, dim=1) < limit
    fits[:, -1] = True
    return tries[torch.arange(count, device=maps.device), fits.int().argmax(1)]


def scene_batches(
    run: TrainedOnScenes, scenes: Scenes, session: Session, want: Want, first_step: int
) -> Iterator[SceneBatch]:
    """Training batches from a step on, cropped, scaled and flipped as the recipe says; this process's rows of each.

    An object of which a crop leaves nothing has class -1. Where a picture is smaller than what is cut out, the rest is
    0 in the normalised image, IGNORED in the map, and no object.
    """
    recipe, augment, device = run.recipe, run.recipe.augment, session.device
    rows = session.group.rows(recipe.batch_size)
    positions = torch.arange(recipe.batch_size)[slice(None) if rows is None else rows].to(device)
    steps = recipe.total_steps(steps_per_epoch(scenes.images, recipe.batch_size))
    here = scenes.to(device)

    height, width = here.slots.shape[1:]

    def draw(step: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        return scene_crops(height, width, augment, want, seed=run.seed, step=step, positions=positions)

    ahead = Ahead(draw, positions, steps)
    for step, indices in step_indices(here.images, positions, recipe.batch_size, run.seed, range(first_step, steps)):
        tries, flip = ahead.at(step)
        slots, classes, boxes = here.slots[indices], here.classes[indices], tries[:, 0]
        if augment.class_limit is not None:
            boxes = first_varied(segments_of(slots, classes), tries, run.image_size, augment.class_limit)
        shown = nearest(slots, boxes, flip, run.image_size)
        pictures = _enlarged(here.images.images[indices], augment)
        images = cropped(pictures, (boxes, flip), here.images.colours, augment=augment, image_size=run.image_size)
        images = images.masked_fill((shown == IGNORED)[:, None], 0)
        yield _batch(SceneBatch(step, images, positions), shown, classes, want)


def scene_crops(
    height: int, width: int, augment: Augment, want: Want, *, seed: int, step: int | Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    """Boxes int64 [B, T, 4] of pictures of this size, of which the first is taken if nothing else decides; flips."""
    mirrored = flips(augment, seed=seed, step=step, positions=positions)
    if augment.scale is None:
        return crop_boxes(height, width, augment, seed=seed, step=step, positions=positions)[:, None], mirrored
    found = squares(height, width, augment, of_longer=want == "objects", seed=seed, step=step, positions=positions)
    return found[:, : None if augment.class_limit is not None else 1], mirrored


def _enlarged(pictures: Tensor, augment: Augment) -> Tensor:
    """Pictures [B, C, H, W] with as many rows and columns behind their last as boxes may reach beyond it.

    These repeat the last, so that no other colour reaches the pixels beside them.
    """
    if augment.scale is None or augment.scale[0] >= 1:
        return pictures
    height, width = pictures.shape[2:]
    side = round(max(height, width) / augment.scale[0]) + 1
    return functional.pad(pictures.float(), (0, side - width, 0, side - height), mode="replicate")


def _batch(batch: SceneBatch, slots: Tensor, classes: Tensor, want: Want) -> SceneBatch:
    match want:
        case "segments":
            return batch._replace(segments=segments_of(slots, classes))
        case "objects":
            found = objects_of(_masks(slots, classes.shape[1]), classes)
            return batch._replace(classes=found.classes, masks=found.masks, boxes=found.boxes)
        case _:
            assert_never(want)


def test_scenes(scenes: Scenes, session: Session, *, image_size: int) -> Iterator[TestScenes]:
    """All pictures of a set once, whole, in order; with n processes, each gets every n-th batch.

    Squares are resized to image_size.
    """
    batch_size, group = min(TEST_BATCH, session.micro_batch or TEST_BATCH), session.group
    held = scenes.images
    for rows in torch.split(torch.arange(len(scenes)), batch_size)[group.rank :: group.size]:
        pictures = held.images[rows].to(session.device)
        images = test_batch(pictures, held.mean, held.std, image_size=image_size, crop=1.0)
        yield TestScenes(rows, images, (image_size, image_size))
