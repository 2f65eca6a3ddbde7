"""What is known of a data set without reading it, against what reading it gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from harness.core.data.datasets import load
from harness.core.data.shapes import CLASSES
from harness.spec import CustomData, Data, ImageFolder, Images, Shapes


@pytest.mark.parametrize(
    "data",
    [
        Shapes(image_size=16, train=64, test=32),
        Shapes(image_size=16, train=200, test=32, split="validation"),
        Shapes(image_size=16, train=64, test=32, train_images=20),
        Images(name="fashion-mnist-mini"),
        Images(name="fashion-mnist-mini", split="validation"),
    ],
)
def test_as_loaded(data: Data) -> None:
    assert data.known_images(labelled=False) == len(load(data, "pretrain"))
    assert data.known_images(labelled=True) == len(load(data, "train"))
    assert data.known_classes == load(data, "train").num_classes


def test_what_has_to_be_read_is_unknown() -> None:
    own = CustomData(function="a:b", source="c")
    assert (own.known_classes, own.known_images(labelled=True)) == (None, None)
    assert own.replace(train_images=50).known_images(labelled=True) == 50
    assert Images(name="stl10").known_images(labelled=False) is None
    assert Images(name="stl10").known_images(labelled=True) == 5_000
    assert ImageFolder(name="nowhere").known_classes is None


def test_classes_of_a_folder_are_its_subfolders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / part / name / "a.png")
    monkeypatch.setenv("HARNESS_DATA_PETS", str(tmp_path))
    assert ImageFolder(name="pets").known_classes == 2


def test_number_of_shapes() -> None:
    assert Shapes.num_classes == len(CLASSES)
