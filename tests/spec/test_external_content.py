"""What lies outside a spec: a folder of images is read once, and read again when a file in it is another."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from harness.spec import HarnessError, ImageFolder
from harness.spec.data.datasets import planned_manifest
from harness.spec.data.external_content import Manifest, cached_file_sha256, file_sha256, image_files, manifest
from harness.study.file import run_file


def paint(path: Path, mode: str = "RGB", colour: Any = 7) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (4, 4), colour).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six cats and six dogs to train, one of each to test."""
    for part, count in (("train", 6), ("val", 1)):
        for name in ("cat", "dog"):
            for number in range(count):
                paint(tmp_path / "zoo" / part / name / f"{number}.png", colour=(number, 0, len(name)))
    monkeypatch.setenv("HARNESS_DATA_ZOO", str(tmp_path / "zoo"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "zoo"


def test_a_manifest_counts_the_images_of_each_class(root: Path) -> None:
    paint(root / "notes" / "a.png")
    found = manifest(root)
    assert (found.train, found.val) == ({"cat": 6, "dog": 6}, {"cat": 1, "dog": 1})
    assert (found.loose, found.deep, found.unreadable) == (None, False, None)
    assert manifest(root) == found


def keep_times(path: Path, change: Callable[[], object]) -> None:
    """Change a file and put its modification time back, as `cp -p`, `rsync -t` and archives do."""
    before = path.stat()
    change()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def written_anew(path: Path) -> None:
    path.write_bytes(path.read_bytes()[::-1])


def put_in_place(path: Path) -> None:
    beside = path.with_name("beside")
    beside.write_bytes(path.read_bytes()[::-1])
    beside.replace(path)


@pytest.mark.parametrize("change", [written_anew, put_in_place])
def test_a_file_of_the_same_size_and_time_is_read_anew(root: Path, change: Callable[[Path], None]) -> None:
    path = root / "train" / "cat" / "0.png"
    before, one = manifest(root).digest, cached_file_sha256(path)
    keep_times(path, lambda: change(path))
    assert cached_file_sha256(path) == file_sha256(path) != one
    assert manifest(root).digest != before


def test_what_was_read_is_kept_for_files_that_stay(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = manifest(root)

    def read_again(path: Path) -> str:
        raise AssertionError(path)

    monkeypatch.setattr("harness.spec.data.external_content.file_sha256", read_again)
    assert manifest(root) == before


def test_a_folder_is_looked_at_once_for_a_study_file_and_anew_when_that_is_loaded_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Path] = []

    def look(folder: Path) -> Manifest:
        looks.append(folder)
        return manifest(folder)

    monkeypatch.setattr("harness.spec.data.datasets.manifest", look)
    file = tmp_path / "first.py"
    file.write_text("from harness import ImageFolder\nDATA = [ImageFolder(name='zoo') for _ in range(3)]\n")
    before = run_file(file).DATA
    assert {data.content for data in before} == {manifest(root).digest}
    assert all(data.replace(split="validation").small_classes() for data in before)
    assert looks == [root]
    (root / "train" / "cat" / "0.png").unlink()
    assert {data.content for data in run_file(file).DATA} == {manifest(root).digest} != {before[0].content}
    assert looks == [root, root]


def test_a_damaged_entry_of_the_cache_is_no_answer(root: Path, tmp_path: Path) -> None:
    before = manifest(root)
    (entry,) = (tmp_path / "cache" / "harness" / "digests").glob("manifest-*.json")
    text = entry.read_bytes()
    for place in range(0, len(text), 7):
        entry.write_bytes(text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :])
        assert manifest(root) == before


def test_links_that_lead_back_end_and_links_out_of_the_folder_are_followed_once(root: Path, tmp_path: Path) -> None:
    plain = [path.relative_to(root).as_posix() for path in image_files(root)]
    (root / "train" / "cat" / "up").symlink_to(root / "train")
    (root / "train" / "dog" / "here").symlink_to(".")
    (root / "itself").symlink_to("itself")
    assert [path.relative_to(root).as_posix() for path in image_files(root)] == plain
    paint(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "elsewhere")
    for part in ("train", "val"):
        (root / part / "emu").symlink_to(tmp_path / "elsewhere")
    found = [path.relative_to(root).as_posix() for path in image_files(root)]
    assert found == sorted([*plain, "train/emu/a.png", "val/emu/a.png"])


def test_many_folders_that_link_to_each_other_are_gone_through_in_no_time(root: Path) -> None:
    names = [f"n{number}" for number in range(12)]
    for name in names:
        paint(root / name / "a.png")
        for other in names:
            (root / name / other).symlink_to(root / other)
    found = [path.relative_to(root).as_posix() for path in image_files(root)]
    assert {f"{name}/a.png" for name in names} | {"n0/n1/a.png", "n1/n0/a.png"} < set(found)
    assert len(found) < 12**3 + 14


def test_a_link_that_leads_nowhere_and_a_pipe_are_named(root: Path) -> None:
    (root / "train" / "cat" / "gone.png").symlink_to("nowhere.png")
    with pytest.raises(HarnessError, match=r"cannot read .*/train/cat/gone\.png: No such file"):
        manifest(root)
    (root / "train" / "cat" / "gone.png").unlink()
    os.mkfifo(root / "train" / "cat" / "pipe.png")
    with pytest.raises(HarnessError, match=r"pipe\.png is no file"):
        manifest(root)


def digests(name: str) -> tuple[str, str]:
    """Of a folder whose accuracies are measured on val/, and on validation images."""
    return ImageFolder(name=name).digest, ImageFolder(name=name, split="validation").digest


def test_a_folder_has_another_revision_where_its_numbers_changed_alone(root: Path) -> None:
    spec = ImageFolder(name="zoo")
    plain = {split: ImageFolder(name="zoo", split=split).current_revision() for split in ("test", "validation")}
    assert plain == {"test": 1, "validation": 1}
    (root / "train" / "cat" / "0.png").unlink()
    planned_manifest.cache_clear()  # as the next command
    uneven = spec.replace(name="zoo")
    assert uneven.uneven
    assert (uneven.current_revision(), uneven.replace(split="validation").current_revision()) == (1, 2)
    assert ImageFolder(name="zoo", content=uneven.content).digest == uneven.digest  # as an old record says it


@pytest.mark.parametrize(
    ("mode", "suffix", "deep"),
    [
        ("I;16", "png", True),
        ("I;16", "tif", True),
        ("I", "tif", True),
        ("F", "tiff", True),
        ("L", "png", False),
        ("P", "png", False),
        ("RGBA", "png", False),
        ("CMYK", "tif", False),
        ("1", "png", False),
    ],
)
def test_a_folder_knows_whether_pictures_are_deep(root: Path, mode: str, suffix: str, deep: bool) -> None:
    paint(root / "train" / "cat" / f"other.{suffix}", mode, 1)
    spec = ImageFolder(name="zoo")
    assert spec.deep is deep
    assert spec.current_revision() == (2 if deep else 1)


def test_a_picture_that_cannot_be_read_is_named_where_the_folder_is_planned_with(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "val" / "cat" / "0.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"cannot read .*/val/cat/0\.png: cannot identify image file"):
        ImageFolder(name="zoo")
    paint(root / "val" / "cat" / "0.png")
    ImageFolder(name="zoo")
    Image.new("RGB", (40, 40)).save(root / "val" / "cat" / "0.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(
        ValueError, match=r"cannot read .*/val/cat/0\.png: Image size \(1600 pixels\) exceeds limit"
    ) as told:
        ImageFolder(name="zoo")
    assert "\n" not in str(told.value.errors()[0]["msg"])  # type: ignore[attr-defined]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    ImageFolder(name="zoo")  # what was too large is looked at anew


def test_a_folder_without_train_is_refused(root: Path) -> None:
    (root / "train").rename(root / "training")
    with pytest.raises(ValueError, match=r"has no images in train/<class>/"):
        ImageFolder(name="zoo")


def test_classes_too_small_for_the_validation_split_are_said(root: Path) -> None:
    assert ImageFolder(name="zoo").small_classes() is None
    for number in range(94):
        paint(root / "train" / "dog" / f"more{number}.png")
    planned_manifest.cache_clear()  # as the next command
    told = ImageFolder(name="zoo", split="validation").small_classes()
    assert told == "zoo: the validation split may lack 1 of 2 classes, a tenth of which is no image: cat (6)"
