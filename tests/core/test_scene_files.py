"""Scenes in a user's folder are those that were written there, and what is wrong with a folder is said in one line."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pydantic import ValidationError
from tiny import RECIPE, VIT
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from harness import CocoFolder, Detect, Garments, LinearMap, MaskFolder, Scratch, Segment, SimplePyramid
from harness.core.data import datasets
from harness.core.data.datasets import FASHION, FolderSet, load
from harness.core.data.scene_crops import Want
from harness.core.data.scene_files import MaskFiles, ObjectFiles, decoded_mask, read_coco
from harness.core.data.scenes import MadeScenes, SceneBatch, Scenes, load_scenes, scene_batches, test_scenes
from harness.core.evaluate.average_precision import average_precision, found_entries, true_entries
from harness.core.runtime.session import Session
from harness.runs import compute
from harness.spec import Augment, HarnessError, Recipe
from harness.spec.data.datasets import planned_manifest
from harness.store import Attempt, Store

test_scenes.__test__ = False  # type: ignore[attr-defined]

MADE = Garments(image_size=48, train=12, test=5)
Part = Literal["train", "test"]
PARTS: tuple[tuple[Part, str], ...] = (("train", "training"), ("test", "validation"))
T = TypeVar("T", MaskFolder, CocoFolder)
CPU = torch.device("cpu")
FLIPPED = Augment(crop_scale=(1.0, 1.0), flip=0.5)


class Trained(NamedTuple):
    recipe: Recipe
    image_size: int
    seed: int


def session(workers: int = 0) -> Session:
    return Session(attempt=None, device=CPU, workers=workers)  # type: ignore[arg-type]


def batches(scenes: Scenes, want: Want, augment: Augment, workers: int = 0, first: int = 0) -> list[SceneBatch]:
    run = Trained(RECIPE.replace(epochs=2, batch_size=4, augment=augment), 48, 0)
    return list(scene_batches(run, scenes, session(workers), want, first))


def made(part: Part) -> MadeScenes:
    found = load_scenes(MADE, part)
    assert isinstance(found, MadeScenes)
    return found


def forget() -> None:
    """Forget what was read of folders, as a new process has."""
    for cached in (load_scenes, load, read_coco, datasets._read_once, planned_manifest):
        cached.cache_clear()


def planned_now(data: T) -> T:
    """The same data set as it is planned once its folder has changed."""
    return type(data)(**{**data.values, "content": None})


@pytest.fixture(autouse=True)
def _same_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are normalised by the colours of what is written to them, so that the images are the same numbers."""
    forget()
    colours = made("train").images.mean, made("train").images.std
    monkeypatch.setattr(datasets, "IMAGENET_COLOURS", colours)


def write_masks(root: Path) -> MaskFolder:
    """Garments in ADE20K's layout: 0 stands for no class, so class 0, the background, is written as 1."""
    for part, name in PARTS:
        scenes = made(part)
        for kind in ("images", "annotations"):
            (root / kind / name).mkdir(parents=True)
        for row in range(len(scenes)):
            to_pil_image(scenes.images.images[row]).save(root / "images" / name / f"{row:03}.png")
            classes = scenes.segments(torch.tensor([row]))[0] + 1
            Image.fromarray(classes.byte().numpy()).save(root / "annotations" / name / f"{row:03}.png")
    return MaskFolder(name="ade", classes=11, shift=-1, names=scenes.names("segments"))


def coco_of(scenes: MadeScenes) -> dict[str, Any]:
    """COCO's JSON of scenes: category ids with gaps, annotation ids from 1, masks compressed and not in turn."""
    found = scenes.objects(torch.arange(len(scenes)))
    annotations: list[dict[str, Any]] = []
    for row, slot in torch.nonzero(found.classes >= 0).tolist():
        x0, y0, x1, y1 = found.boxes[row, slot].tolist()
        packed = coco.encode(np.asfortranarray(found.masks[row, slot].byte().numpy()))
        outline: Any = {"size": packed["size"], "counts": packed["counts"].decode()}
        if len(annotations) % 2:
            outline = {"size": packed["size"], "counts": runs_of(found.masks[row, slot])}
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": 10 * row,
                "category_id": 3 * int(found.classes[row, slot]) + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "segmentation": outline,
                "iscrowd": 0,
            }
        )
    side = MADE.image_size
    pictures = [
        {"id": 10 * row, "file_name": f"{row:03}.png", "height": side, "width": side} for row in range(len(scenes))
    ]
    # Not in the order of their ids, which count.
    categories = [{"id": 3 * kind + 1, "name": name} for kind, name in enumerate(FASHION)][::-1]
    return {"images": pictures[::-1], "annotations": annotations, "categories": categories}


def runs_of(mask: Tensor) -> list[int]:
    """Lengths of the runs of 0 and 1 in turn, column by column, beginning with 0."""
    line = [0, *mask.T.flatten().int().tolist()]
    ends = [place for place in range(1, len(line)) if line[place] != line[place - 1]]
    places = [1, *ends, len(line)]
    return [b - a for a, b in pairwise(places)]


def write_coco(root: Path) -> CocoFolder:
    (root / "annotations").mkdir(parents=True)
    for part, name in (("train", "train2017"), ("test", "val2017")):
        scenes = made(part)  # type: ignore[arg-type]
        (root / name).mkdir()
        for row in range(len(scenes)):
            to_pil_image(scenes.images.images[row]).save(root / name / f"{row:03}.png")
        (root / "annotations" / f"instances_{name}.json").write_text(json.dumps(coco_of(scenes)))
    return CocoFolder(name="coco")


@pytest.fixture
def ade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MaskFolder:
    monkeypatch.setenv("HARNESS_DATA_ADE", str(tmp_path / "ade"))
    return write_masks(tmp_path / "ade").replace(name="ade")


@pytest.fixture
def coco_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CocoFolder:
    monkeypatch.setenv("HARNESS_DATA_COCO", str(tmp_path / "coco"))
    return write_coco(tmp_path / "coco").replace(name="coco")


def same_pictures(scenes: Scenes, part: Part, want: Want) -> None:
    ours = list(test_scenes(scenes, session(), image_size=48, want=want))
    theirs = torch.cat([shown.images for shown in test_scenes(made(part), session(), image_size=48, want=want)])
    assert torch.equal(torch.cat([shown.rows for shown in ours]), torch.arange(len(made(part))))
    assert torch.equal(torch.cat([shown.images for shown in ours]), theirs)
    assert {shown.size for shown in ours} == {(48, 48)}


def test_a_folder_of_masks_is_what_was_written(ade: MaskFolder) -> None:
    for part, _ in PARTS:
        scenes, wanted = load_scenes(ade, part), made(part)
        rows = torch.arange(len(wanted))
        assert scenes.names("segments") == wanted.names("segments")
        assert torch.equal(scenes.segments(rows), wanted.segments(rows))
        same_pictures(scenes, part, "segments")


def test_training_on_a_folder_of_masks_is_training_on_the_set(ade: MaskFolder) -> None:
    ours, theirs = (batches(scenes, "segments", FLIPPED) for scenes in (load_scenes(ade, "train"), made("train")))
    for one, other in zip(ours, theirs, strict=True):
        assert one.step == other.step
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.segments, other.segments)


def test_a_coco_folder_is_what_was_written(coco_set: CocoFolder) -> None:
    for part, _ in PARTS:
        scenes, wanted = load_scenes(coco_set, part), made(part)
        assert scenes.names("objects") == FASHION
        for row in range(len(wanted)):
            ours, theirs = scenes.objects(torch.tensor([row])), wanted.objects(torch.tensor([row]))
            there = theirs.classes[0] >= 0
            for mine, known in zip(ours, theirs, strict=True):
                assert torch.equal(mine[0], known[0][there].to(mine.dtype))
        same_pictures(scenes, part, "objects")


def test_training_on_a_coco_folder_is_training_on_the_set(coco_set: CocoFolder) -> None:
    ours, theirs = (batches(scenes, "objects", FLIPPED) for scenes in (load_scenes(coco_set, "train"), made("train")))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.images, other.images)
        for row in range(len(one.images)):
            mine, known = one.classes[row] >= 0, other.classes[row] >= 0
            for field in ("classes", "masks", "boxes"):
                assert torch.equal(getattr(one, field)[row][mine], getattr(other, field)[row][known])


@pytest.mark.parametrize("augment", [Augment(crop_scale=(0.3, 1.0)), Augment(scale=(0.5, 2.0), class_limit=0.6)])
def test_crops_of_a_file_are_those_in_memory(ade: MaskFolder, augment: Augment) -> None:
    """The map to the last pixel; the image to what PIL rounds, but for the last of a picture that is filled up."""
    scenes, wanted = load_scenes(ade, "train"), made("train")
    for one, other in zip(batches(scenes, "segments", augment), batches(wanted, "segments", augment), strict=True):
        assert torch.equal(one.segments, other.segments)
        error = ((one.images - other.images) * torch.tensor(wanted.images.std)[:, None, None] * 255).abs()
        assert float((error > 1.01).float().mean()) < 0.01


def test_loader_workers_and_the_first_step_change_nothing(coco_set: CocoFolder) -> None:
    scenes = load_scenes(coco_set, "train")
    whole = batches(scenes, "objects", Augment())
    for found in (batches(scenes, "objects", Augment(), workers=1), batches(scenes, "objects", Augment(), first=3)):
        for one, other in zip(whole[len(whole) - len(found) :], found, strict=True):
            assert one.step == other.step
            assert all(torch.equal(a, b) for a, b in zip(one[1:], other[1:], strict=True))


def test_boxes_follow_masks_through_crops(coco_set: CocoFolder) -> None:
    scenes = load_scenes(coco_set, "train")
    for batch in batches(scenes, "objects", Augment(scale=(0.5, 3.0))):
        for kind, mask, box in zip(
            batch.classes.flatten(), batch.masks.flatten(0, 1), batch.boxes.flatten(0, 1), strict=True
        ):
            ys, xs = torch.nonzero(mask, as_tuple=True)
            assert (kind >= 0) == (len(ys) > 0)
            assert box.tolist() == ([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(ys) else [0] * 4)


def test_pictures_of_any_size_are_tested_whole(ade: MaskFolder, coco_set: CocoFolder, tmp_path: Path) -> None:
    """Maps: the shorter side becomes image_size. Objects: the longer one does, and zeros fill the square."""
    for folder, kind in (
        ("ade/images/validation", "RGB"),
        ("ade/annotations/validation", "L"),
        ("coco/val2017", "RGB"),
    ):
        Image.new(kind, (60, 30), "white" if kind == "RGB" else 1).save(tmp_path / folder / "000.png")
    change(tmp_path / "coco", lambda all_: all_["images"][-1].update(width=60, height=30), "val2017")
    maps, objects = load_scenes(planned_now(ade), "test"), load_scenes(planned_now(coco_set), "test")
    first = next(test_scenes(maps, session(), image_size=24, want="segments"))
    assert (first.images.shape, first.size) == ((1, 3, 24, 48), (24, 48))
    assert maps.segments(first.rows).shape == (1, 30, 60)
    first = next(test_scenes(objects, session(), image_size=24, want="objects"))
    assert (first.images.shape, first.size) == ((1, 3, 24, 24), (12, 24))
    assert first.images[..., 12:, :].abs().max() == 0 < first.images[..., :12, :].abs().min()


def test_pretraining_sees_the_pictures_without_labels(ade: MaskFolder, coco_set: CocoFolder) -> None:
    for data in (ade, coco_set):
        found = load(data, "pretrain")
        assert isinstance(found, FolderSet)
        assert [path.name for path in found.paths] == [f"{row:03}.png" for row in range(12)]
        assert found.labels.tolist() == [-1] * 12
        assert len(load(data.replace(train_images=5), "pretrain")) == len(
            load_scenes(data.replace(train_images=5), "train")
        )
        tested = load(data, "test")
        assert isinstance(tested, FolderSet)
        assert [path.parent.name for path in tested.paths] == [data.pictures(tested=True).split("/")[-1]] * 5
        with pytest.raises(HarnessError, match="no labels of whole pictures"):
            load(data, "train")


def test_held_out_pictures_are_not_trained_on(ade: MaskFolder) -> None:
    data = ade.replace(split="validation")
    parts = [load_scenes(data, part) for part, _ in PARTS]
    names = [{path.name for path in scenes.images.paths} for scenes in parts if isinstance(scenes, MaskFiles)]
    assert [len(found) for found in names] == [11, 1]
    assert not names[0] & names[1]
    pretrained = load(data, "pretrain")
    assert isinstance(pretrained, FolderSet)
    assert {path.name for path in pretrained.paths} == names[0]


LISTED = {f"{row:03}.png" for row in range(12)}


def paths_of(pictures: object) -> tuple[Path, ...]:
    assert isinstance(pictures, FolderSet)
    return pictures.paths


def test_pictures_that_a_json_holds_out_are_not_pretrained_on_whatever_else_lies_there(
    coco_set: CocoFolder, tmp_path: Path
) -> None:
    """Further files come first, in between and last, so that the others change their places in the folder."""
    for extra in ("", "00.png", "0055.png", "zz.png"):
        if extra:
            picture(tmp_path / "coco" / "train2017" / extra)
        forget()
        data = CocoFolder(name="coco", split="validation")
        tested, trained = paths_of(load_scenes(data, "test").images), paths_of(load_scenes(data, "train").images)
        pretrained, everything = paths_of(load(data, "pretrain")), set((tmp_path / "coco" / "train2017").iterdir())
        assert paths_of(load(data, "test")) == tested
        assert set(pretrained) == everything - set(tested)
        assert set(trained) == set(pretrained) - {path for path in everything if path.name not in LISTED}
        assert len(load(data.replace(train_images=5), "pretrain")) == 5
    assert (data.current_revision(), data.replace(train_images=5).current_revision()) == (2, 3)


def test_voc_s_palette_and_border_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA_VOC", str(tmp_path))
    for name in ("training", "validation"):
        for kind in ("images", "annotations"):
            (tmp_path / kind / name).mkdir(parents=True)
        Image.new("RGB", (3, 1)).save(tmp_path / "images" / name / "a.png")
        mask = Image.fromarray(np.array([[0, 20, 255]], dtype=np.uint8))
        mask.putpalette([7] * 768)
        mask.save(tmp_path / "annotations" / name / "a.png")
    scenes = load_scenes(MaskFolder(name="voc", classes=21), "test")
    assert scenes.segments(torch.tensor([0])).tolist() == [[[0, 20, 255]]]
    assert scenes.names("segments")[:2] == ("0", "1")


def test_polygons_by_hand() -> None:
    """Two rectangles of whole pixels: columns 1 to 3 of rows 2 to 3, and column 5 of row 0."""
    found = decoded_mask([[1, 2, 4, 2, 4, 4, 1, 4], [5, 0, 6, 0, 6, 1, 5, 1]], 6, 8, "it")
    wanted = torch.zeros(6, 8, dtype=torch.bool)
    wanted[2:4, 1:4], wanted[0, 5] = True, True
    assert torch.equal(found, wanted)


def test_crowds_are_left_out_of_training_and_kept_for_tests(coco_set: CocoFolder, tmp_path: Path) -> None:
    def crowded(content: dict[str, Any]) -> None:
        for annotation in content["annotations"]:
            annotation["iscrowd"] = int(annotation["image_id"] == 0)

    for name in ("train2017", "val2017"):
        change(tmp_path / "coco", crowded, name)
    data = CocoFolder(name="coco")
    train, test = load_scenes(data, "train"), load_scenes(data, "test")
    assert len(train) == 11, "a picture of crowds alone shows nothing to learn"
    assert isinstance(test, ObjectFiles)
    assert test.objects(torch.tensor([0])).crowd.all()
    assert test.objects_of(0, crowds=False).classes.shape == (1, 0)


@pytest.mark.parametrize("of", ["bbox", "segm"])
def test_sizes_are_told_apart_by_the_areas_that_the_json_states(
    coco_set: CocoFolder, tmp_path: Path, of: Literal["bbox", "segm"]
) -> None:
    """Against pycocotools on the same JSON, whose areas are far from those of the masks, some between two pixels."""

    def measured(content: dict[str, Any]) -> None:
        for number, annotation in enumerate(content["annotations"]):
            annotation["area"] = (900, 1024.4, 5000.25, 20000)[number % 4]
            annotation["iscrowd"] = int(number % 7 == 0)

    change(tmp_path / "coco", measured, "val2017")
    test = load_scenes(CocoFolder(name="coco"), "test")
    truth, found, told = [], [], []
    for row in range(len(test)):
        known = test.objects(torch.tensor([row]))
        truth += true_entries(row, *(field[0] for field in known))
        boxes = known.boxes[0] + torch.tensor([1.0, 0.0, 2.0, 1.0])
        scores = torch.rand(len(boxes), generator=torch.Generator().manual_seed(row))
        found += found_entries(row, known.classes[0], known.masks[0].roll(1, 2), boxes, scores)
    for one in found:
        kept = {name: one[name] for name in ("score", "bbox" if of == "bbox" else "segmentation")}
        told.append(kept | {"image_id": 10 * one["image_id"], "category_id": 3 * one["category_id"] + 1})
    with contextlib.redirect_stdout(io.StringIO()):
        whole = COCO(str(tmp_path / "coco" / "annotations" / "instances_val2017.json"))
        judged = COCOeval(whole, whole.loadRes(told), of)
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    ours = average_precision(len(test), len(FASHION), truth, found, of)
    assert None not in ours.values()
    assert [value / 100 for value in ours.values() if value is not None] == pytest.approx(judged.stats[:6], abs=1e-9)


def test_detections_in_a_coco_folder_have_a_new_revision(coco_set: CocoFolder) -> None:
    start = Scratch(backbone=VIT, image_size=48)
    runs = [Detect(start=start, data=data, recipe=RECIPE) for data in (coco_set, MADE)]
    assert [run.current_revision() for run in runs] == [2, 1]


def test_a_subset_has_as_many_pictures_with_objects_as_it_says(coco_set: CocoFolder, tmp_path: Path) -> None:
    def emptied(content: dict[str, Any]) -> None:  # all but the last five of twelve
        content["annotations"] = [one for one in content["annotations"] if one["image_id"] >= 70]

    change(tmp_path / "coco", emptied)
    few = load_scenes(CocoFolder(name="coco", train_images=4), "train")
    assert isinstance(few, ObjectFiles)
    assert (len(few), all(few.annotations)) == (4, True)
    with pytest.raises(HarnessError, match="train_images 6 is more than the 5 training images"):
        load_scenes(CocoFolder(name="coco", train_images=6), "train")
    assert CocoFolder(name="coco", train_images=4).current_revision() == 2
    assert CocoFolder(name="coco").current_revision() == 1


def test_parts_with_other_categories_are_refused_before_training(coco_set: CocoFolder, tmp_path: Path) -> None:
    def without_sandals(content: dict[str, Any]) -> None:
        (kind,) = [one["id"] for one in content["categories"] if one["name"] == "Sandal"]
        content["categories"] = [one for one in content["categories"] if one["id"] != kind]
        content["annotations"] = [one for one in content["annotations"] if one["category_id"] != kind]

    change(tmp_path / "coco", without_sandals, "val2017")
    start = Scratch(backbone=VIT, image_size=48)
    run = Detect(start=start, data=CocoFolder(name="coco"), pyramid=SimplePyramid(width=16), recipe=RECIPE)
    with pytest.raises(HarnessError, match="different categories: Sandal in one alone"):
        numbers(run, tmp_path / "runs")


def test_parts_that_number_the_same_categories_otherwise_are_refused(coco_set: CocoFolder, tmp_path: Path) -> None:
    def swapped(content: dict[str, Any]) -> None:
        first, second = content["categories"][:2]
        first["name"], second["name"] = second["name"], first["name"]

    change(tmp_path / "coco", swapped, "val2017")
    start = Scratch(backbone=VIT, image_size=48)
    run = Detect(start=start, data=CocoFolder(name="coco"), pyramid=SimplePyramid(width=16), recipe=RECIPE)
    with pytest.raises(HarnessError, match="different categories: in another order"):
        numbers(run, tmp_path / "runs")


def test_pictures_that_are_no_squares_are_refused_before_training_where_the_model_takes_squares(
    ade: MaskFolder, tmp_path: Path
) -> None:
    for kind, part in (("images", "validation"), ("annotations", "validation")):
        path = tmp_path / "ade" / kind / part / "003.png"
        Image.open(path).resize((72, 48), Image.Resampling.NEAREST).save(path)
    forget()
    run = Segment(start=Scratch(backbone=VIT, image_size=48), data=planned_now(ade), head=LinearMap(), recipe=RECIPE)
    with pytest.raises(HarnessError, match=r"of 5 pictures 1 are no squares: 72 x 48.*test=Slide\(stride=...\)"):
        numbers(run, tmp_path / "runs")
    assert not list((tmp_path / "runs").rglob("metrics.jsonl"))


def change(root: Path, edit: Callable[[dict[str, Any]], None], name: str = "train2017") -> None:
    path = root / "annotations" / f"instances_{name}.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    forget()


COCO_FAULTS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "category without a name": (lambda all_: all_["categories"][3].pop("name"), r"category 19 of .*json has no name"),
    "box without area": (
        lambda all_: all_["annotations"][0].update(bbox=[3, 4, 0, 5]),
        r"annotation 1 of .* has the box \[3, 4, 0, 5\], without area.*flat='drop'",
    ),
    "missing file": (
        lambda all_: all_["images"][0].update(file_name="away.png"),
        r"names away.png, which is not in .*train2017",
    ),
    "unknown picture": (lambda all_: all_["annotations"][1].update(image_id=7), "annotation 2 of .* is of picture 7"),
    "unknown category": (lambda all_: all_["annotations"][1].update(category_id=2), "is of category 2"),
    "no area": (lambda all_: all_["annotations"][1].update(area="5"), "annotation 2 of .* has the area '5', no number"),
    "no list": (lambda all_: all_.pop("categories"), "has no list 'categories'"),
    "no height": (lambda all_: all_["images"][0].pop("height"), "entry 0 of 'images' has no height"),
}


@pytest.mark.parametrize(("edit", "said"), COCO_FAULTS.values(), ids=COCO_FAULTS)
def test_a_wrong_json_is_refused_in_one_line(
    coco_set: CocoFolder, tmp_path: Path, edit: Callable[[dict[str, Any]], None], said: str
) -> None:
    change(tmp_path / "coco", edit)
    with pytest.raises(HarnessError, match=said) as raised:
        load_scenes(CocoFolder(name="coco"), "train")
    assert "\n" not in str(raised.value)


def test_flat_boxes_may_be_dropped(coco_set: CocoFolder, tmp_path: Path) -> None:
    change(tmp_path / "coco", COCO_FAULTS["box without area"][0])
    kept = load_scenes(CocoFolder(name="coco", flat="drop"), "train").objects(torch.tensor([0]))
    assert kept.classes.shape[1] == int((made("train").classes[0] >= 0).sum()) - 1


def boxes_alone(content: dict[str, Any]) -> None:
    for number, annotation in enumerate(content["annotations"]):
        annotation.pop("segmentation")
        annotation.update([{"segmentation": []}, {"segmentation": None}, {}][number % 3])


def test_boxes_alone_are_outlines(coco_set: CocoFolder, tmp_path: Path) -> None:
    outlined = load_scenes(coco_set, "train")
    for name in ("train2017", "val2017"):
        change(tmp_path / "coco", boxes_alone, name)
    boxed = load_scenes(planned_now(coco_set), "train")
    for row in range(len(boxed)):
        ours, theirs = boxed.objects(torch.tensor([row])), outlined.objects(torch.tensor([row]))
        assert torch.equal(ours.boxes, theirs.boxes)
        for mask, (x0, y0, x1, y1) in zip(ours.masks[0], ours.boxes[0].int().tolist(), strict=True):
            wanted = torch.zeros(48, 48, dtype=torch.bool)
            wanted[y0:y1, x0:x1] = True
            assert torch.equal(mask, wanted)
    whole = Augment(crop_scale=(1.0, 1.0), flip=0.5)  # cropped, the box of what is left of an outline may be smaller
    for ours, theirs in zip(*(batches(scenes, "objects", whole) for scenes in (boxed, outlined)), strict=True):
        assert torch.equal(ours.boxes, theirs.boxes)


def test_masks_are_not_learnt_from_boxes_alone(coco_set: CocoFolder, tmp_path: Path) -> None:
    start = Scratch(backbone=VIT, image_size=48)
    for name in ("val2017", "train2017"):
        change(tmp_path / "coco", lambda all_: all_["annotations"][1].update(segmentation=[]), name)
        run = Detect(
            start=start,
            data=planned_now(coco_set),
            pyramid=SimplePyramid(width=16),
            recipe=RECIPE.replace(batch_size=4, epochs=1),
            rois=16,
            anchor=2.0,
        )
        wanted = rf"annotation 2 of .*instances_{name}.json has no segmentation.*Detect\(masks=False\)"
        with pytest.raises(HarnessError, match=wanted) as raised:
            numbers(run, tmp_path / "runs")
        assert "\n" not in str(raised.value)
    assert "test_box_ap" in numbers(run.replace(masks=False), tmp_path / "runs")


def test_outlines_that_cannot_be_read_are_refused_in_one_line() -> None:
    for outline in ([[1, 2]], {"counts": "x"}, "nothing", {"size": [3, 3], "counts": [9]}):
        with pytest.raises(HarnessError, match=r"^it has") as raised:
            decoded_mask(outline, 6, 8, "it")
        assert "\n" not in str(raised.value)


def test_a_json_that_is_none_and_one_that_is_missing(coco_set: CocoFolder, tmp_path: Path) -> None:
    path = tmp_path / "coco" / "annotations" / "instances_train2017.json"
    path.write_text("{")
    forget()
    with pytest.raises(HarnessError, match="is no JSON"):
        load_scenes(CocoFolder(name="coco"), "train")
    path.unlink()
    forget()
    data = CocoFolder(name="coco")
    assert "instances_train2017.json is missing" in str(data.fault(tested=False))
    with pytest.raises(HarnessError, match=r"cannot read .*instances_train2017.json"):
        load_scenes(data, "train")


def picture(path: Path, size: tuple[int, int] = (48, 48), mode: str = "L", value: int = 1) -> None:
    Image.new(mode, size, value if mode == "L" else "red").save(path)


MASK_FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "another size": (
        lambda root: picture(root / "annotations/training/003.png", (48, 40)),
        r"annotations/training/003.png is 48 x 40, its picture 003.png 48 x 48",
    ),
    "no mask": (lambda root: (root / "annotations/training/003.png").unlink(), "images/training/003.png has no mask"),
    "no picture": (lambda root: (root / "images/training/003.png").unlink(), "003.png is the mask of no picture"),
    "a value beyond": (
        lambda root: picture(root / "annotations/training/003.png", value=12),
        r"003.png has the value 12, shifted 11, but classes are 0 to 10",
    ),
    "colours": (
        lambda root: picture(root / "annotations/training/003.png", mode="RGB"),
        "003.png is a picture of mode RGB: a mask holds one number a pixel",
    ),
    "no picture at all": (
        lambda root: (root / "annotations/training/003.png").write_text("text"),
        "cannot read .*003.png as a picture",
    ),
}


@pytest.mark.parametrize(("edit", "said"), MASK_FAULTS.values(), ids=MASK_FAULTS)
def test_a_wrong_mask_is_refused_in_one_line(
    ade: MaskFolder, tmp_path: Path, edit: Callable[[Path], object], said: str
) -> None:
    edit(tmp_path / "ade")
    forget()
    with pytest.raises(HarnessError, match=said) as raised:
        load_scenes(planned_now(ade), "train").segments(torch.arange(len(made("train"))))
    assert "\n" not in str(raised.value)


def test_a_truth_that_a_folder_lacks_is_refused_in_one_line(ade: MaskFolder, coco_set: CocoFolder) -> None:
    with pytest.raises(HarnessError, match="ade has maps of classes and no objects"):
        batches(load_scenes(ade, "train"), "objects", FLIPPED)
    with pytest.raises(HarnessError, match="has objects and no maps of classes"):
        batches(load_scenes(coco_set, "train"), "segments", FLIPPED)


def test_a_folder_that_changed_since_it_was_planned_is_refused(ade: MaskFolder, tmp_path: Path) -> None:
    picture(tmp_path / "ade" / "annotations" / "training" / "003.png")
    forget()
    with pytest.raises(HarnessError, match="is not the ade that this run was planned with"):
        load_scenes(ade, "train")


def test_names_have_to_be_as_many_as_classes() -> None:
    with pytest.raises(ValidationError, match="2 names for 3 classes"):
        MaskFolder(name="a", classes=3, names=("x", "y"))


@pytest.mark.slow
def test_evaluations_of_a_folder_give_the_numbers_of_the_set(
    ade: MaskFolder, coco_set: CocoFolder, tmp_path: Path
) -> None:
    start = Scratch(backbone=VIT, image_size=48)
    recipe = RECIPE.replace(epochs=2, batch_size=4, augment=FLIPPED)
    segment = Segment(start=start, data=MADE, head=LinearMap(), recipe=recipe)
    detect = Detect(start=start, data=MADE, pyramid=SimplePyramid(width=16), rois=16, anchor=2.0, recipe=recipe)
    for run, folder in ((segment, ade), (detect, coco_set)):
        ours, theirs = (numbers(one, tmp_path / one.data.title) for one in (run.replace(data=folder), run))
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-3)


def numbers(run: Segment | Detect, folder: Path) -> dict[str, float]:
    attempt = Store(folder).acquire(run)
    assert isinstance(attempt, Attempt)
    compute(run, Session(attempt, CPU))
    attempt.release()
    return dict(attempt.lines()[-1]) | {"seconds": 0.0, "images_per_second": 0.0}
