"""Pictures with a truth for every pixel: what is cropped, scaled and flipped stays one scene."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import pytest
import torch
from tiny import RECIPE, VIT
from torch import Tensor

from harness.core.data.augment import squares
from harness.core.data.datasets import load
from harness.core.data.objects import Objects, boxes_around
from harness.core.data.scene_crops import Want, first_varied, nearest
from harness.core.data.scenes import MadeScenes, SceneBatch, Scenes, load_scenes, scene_batches, test_scenes
from harness.core.data.shapes import CLASSES, objects
from harness.core.runtime.session import Session
from harness.spec import Augment, Garments, HarnessError, Images, MaskFolder, Recipe, Scratch, Segment, Shapes

test_scenes.__test__ = False  # type: ignore[attr-defined]

SHAPES = Shapes(image_size=32, train=40, test=20)
PARTS: tuple[Literal["train", "test"], ...] = ("train", "test")
CPU = torch.device("cpu")
WHOLE = Augment(crop_scale=(1.0, 1.0), flip=0.0)


class Trained(NamedTuple):
    recipe: Recipe
    image_size: int
    seed: int


def session(**changes: Any) -> Session:
    return Session(attempt=None, device=CPU, **changes)  # type: ignore[arg-type]


def batches(scenes: Scenes, want: Want, augment: Augment, first: int = 0, seed: int = 0) -> list[SceneBatch]:
    run = Trained(RECIPE.replace(epochs=2, batch_size=10, augment=augment), 32, seed)
    return list(scene_batches(run, scenes, session(), want, first))


def test_shapes_are_those_of_the_set_with_their_objects() -> None:
    for part in PARTS:
        scenes, images, wanted = made(SHAPES, part), load(SHAPES, part), objects(SHAPES, part)
        rows = torch.tensor([3, 0, 11])
        assert torch.equal(scenes.images.images, images.images)  # type: ignore[union-attr]
        assert torch.equal(scenes.images.labels, images.labels)
        for mine, theirs in zip(scenes.objects(rows), wanted, strict=True):
            assert torch.equal(mine, theirs[rows])


def test_a_subset_and_a_held_out_part_are_those_of_the_images() -> None:
    for data in (SHAPES.replace(train_images=7), SHAPES.replace(train=300, split="validation")):
        for part in PARTS:
            scenes, images = made(data, part), load(data, part)
            assert torch.equal(scenes.images.images, images.images)  # type: ignore[union-attr]
            assert len(scenes.slots) == len(scenes.classes) == len(images)


def test_the_map_of_classes_is_painted_by_the_masks() -> None:
    scenes = load_scenes(SHAPES, "train")
    rows = torch.arange(len(scenes))
    found, segments = scenes.objects(rows), scenes.segments(rows)
    assert segments.dtype == torch.int64
    assert scenes.names("segments") == ("background", *CLASSES)
    assert scenes.names("objects") == CLASSES
    wanted = torch.zeros_like(segments)
    for slot in range(found.classes.shape[1]):
        wanted = torch.where(found.masks[:, slot], found.classes[:, slot, None, None] + 1, wanted)
    assert torch.equal(segments, wanted)


def made(data: Shapes, part: Literal["train", "test"]) -> MadeScenes:
    found = load_scenes(data, part)
    assert isinstance(found, MadeScenes)
    return found


def as_colours(scenes: MadeScenes) -> MadeScenes:
    """The same scenes whose images are their slots, so that what happens to one has to happen to the other."""
    pictures = scenes.slots[:, None].expand(-1, 3, -1, -1) * 60
    return MadeScenes(
        type(scenes.images)(pictures, scenes.images.labels, 6, (0.0,) * 3, (1.0,) * 3),
        scenes.slots,
        scenes.classes,
        scenes.objects_named,
    )


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_images_and_truth_stay_aligned(flip: float) -> None:
    """Of an image in the colours of its own masks, a pixel whose neighbours are alike keeps the colour of its mask."""
    scenes = as_colours(made(SHAPES, "train"))
    for batch in batches(scenes, "objects", Augment(crop_scale=(0.2, 1.0), flip=flip)):
        numbers = torch.arange(1, 4)[:, None, None]
        slots = (batch.masks * numbers).sum(1)
        shown = batch.images[:, 0] * 255 / 60
        inner = eroded(slots)
        assert inner.float().mean() > 0.3
        assert (shown - slots)[inner].abs().max() < 0.02


def eroded(maps: Tensor) -> Tensor:
    """Pixels all of whose neighbours up to two away are like them: bool [B, H, W], borders left out."""
    whole = torch.nn.functional.unfold(maps[:, None].float(), 5, padding=0)
    same = (whole == whole[:, 12:13]).all(1).view(len(maps), maps.shape[1] - 4, -1)
    return torch.nn.functional.pad(same, (2, 2, 2, 2))


def test_boxes_are_tight_and_cropped_away_objects_have_no_class() -> None:
    scenes = load_scenes(SHAPES, "train")
    gone = 0
    for batch in batches(scenes, "objects", Augment(crop_scale=(0.1, 0.5))):
        for mask, kind, box in zip(
            batch.masks.flatten(0, 1), batch.classes.flatten(), batch.boxes.flatten(0, 1), strict=True
        ):
            ys, xs = torch.nonzero(mask, as_tuple=True)
            gone += not len(ys)
            assert (kind >= 0) == (len(ys) > 0)
            wanted = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(ys) else [0] * 4
            assert box.tolist() == [int(value) for value in wanted]
    assert gone > 50


def test_without_crop_and_flip_the_truth_is_the_whole_pictures() -> None:
    scenes = load_scenes(SHAPES, "train")
    seen = torch.cat([batch.segments for batch in batches(scenes, "segments", WHOLE)[:4]])
    all_of_them = scenes.segments(torch.arange(40))
    assert sorted(map(str, seen.flatten(1).tolist())) == sorted(map(str, all_of_them.flatten(1).tolist()))


def test_two_flips_are_none() -> None:
    scenes = made(SHAPES, "train")
    boxes, always = torch.tensor([[0, 0, 32, 32]] * 40), torch.ones(40, dtype=torch.bool)
    once = nearest(scenes.slots, boxes, always, 32)
    assert torch.equal(once, scenes.slots.flip(2))
    assert torch.equal(nearest(once, boxes, always, 32), scenes.slots)


def test_nearest_by_hand() -> None:
    """A window of 4 columns from column 1 on, shrunk to 2, shows columns 2 and 4: those below its pixels' centres."""
    maps = torch.arange(6).repeat(6, 1)[None]
    box, no = torch.tensor([[0, 1, 4, 4]]), torch.tensor([False])
    assert nearest(maps, box, no, 2)[0, 0].tolist() == [2, 4]
    assert nearest(maps, box, no, 8)[0, 0].tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    assert nearest(maps, box, ~no, 8)[0, 0].tolist() == [4, 4, 3, 3, 2, 2, 1, 1]


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    scenes = load_scenes(SHAPES, "train")
    whole = batches(scenes, "objects", Augment())
    for one, other in zip(whole[3:], batches(scenes, "objects", Augment(), first=3), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one[1:], other[1:], strict=True))
    torch.manual_seed(5)
    maps = batches(scenes, "segments", Augment())
    assert all(torch.equal(one.images, other.images) for one, other in zip(whole, maps, strict=True))
    assert not torch.equal(batches(scenes, "objects", Augment(), seed=1)[0].masks, whole[0].masks)


def test_test_pictures_come_whole_in_order_and_resized() -> None:
    scenes = load_scenes(SHAPES, "test")
    found = list(test_scenes(scenes, session(micro_batch=8), image_size=16, want="objects"))
    assert torch.equal(torch.cat([shown.rows for shown in found]), torch.arange(20))
    assert [tuple(shown.images.shape) for shown in found] == [(8, 3, 16, 16), (8, 3, 16, 16), (4, 3, 16, 16)]


def test_boxes_around_masks() -> None:
    masks = torch.zeros(1, 2, 5, 6, dtype=torch.bool)
    masks[0, 0, 1:3, 2:6] = True
    assert boxes_around(masks).tolist() == [[[2, 1, 6, 3], [0, 0, 0, 0]]]


def test_a_set_without_truth_is_refused_in_one_line() -> None:
    with pytest.raises(HarnessError, match=r"fashion-mnist-mini has neither masks nor boxes.*Shapes"):
        load_scenes(Images(name="fashion-mnist-mini"), "train")


def test_objects_name_their_fields() -> None:
    assert Objects._fields == ("classes", "masks", "boxes", "crowd", "areas")


@pytest.mark.parametrize("scale", [(0.4, 0.9), (0.5, 2.0), (1.5, 3.0)])
def test_scaled_images_and_truth_stay_aligned_and_what_is_beyond_is_padding(scale: tuple[float, float]) -> None:
    scenes = as_colours(made(SHAPES, "train"))
    padded = 0
    for batch, map_batch in zip(
        batches(scenes, "objects", Augment(scale=scale)), batches(scenes, "segments", Augment(scale=scale)), strict=True
    ):
        assert torch.equal(batch.images, map_batch.images)
        slots = (batch.masks * torch.arange(1, 4)[:, None, None]).sum(1)
        beyond = map_batch.segments == 255
        padded += int(beyond.sum())
        assert batch.images[:, 0][beyond].abs().max() == 0 if beyond.any() else True
        assert not (batch.masks.any(1) & beyond).any()
        inner = eroded(torch.where(beyond, 9, slots)) & ~beyond
        assert (batch.images[:, 0] * 255 / 60 - slots)[inner].abs().max() < 0.02
    assert (padded > 0) == (scale[0] < 1)


def test_squares_by_hand() -> None:
    """Sides are the shorter side over the factor; a square lies within the picture wherever it fits there."""
    positions = torch.arange(400)
    found = squares(30, 60, Augment(scale=(0.5, 2.0)), of_longer=False, seed=0, step=0, positions=positions)
    assert found.shape == (400, 10, 4)
    top, left, tall, wide = found.unbind(2)
    assert torch.equal(tall, wide)
    assert (int(tall[:, 0].min()), int(tall[:, 0].max())) == (15, 60)
    assert (tall == tall[:, :1]).all()
    assert ((top == 0) | (top + tall <= 30)).all()
    assert ((left == 0) | (left + wide <= 60)).all()
    zooms = 30 / tall[:, 0]
    assert abs(float(zooms.mean()) - 1.25) < 0.05, "uniform in the factor, not in the side"
    longer = squares(30, 60, Augment(scale=(0.5, 2.0)), of_longer=True, seed=0, step=0, positions=positions)
    assert (longer[:, 0, 2] - 2 * tall[:, 0]).abs().max() <= 1


def test_an_enlarged_part_shows_each_pixel_twice() -> None:
    scenes = load_scenes(SHAPES, "train")
    for batch in batches(scenes, "segments", Augment(scale=(2.0, 2.0), flip=0.0))[:2]:
        small = batch.segments[:, ::2, ::2]
        assert torch.equal(small.repeat_interleave(2, 1).repeat_interleave(2, 2), batch.segments)


def test_first_varied_by_hand() -> None:
    maps = torch.zeros(1, 4, 8, dtype=torch.long)
    maps[:, :, 4:] = 1
    maps[:, 0, 0] = 255
    tries = torch.tensor([[[0, 0, 4, 4], [0, 1, 4, 4], [0, 2, 4, 4], [0, 3, 4, 4]]])
    assert first_varied(maps, tries, 4, 0.8).tolist() == [[0, 1, 4, 4]]  # 12 of 16
    assert first_varied(maps, tries, 4, 0.75).tolist() == [[0, 2, 4, 4]]
    assert first_varied(maps, tries, 4, 0.5).tolist() == [[0, 3, 4, 4]], "none: the last"


def test_a_square_of_which_nothing_is_known_is_not_taken_as_varied() -> None:
    """Against mmsegmentation's rule: `len(cnt) > 1 and np.max(cnt) / np.sum(cnt) < cat_max_ratio`."""
    draw = torch.Generator().manual_seed(0)
    blank = 0
    for _ in range(200):
        # Cells of 2 x 2 pixels, of which half are unknown: many squares of 4 x 4 are unknown as a whole.
        maps = torch.randint(0, 4, (1, 4, 8), generator=draw)
        maps = maps.where(maps < 2, 255).repeat_interleave(2, 1).repeat_interleave(2, 2)
        tries = torch.tensor([[[0, 2 * place, 4, 4] for place in torch.randperm(6, generator=draw).tolist()]])
        expected = tries[0, -1]
        for box in tries[0]:
            square = maps[0, :4, box[1] : box[1] + 4]
            counts = square[square != 255].unique(return_counts=True)[1]
            blank += not len(counts)
            if len(counts) > 1 and counts.max() / counts.sum() < 0.75:
                expected = box
                break
        assert first_varied(maps, tries, 4, 0.75).tolist() == [expected.tolist()]
    assert blank > 10


def test_a_class_limit_has_a_new_revision_where_pixels_may_be_unknown() -> None:
    limited = RECIPE.replace(augment=Augment(scale=(0.5, 2.0), class_limit=0.75))
    start = Scratch(backbone=VIT, image_size=32)
    plain = Segment(start=start, data=MaskFolder(name="a", classes=3), recipe=limited)
    for changes in ({}, {"ignore": None, "shift": -1}, {"ignore": 7}):
        assert plain.replace(data=plain.data.replace(**changes)).current_revision() == 2
    known = plain.data.replace(ignore=None)
    kept = [
        plain.replace(data=known),
        plain.replace(data=known.replace(shift=1)),
        plain.replace(data=SHAPES),
        plain.replace(data=Garments()),
        plain.replace(recipe=RECIPE),
        plain.replace(recipe=RECIPE.replace(augment=Augment(scale=(0.5, 2.0)))),
    ]
    assert [run.current_revision() for run in kept] == [1] * 6


def test_a_class_limit_gives_more_varied_squares() -> None:
    scenes = load_scenes(SHAPES, "train")

    def fullest(augment: Augment) -> Tensor:
        maps = torch.cat([batch.segments for batch in batches(scenes, "segments", augment)]).flatten(1)
        counts = torch.nn.functional.one_hot(maps, 256)[..., :255].sum(1)
        return counts.amax(1) / counts.sum(1)

    free, limited = (fullest(Augment(scale=(1.5, 2.5), class_limit=limit)) for limit in (None, 0.75))
    assert (limited < 0.75).float().mean() > (free < 0.75).float().mean() + 0.2
    assert ((limited == free) | (free >= 0.75)).all(), "a square that fits is kept"
