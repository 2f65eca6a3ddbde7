"""`harness predict` of a segmentation and of a detection that were trained here for a step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Command, Ended
from PIL import Image

from harness.launch import Resources
from harness.launch.job import work
from harness.spec import (
    Backbone,
    Detect,
    FineTune,
    LinearMap,
    Recipe,
    Scratch,
    Segment,
    Shapes,
    SimplePyramid,
    key,
)
from harness.store import Store

pytest.importorskip("pycocotools")

DATA = Shapes(image_size=32, train=8, test=4)
VIT = Backbone(name="vit_tiny_patch16_224", args={"embed_dim": 16, "depth": 1, "num_heads": 2}, patch_size=4)
START = Scratch(backbone=VIT, image_size=32)
RECIPE = Recipe(epochs=1, batch_size=8, lr=1e-6, lr_batch=None)
SEGMENT = Segment(start=START, data=DATA, recipe=RECIPE, head=LinearMap(), frozen=True)
DETECT = Detect(start=START, data=DATA, recipe=RECIPE, pyramid=SimplePyramid(width=8), anchor=2.0, rois=16)
FINETUNE = FineTune(start=START, data=DATA, recipe=RECIPE)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with these runs and pictures of one name in two folders."""
    made = tmp_path_factory.mktemp("seeing")
    (made / "harness.toml").touch()
    torch.set_num_threads(1)
    for run in (SEGMENT, DETECT, FINETUNE):
        event = work(Store(made / "runs"), run, torch.device("cpu"), Resources(), report=lambda event: None)
        assert event.kind == "done", event.text
    noise = np.random.default_rng(0).integers(0, 256, (30, 70, 3), dtype=np.uint8)
    for folder in ("a", "b"):
        (made / folder).mkdir()
        Image.fromarray(noise).save(made / folder / "photo.png")
    return made


@pytest.fixture
def here(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(root)
    monkeypatch.delenv("HARNESS_PROJECT", raising=False)
    return root


def one_line(ended: Ended, *words: str) -> None:
    assert ended.code == 2
    assert ended.err.startswith("harness: ")
    assert ended.err.count("\n") == 1
    for word in words:
        assert word in ended.err


def test_a_segmentation_tells_shares_and_writes_two_pictures(here: Path, harness: Command) -> None:
    ended = harness("predict", key(SEGMENT), "a/photo.png", "b/photo.png")
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[0] == "a/photo.png"
    assert lines[1].split() == ["class", "share"]
    assert max(map(len, lines)) <= 80
    names = ("photo-segments.png", "photo-map.png", "photo-2-segments.png", "photo-2-map.png")
    assert [line for line in lines if line.startswith("wrote")] == [f"wrote predictions/{name}" for name in names]
    with Image.open(here / "predictions" / "photo-map.png") as image:
        assert (image.mode, image.size) == ("P", (70, 30))
        assert np.asarray(image).max() < 7
    ended = harness("predict", key(SEGMENT), "a/photo.png", "--json", "--out", "other")
    (found,) = json.loads(ended.out)
    assert set(found) == {"image", "classes", "files"}
    assert sum(one["share"] for one in found["classes"]) == pytest.approx(1)
    assert found["files"] == ["other/photo-segments.png", "other/photo-map.png"]


def test_a_detection_tells_objects_and_draws_them(here: Path, harness: Command) -> None:
    ended = harness("predict", key(DETECT), "a/photo.png", "--score", 0, "--out", "all")
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    count = int(lines[0].removeprefix("a/photo.png ").split()[0])
    assert count > 0
    assert lines[1].split() == ["object", "score", "x0", "y0", "x1", "y1"]
    assert len(lines) == 3 + count
    assert lines[-1] == "wrote all/photo-objects.png"
    (found,) = json.loads(harness("predict", key(DETECT), "a/photo.png", "--score", 1, "--json").out)
    assert found == {"image": "a/photo.png", "objects": [], "files": ["predictions/photo-objects.png"]}
    ended = harness("predict", key(DETECT), "a/photo.png", "--score", 1)
    assert ended.out.splitlines()[0] == "a/photo.png   0 objects"


def test_options_that_would_do_nothing_and_what_cannot_be_are_one_line(here: Path, harness: Command) -> None:
    del here
    one_line(harness("predict", key(FINETUNE), "a/photo.png", "--out", "x"), "--out", key(FINETUNE), "leave it out")
    one_line(harness("predict", key(SEGMENT), "a/photo.png", "--score", 0.5), "score: ", "finds no objects")
    one_line(harness("predict", key(SEGMENT), "none.png"), "cannot read none.png")
    one_line(harness("predict", key(DETECT), "harness.toml"), "harness.toml as a picture")
    one_line(harness("export", key(SEGMENT), "e.safetensors"), "is a segment", "valid: pretrain, finetune")
    one_line(harness("predict", key(SEGMENT), "a/photo.png", "--out", "harness.toml"), "harness.toml")
