"""What is known of a data set without reading it, against what reading it gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from harness.core.data.datasets import FolderSet, facts_of, load
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


def test_classes_of_a_folder_are_its_subfolders_with_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("train", "val"):
        for name in ("dog/deep", "cat"):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / part / name / "a.png")
        for name in ("empty", ".ipynb_checkpoints", "notes"):
            (tmp_path / part / name).mkdir()
        (tmp_path / part / "notes" / "read.me").touch()
    monkeypatch.setenv("HARNESS_DATA_PETS", str(tmp_path))
    data = ImageFolder(name="pets")
    source = load(data, "train")
    assert isinstance(source, FolderSet)
    assert (data.known_classes, facts_of(data).classes, source.classes) == (2, ("cat", "dog"), ("cat", "dog"))
    assert sorted(zip(source.labels.tolist(), (path.name for path in source.paths), strict=True)) == [
        (0, "a.png"), (1, "a.png"),
    ]  # fmt: skip


def test_classes_of_a_folder_that_is_not_here_are_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for root in (tmp_path / "nowhere", tmp_path):
        monkeypatch.setenv("HARNESS_DATA_PETS", str(root))
        data = ImageFolder(name="pets", content="0a")
        assert (data.known_classes, facts_of(data).classes) == (None, ())


def test_number_of_shapes() -> None:
    assert Shapes.num_classes == len(CLASSES)
