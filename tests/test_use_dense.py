"""Predictions of segmentations and detections that were trained here for a few steps, for pictures of any size."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from test_use import BEIT, RESNET, SWIN, VIT, pretraining
from torch import Tensor, nn

import harness
from harness import use
from harness.core.data import scenes as module
from harness.core.data.datasets import facts_of
from harness.core.data.scenes import load_scenes
from harness.core.evaluate.average_precision import found_entries
from harness.core.evaluate.confusion import Confusion
from harness.core.evaluate.detect import _entries as found_in_picture
from harness.core.evaluate.detect import detector_of, objects_in
from harness.core.evaluate.segment import classes_in
from harness.core.model.detector import Found
from harness.core.runtime.distributed import Group
from harness.core.weights.finished_run import opened_dense
from harness.launch import Resources
from harness.launch.job import work
from harness.spec import (
    Detect,
    Fpn,
    HarnessError,
    LinearMap,
    Recipe,
    Run,
    Scratch,
    Segment,
    Shapes,
    SimplePyramid,
    Slide,
    UPerNet,
    Whole,
    key,
)
from harness.store import Store

masks_of_coco = pytest.importorskip("pycocotools.mask")

DATA = Shapes(image_size=40, train=16, test=8)
RECIPE = Recipe(epochs=2, batch_size=8, lr=3e-3, lr_batch=None)
BRIEF = RECIPE.replace(epochs=1, lr=1e-6)  # before it says background everywhere
UPER = UPerNet(width=8, pools=(1, 2))
CPU = torch.device("cpu")
START = pretraining(VIT).replace(data=DATA, recipe=RECIPE)


def segment(start: Any, **changes: Any) -> Segment:
    return Segment(**{"start": start, "data": DATA, "recipe": RECIPE, "head": UPER, "image_size": 32, **changes})


def scratch(backbone: Any) -> Scratch:
    return Scratch(backbone=backbone, image_size=32)


SEGMENTS = {
    "frozen": segment(START, head=LinearMap(), frozen=True),
    "beit": segment(scratch(BEIT), test=Slide(stride=20), recipe=BRIEF),
    "swin": segment(scratch(SWIN), head=LinearMap(), frozen=True),
    "resnet": segment(scratch(RESNET), test=Whole(scales=(1.0, 1.5), flip=True), recipe=BRIEF),
}
DETECTS = {
    "masks": Detect(start=START, data=DATA, recipe=RECIPE, pyramid=SimplePyramid(width=16), anchor=2.0, rois=32),
    "boxes": Detect(
        start=scratch(RESNET), data=DATA, recipe=RECIPE, pyramid=Fpn(width=16), anchor=2.0, rois=32, masks=False,
        frozen=True,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(tmp_path_factory.mktemp("dense") / "runs")
    torch.set_num_threads(1)
    runs: list[Run] = [START, *SEGMENTS.values(), *DETECTS.values()]
    for run in runs:
        event = work(made, run, CPU, Resources(), report=lambda event: None)
        assert event.kind == "done", event.text
    return made


def pictures() -> list[NDArray[np.uint8]]:
    scenes = load_scenes(DATA, "test")
    return [scenes.picture(index).permute(1, 2, 0).numpy() for index in range(len(scenes))]


def metrics(store: Store, run: Run) -> dict[str, float]:
    result = store.result(key(run))
    assert result is not None
    return result.metrics


@pytest.mark.parametrize("name", SEGMENTS)
def test_classes_of_the_test_pictures_have_the_miou_that_the_run_reported(name: str, store: Store) -> None:
    run, truth = SEGMENTS[name], load_scenes(DATA, "test")
    model = use.predictor(run, store, CPU)
    counted = Confusion(7, CPU)
    for row, picture in enumerate(pictures()):
        found = model(picture)
        assert isinstance(found, use.Segments)
        assert (found.picture == picture).all()
        assert found.names == truth.names("segments")
        counted.add(truth.segments(torch.tensor([row]))[0], torch.from_numpy(found.classes).long())
    # In a batch of another size logits round differently, which may turn a pixel between two classes.
    assert counted.scores()["aacc"] == pytest.approx(metrics(store, run)["aacc"], abs=0.05)
    assert counted.scores()["miou"] == pytest.approx(metrics(store, run)["miou"], abs=0.5)


@pytest.mark.parametrize("name", DETECTS)
def test_objects_in_the_test_pictures_are_those_that_the_run_was_judged_by(name: str, store: Store) -> None:
    run, test = DETECTS[name], load_scenes(DATA, "test")
    model = use.predictor(run, store, CPU, score=0.0)
    session: Any = SimpleNamespace(micro_batch=None, group=Group(), device=CPU)
    (scene,) = module.test_scenes(test, session, image_size=32, want="objects")
    trained = opened_dense(run, store)
    assert trained is not None
    judged = detector_of(trained, CPU).find(scene.images, scene.size)
    for row, (picture, expected) in enumerate(zip(pictures(), judged, strict=True)):
        found = model(picture)
        assert isinstance(found, use.Detections)
        by_run = found_in_picture(row, expected, scene.size, torch.Size((40, 40)))
        masks = None if found.masks is None else torch.from_numpy(found.masks)
        boxes, scores, classes = map(torch.from_numpy, (found.boxes, found.scores, found.classes))
        told = found_entries(row, classes, masks, boxes, scores)
        assert told
        for one, other in zip(told, by_run, strict=True):
            assert one["category_id"] == other["category_id"]
            assert [*one["bbox"], one["score"]] == pytest.approx([*other["bbox"], other["score"]], abs=1e-3)
            assert (one["segmentation"] is not None) == run.masks
            if run.masks:
                assert overlap(one["segmentation"], other["segmentation"]) > 0.98


def overlap(one: dict[str, Any], other: dict[str, Any]) -> float:
    """IoU of two run-length masks; of two empty ones 1."""
    return float(masks_of_coco.iou([one], [other], [0])[0, 0]) if masks_of_coco.area(one) else 1.0


@pytest.mark.parametrize("name", ["frozen", "masks"])
def test_examples_are_what_predict_says(name: str, store: Store) -> None:
    run: Any = SEGMENTS.get(name) or DETECTS[name]
    path, model = store.artefact(key(run), "examples.npz"), use.predictor(run, store, CPU)
    assert path is not None
    with np.load(path, allow_pickle=False) as kept:
        for number, picture in enumerate(pictures()[:4]):
            found: Any = model(picture)
            assert (kept[f"picture_{number}"] == picture).all()
            assert tuple(kept["names"]) == found.names
            if name == "frozen":
                assert (kept[f"predicted_{number}"] == found.classes).mean() > 0.99
            else:
                np.testing.assert_allclose(kept[f"predicted_boxes_{number}"], found.boxes, rtol=1e-3)


class Reddish(nn.Module):
    """Class 1 where a pixel is more red than blue, class 0 elsewhere; takes squares of `side` alone."""

    def __init__(self, side: int | None) -> None:
        super().__init__()
        self.side, self.weight = side, nn.Parameter(torch.zeros(1))
        embedding: Any = nn.Module()
        embedding.strict_img_size = side is not None
        self.taps: Any = nn.Module()
        self.taps.encoder = nn.Module()
        self.taps.encoder.model = nn.Module()
        self.taps.encoder.model.patch_embed = embedding

    def forward(self, images: Tensor) -> tuple[Tensor, None]:
        assert self.side is None or images.shape[2:] == (self.side, self.side)
        return torch.stack([torch.zeros_like(images[:, 0]), images[:, 0] - images[:, 2]], dim=1), None


@pytest.mark.parametrize("test", [Whole(), Slide(stride=20), Whole(flip=True)], ids=["whole", "slide", "flip"])
@pytest.mark.parametrize("side", [None, 32], ids=["any", "fixed"])
@pytest.mark.parametrize("size", [(48, 150), (90, 33), (20, 20)], ids=str)
def test_a_map_of_classes_is_in_the_pixels_of_the_picture(
    test: Whole | Slide, side: int | None, size: tuple[int, int]
) -> None:
    height, width = size
    pixels = torch.zeros(3, height, width, dtype=torch.uint8)
    pixels[2], pixels[2, :, width // 2 :], pixels[0, :, width // 2 :] = 200, 0, 200  # right half red, left half blue
    pixels[0, : height // 3], pixels[2, : height // 3] = 0, 200  # but for the upper third
    run, model = segment(scratch(RESNET), test=test), Reddish(side)
    found = classes_in(run, model, pixels, facts_of(DATA), classes=2)  # type: ignore[arg-type]
    truth = (pixels[0] > pixels[2]).byte()
    assert found.shape == truth.shape
    edge = 2 * max(1, min(size) // 32)  # a pixel of the picture that the model sees is so wide
    inner = torch.zeros_like(truth, dtype=torch.bool)
    inner[: height // 3 - edge, :] = inner[height // 3 + edge :, :] = True
    inner[:, width // 2 - edge : width // 2 + edge] = False
    assert torch.equal(found[inner], truth[inner])


class Corner(nn.Module):
    """Finds one object in the lower right quarter of the picture, and a second one of which it is not sure."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def find(self, images: Tensor, size: tuple[int, int]) -> list[Found]:
        assert images.shape == (1, 3, 32, 32)
        assert (images[:, :, size[0] :] == 0).all()
        assert (images[:, :, :, size[1] :] == 0).all()
        height, width = size
        boxes = torch.tensor([[width / 2, height / 2, width, height], [0.0, 0.0, 4.0, 4.0]])
        return [Found(boxes, torch.tensor([0.9, 0.2]), torch.tensor([3, 1]), torch.ones(2, 28, 28))]


@pytest.mark.parametrize("size", [(100, 200), (60, 24), (16, 16)], ids=str)
def test_objects_are_in_the_pixels_of_the_picture(size: tuple[int, int]) -> None:
    height, width = size
    pixels = torch.full((3, height, width), 50, dtype=torch.uint8)
    found = objects_in(DETECTS["masks"], Corner(), pixels, facts_of(DATA), least=0.5)  # type: ignore[arg-type]
    (box,) = found.boxes.tolist()
    assert box == pytest.approx([width / 2, height / 2, width, height], rel=0.02)
    assert found.masks is not None
    assert found.masks.shape == (1, height, width)
    share = found.masks.float().mean().item()
    assert share == pytest.approx(0.25, abs=0.1)
    assert found.masks[0, 3 * height // 4, 3 * width // 4]
    assert not found.masks[0, height // 4, width // 4]


def test_what_is_seen_is_told_and_drawn(store: Store, tmp_path: Path) -> None:
    wide = np.concatenate(pictures()[:3], axis=1)
    Image.fromarray(wide).save(tmp_path / "a.png")
    segments = harness.predict(SEGMENTS["frozen"], tmp_path / "a.png", store=store.root)
    assert segments.classes.shape == wide.shape[:2]
    assert sum(one.share for one in segments.shares) == pytest.approx(1)
    assert [one.share for one in segments.shares] == sorted((one.share for one in segments.shares), reverse=True)
    drawn, kept = segments.save(tmp_path / "out", "a")
    with Image.open(kept) as image:
        assert (image.mode, image.size) == ("P", (120, 40))
        assert (np.asarray(image) == segments.classes).all()
    with Image.open(drawn) as image:
        assert image.width >= 256
    found = harness.predict(key(DETECTS["masks"]), wide, score=0.0, store=store.root)
    assert found.boxes.shape == (len(found.scores), 4)
    assert (np.diff(found.scores) <= 0).all()
    (drawn,) = found.save(tmp_path / "out", "a")
    with Image.open(drawn) as image:
        assert image.size == (360, 120)
    assert len(harness.predict(DETECTS["masks"], wide, score=1.0, store=store.root).boxes) == 0


def test_a_model_below_which_nothing_is_left_is_one_line(store: Store, tmp_path: Path) -> None:
    """A frozen encoder is not in the run's weights, but in those of its pre-training."""
    picture = pictures()[0]
    other = SEGMENTS["frozen"].replace(seed=7)
    store.register(other)
    with pytest.raises(HarnessError, match="is not done: it is missing"):
        harness.predict(other, picture, store=store.root)
    with pytest.raises(HarnessError, match="a score is 0 to 1, not 2"):
        harness.predict(DETECTS["masks"], picture, score=2, store=store.root)
    weights = store.weights(key(START))
    assert weights is not None
    aside = weights.rename(tmp_path / "aside")
    try:
        with pytest.raises(HarnessError, match="which this run starts from, has no weights"):
            harness.predict(SEGMENTS["frozen"], picture, store=store.root)
        harness.predict(DETECTS["masks"], picture, store=store.root)  # all of it was trained
    finally:
        aside.rename(weights)
