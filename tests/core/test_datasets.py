"""Data sets: what they hold, which images a part takes, and what is said when something is missing."""

from __future__ import annotations

import gzip
import pickle
import urllib.error
import urllib.request
import weakref
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from harness.core.data import datasets, published
from harness.core.data.datasets import FolderSet, ImageSet, Part, load
from harness.core.runtime.custom import load_function
from harness.spec import CustomData, Data, HarnessError, ImageFolder, Images, Shapes
from harness.spec.data.datasets import PUBLISHED, planned_manifest
from harness.spec.data.external_content import manifest

MINI = Images(name="fashion-mnist-mini")


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configured data, no caches, no network."""

    def no_network(*_args: object, **_kwargs: object) -> None:
        raise urllib.error.URLError("no way out")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HARNESS_PROJECT", str(tmp_path))
    for name in PUBLISHED:
        monkeypatch.delenv("HARNESS_DATA_" + name.upper().replace("-", "_"), raising=False)
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    for cached in (load, datasets._read_once, datasets._custom, published._fashion_mnist):
        cached.cache_clear()


def images_of(data: Data, part: Part) -> ImageSet:
    """A part of a data set that is held in memory."""
    found = load(data, part)
    assert isinstance(found, ImageSet)
    return found


def files_of(data: Data, part: Part) -> FolderSet:
    """A part of a data set that is read from files."""
    found = load(data, part)
    assert isinstance(found, FolderSet)
    return found


# Subsets and splits


def rows(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_mini_is_balanced_and_cached() -> None:
    train, test = images_of(MINI, "train"), images_of(MINI, "test")
    assert (train.images.shape, train.images.dtype) == ((10_000, 1, 28, 28), torch.uint8)
    assert (train.labels.shape, train.labels.dtype) == ((10_000,), torch.int64)
    assert torch.bincount(train.labels).tolist() == [1000] * 10
    assert torch.bincount(test.labels).tolist() == [500] * 10
    assert (len(test), train.num_classes, train.channels) == (5000, 10, 1)
    assert load(MINI, "train") is train
    assert torch.equal(images_of(MINI, "pretrain").images, train.images)


def test_subsets_are_balanced_and_nested() -> None:
    sets = {size: images_of(MINI.replace(train_images=size), "train") for size in (7, 500, 1003)}
    assert torch.bincount(sets[500].labels).tolist() == [50] * 10
    assert sorted(torch.bincount(sets[1003].labels).tolist()) == [100] * 7 + [101] * 3
    assert torch.bincount(sets[7].labels, minlength=10).max() == 1
    assert rows(sets[7].images) < rows(sets[500].images) < rows(sets[1003].images)


def test_all_training_images_are_the_largest_subset() -> None:
    whole = images_of(MINI.replace(train_images=10_000), "train")
    assert torch.equal(whole.images, images_of(MINI, "train").images)
    with pytest.raises(HarnessError, match="train_images 10001 is more than the 10000"):
        load(MINI.replace(train_images=10_001), "train")


def test_validation_is_a_balanced_tenth_that_is_not_trained_on() -> None:
    spec = MINI.replace(split="validation")
    train, held_out = images_of(spec, "train"), images_of(spec, "test")
    assert (len(train), len(held_out)) == (9000, 1000)
    assert torch.bincount(held_out.labels).tolist() == [100] * 10
    assert not rows(train.images) & rows(held_out.images)
    assert not rows(images_of(spec, "pretrain").images) & rows(held_out.images)
    assert rows(held_out.images) < rows(images_of(MINI, "train").images)
    few = images_of(spec.replace(train_images=50), "test")
    assert torch.equal(few.images, held_out.images), "the held-out tenth does not follow train_images"
    with pytest.raises(HarnessError, match="more than the 9000"):
        load(spec.replace(train_images=9001), "train")


def held_out(labels: torch.Tensor) -> list[int]:
    return torch.nonzero(datasets._held_out(labels))[:, 0].tolist()


def test_a_tenth_of_each_class_is_held_out() -> None:
    labels = torch.arange(4).repeat_interleave(torch.tensor([900, 60, 25, 15]))
    labels = labels[torch.randperm(1000, generator=torch.Generator().manual_seed(0))]
    kept = torch.bincount(labels[datasets._held_out(labels)]).tolist()
    assert kept in ([90, 6, 3, 1], [90, 6, 2, 2])  # 2.5 and 1.5 share the one that is left


@pytest.mark.parametrize(
    ("labels", "images"),
    [
        (torch.arange(75) % 5, [4, 13, 15, 29, 42, 60, 71]),
        (torch.arange(100) % 10, [4, 7, 8, 13, 15, 42, 60, 79, 81, 96]),
        (torch.cat([torch.full((7,), -1), torch.arange(40) // 20]), [7, 13, 29, 42]),
    ],
)
def test_of_classes_of_one_size_the_images_are_those_that_were_held_out_before_others_were_in_proportion(
    labels: torch.Tensor, images: list[int]
) -> None:
    assert held_out(labels) == images


def test_classes_too_small_to_give_an_image_are_named_and_a_single_image_is_kept_for_training() -> None:
    labels = torch.tensor([0] * 20 + [1] * 2 + [2])
    with pytest.warns(UserWarning, match=r"lacks 2 of 3 classes, a tenth of which is no image: ox \(2\), emu \(1\)"):
        found = datasets._held_out(labels, ("cat", "ox", "emu"))
    assert torch.bincount(labels[found]).tolist() == [2]
    with pytest.raises(HarnessError, match="one image in 10: of 0 labelled ones"):
        datasets._held_out(torch.arange(30))


def test_only_values_whose_validation_images_changed_have_another_revision() -> None:
    even, other = Images(name="cifar10", split="validation"), Images(name="cifar10")
    assert (even.current_revision(), other.current_revision()) == (1, 1)
    assert Shapes().current_revision() == 1
    assert Shapes(split="validation").current_revision() == 2


def test_turns_serve_unequal_classes_and_leave_unlabelled_images_to_the_end() -> None:
    labels = torch.tensor([-1, 0, 0, 0, 0, 1, 2, 2, -1, 0])
    order = datasets._turns(labels, torch.arange(10), "subset")
    assert sorted(order.tolist()) == list(range(10))
    kinds = labels[order].tolist()
    assert sorted(kinds[:3]) == [0, 1, 2]
    assert sorted(kinds[3:5]) == [0, 2]
    assert kinds[5:] == [0, 0, 0, -1, -1]


# Published sets


def test_stated_colours_are_those_of_the_images() -> None:
    images = images_of(MINI, "train").images.double() / 255
    assert abs(float(images.mean()) - published.COLOURS["fashion-mnist"][0][0]) < 0.005
    assert abs(float(images.std()) - published.COLOURS["fashion-mnist"][1][0]) < 0.005


def test_mini_is_the_first_of_each_class_of_the_original() -> None:
    if not published.DEBIAN.is_dir():
        pytest.skip("dataset-fashion-mnist is not installed")
    spec = Images(name="fashion-mnist")
    parts: tuple[tuple[Part, int], ...] = (("train", 1000), ("test", 500))
    for part, count in parts:
        original, mini = images_of(spec, part), images_of(MINI, part)
        assert len(original) == PUBLISHED["fashion-mnist"].train if part == "train" else 10_000
        for kind in range(10):
            expected = original.images[original.labels == kind][:count]
            assert torch.equal(mini.images[mini.labels == kind], expected)


def test_fashion_mnist_that_was_tampered_with_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in published.IDX_FILES:
        with gzip.open(tmp_path / f"{name}.gz", "wb", compresslevel=1) as file:
            file.write(bytes(16))
    monkeypatch.setenv("HARNESS_DATA_FASHION_MNIST", str(tmp_path))
    with pytest.raises(HarnessError, match="does not hold fashion-mnist as published"):
        load(Images(name="fashion-mnist"), "train")


def test_mini_that_was_tampered_with_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with np.load(published.MINI) as file:
        arrays = dict(file)
    arrays["train_images"][0, 14, 14] ^= 1
    np.savez(tmp_path / "mini.npz", **arrays)
    monkeypatch.setattr(published, "MINI", tmp_path / "mini.npz")
    published._mini.cache_clear()
    with pytest.raises(HarnessError, match="does not hold fashion-mnist-mini as published"):
        load(MINI, "train")
    published._mini.cache_clear()


def test_content_of_another_version_is_refused() -> None:
    with pytest.raises(HarnessError, match="not sha256:0"):
        load(MINI.replace(content="sha256:0"), "train")


def test_digests_of_archives_are_those_that_torchvision_checks() -> None:
    for name in ("cifar10", "cifar100", "stl10"):
        kind = getattr(torchvision.datasets, name.upper())
        assert PUBLISHED[name].digest == f"md5:{kind.tgz_md5}"


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10", "cifar100", "stl10"])
def test_a_missing_set_says_what_to_do(
    name: Literal["fashion-mnist", "cifar10", "cifar100", "stl10"],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(published, "DEBIAN", tmp_path / "none")
    with pytest.raises(HarnessError) as caught:
        load(Images(name=name), "train")
    message = str(caught.value)
    assert "\n" not in message
    assert "HARNESS_DATA_" + name.upper().replace("-", "_") in message
    assert f"{name} under [data] in harness.toml" in message
    assert ("apt install dataset-fashion-mnist" in message) == (name == "fashion-mnist")
    assert capfd.readouterr() == ("", "")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "nothing half-done stays behind"


def test_cifar10_by_way_of_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    images = generator.integers(0, 256, (60, 3072), dtype=np.uint8)
    names = [f"data_batch_{index}" for index in range(1, 6)] + ["test_batch"]
    for index, name in enumerate(names):
        part = slice(10 * index, 10 * index + 10)
        content = {"data": images[part], "labels": list(range(10))}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_: True)
    monkeypatch.setenv("HARNESS_DATA_CIFAR10", str(tmp_path))
    train, test = images_of(Images(name="cifar10"), "pretrain"), images_of(Images(name="cifar10"), "test")
    assert torch.equal(train.images, torch.from_numpy(images[:50]).view(50, 3, 32, 32))
    assert torch.equal(test.images, torch.from_numpy(images[50:]).view(10, 3, 32, 32))
    assert train.labels.tolist() == list(range(10)) * 5
    assert len(train.mean) == len(train.std) == 3


def test_stl10_pretrains_on_unlabelled_images_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 96, 96), dtype=np.uint8)
    columns_first = images.transpose(0, 1, 3, 2)
    for name, part in (("train", slice(0, 10)), ("test", slice(10, 15)), ("unlabeled", slice(15, 40))):
        columns_first[part].tofile(folder / f"{name}_X.bin")
        if name != "unlabeled":
            (np.arange(part.stop - part.start) % 10 + 1).astype(np.uint8).tofile(folder / f"{name}_y.bin")
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"))
    monkeypatch.setattr(torchvision.datasets.stl10, "check_integrity", lambda *_: True)
    monkeypatch.setattr(published, "UNLABELLED", {"stl10": 25})
    monkeypatch.setenv("HARNESS_DATA_STL10", str(tmp_path))
    spec = Images(name="stl10")
    assert images_of(spec, "train").labels.tolist() == list(range(10))
    assert torch.equal(images_of(spec, "test").images, torch.from_numpy(images[10:15]))
    pretrain = images_of(spec, "pretrain")
    assert pretrain.labels.tolist() == list(range(10)) + [-1] * 25
    assert torch.equal(pretrain.images[10:], torch.from_numpy(images[15:]))
    assert (load(spec.replace(train_images=20), "pretrain").labels < 0).sum() == 10
    assert len(load(spec.replace(train_images=20), "train")) == 10
    assert len(load(spec.replace(train_images=4), "pretrain")) == 4
    with pytest.raises(HarnessError, match="more than the 35"):
        load(spec.replace(train_images=36), "train")


def test_shapes() -> None:
    spec = Shapes(image_size=16, train=200, test=20)
    train = images_of(spec, "train")
    assert (train.images.shape, train.num_classes) == ((200, 3, 16, 16), 6)
    assert len(load(spec, "test")) == 20
    assert len(load(spec.replace(split="validation"), "test")) == 20


# Folders of images


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "pets"
    for part, count in (("train", 6), ("val", 2)):
        for number, kind in enumerate(("cat", "dog")):
            place = root / part / kind
            place.mkdir(parents=True)
            for index in range(count):
                suffix = "png" if index % 2 else "jpg"
                Image.new("RGB", (20 + index, 30), (index * 20, number * 99, 7)).save(place / f"{index}.{suffix}")
    monkeypatch.setenv("HARNESS_DATA_PETS", str(root))
    return root


def test_image_folder(folder: Path) -> None:
    spec = ImageFolder(name="pets")
    assert (spec.content, spec.current_revision()) == (manifest(folder).digest, 1)
    train, test = files_of(spec, "train"), files_of(spec, "test")
    assert train.classes == ("cat", "dog")
    assert (len(train), len(test), train.num_classes, train.channels) == (12, 4, 2, 3)
    for found in (train, test):
        expected = [train.classes.index(path.parent.name) for path in found.paths]
        assert found.labels.tolist() == expected
    assert train.paths[0] == folder / "train" / "cat" / "0.jpg"
    assert {path.relative_to(folder).parts[0] for path in test.paths} == {"val"}


def test_image_folder_subset_and_validation(folder: Path) -> None:
    spec = ImageFolder(name="pets")
    few = files_of(spec.replace(train_images=4), "train")
    assert few.labels.tolist() == [0, 0, 1, 1]
    assert set(few.paths) < set(files_of(spec.replace(train_images=6), "train").paths)
    with pytest.warns(UserWarning, match=r"lacks 1 of 2 classes, a tenth of which is no image: dog \(6\)"):
        held_out = files_of(spec.replace(split="validation"), "test")
    assert [path.name for path in held_out.paths] == ["4.jpg"]
    with pytest.warns(UserWarning, match="lacks 1 of 2 classes"):
        assert held_out.paths[0] not in files_of(spec.replace(split="validation"), "train").paths


def test_image_folder_whose_files_changed_is_refused(folder: Path) -> None:
    spec = ImageFolder(name="pets")
    Image.new("RGB", (9, 9)).save(folder / "train" / "cat" / "new.png")
    with pytest.raises(HarnessError, match="is not the pets that this run was planned with"):
        load(spec, "train")


def test_torchvision_without_its_jpeg_decoder_is_said_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ImageFolder(name="pets", decoder="torchvision")
    assert files_of(spec, "train").decoder == "torchvision"
    assert spec.digest != ImageFolder(name="pets").digest == ImageFolder(name="pets", decoder="pil").digest
    load.cache_clear()
    monkeypatch.setattr(torch.ops, "image", object())
    with pytest.raises(HarnessError, match=r"this torchvision decodes no JPEG.*decoder='pil'"):
        load(spec, "train")
    load(ImageFolder(name="pets"), "train")


def test_image_folder_that_is_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"set HARNESS_DATA_MY_SET, or my-set under \[data\] in harness.toml"):
        load(ImageFolder(name="my-set"), "train")
    monkeypatch.setenv("HARNESS_DATA_MY_SET", str(tmp_path / "gone"))
    with pytest.raises(HarnessError, match="which is no folder"):
        load(ImageFolder(name="my-set", content="0"), "train")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("train/loose.png", "loose.png lies in no class folder"),
        ("val/bird/0.png", "train lacks bird, which val/ has"),
        ("train/bird/0.png", "val lacks bird, which train/ has"),
    ],
)
def test_image_folder_of_another_form(folder: Path, place: str, message: str) -> None:
    before = ImageFolder(name="pets")
    (folder / place).parent.mkdir(exist_ok=True)
    Image.new("RGB", (9, 9)).save(folder / place)
    planned_manifest.cache_clear()  # as the next command
    with pytest.raises(ValueError, match=message):
        ImageFolder(name="pets")
    with pytest.raises(HarnessError, match=message):
        load(before.replace(content=manifest(folder).digest), "train")


def test_classes_that_are_named_are_used_in_their_order_and_val_may_lack_some(folder: Path) -> None:
    for place in ("val/bird/0.png", "train/fish/0.png", "train/eel/0.png"):
        (folder / place).parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 9)).save(folder / place)
    spec = ImageFolder(name="pets", classes=("fish", "cat"))
    train, test = files_of(spec, "train"), files_of(spec, "test")
    assert train.classes == test.classes == ("fish", "cat")
    assert [(path.parent.name, label) for path, label in zip(train.paths, train.labels.tolist(), strict=True)] == [
        ("cat", 1)
    ] * 6 + [("fish", 0)]
    assert {path.parent.name for path in test.paths} == {"cat"}
    with pytest.raises(ValueError, match="train lacks bird, lynx of classes; it has cat, dog, eel, fish"):
        ImageFolder(name="pets", classes=("cat", "lynx", "bird"))


@pytest.mark.filterwarnings("ignore:the validation split lacks")
def test_a_run_planned_when_the_images_had_another_meaning_is_not_computed(folder: Path) -> None:
    (folder / "train" / "dog" / "0.jpg").unlink()
    spec = ImageFolder(name="pets", split="validation")
    assert load(spec.replace(train_images=3), "train").labels.tolist() == [0, 0, 1]
    with pytest.raises(HarnessError, match="an earlier version planned this run"):
        load(spec.replace(uneven=False), "train")
    load(spec.replace(uneven=False, split="test"), "train")


# A user's own


OWN = """
import numpy as np

def stripes(split, count=10):
    images = np.zeros((count, 8, 6, 2), np.uint8)
    images[:, ::2] = 255
    return images, np.arange(count) % 3

def floats(split):
    return np.zeros((4, 8, 8, 2), np.float32), np.arange(4)

def channels_first(split):
    return np.zeros((4, 3, 8, 8), np.uint8), np.arange(4)

def uneven(split):
    return np.zeros((4, 8, 8, 2), np.uint8), np.arange(3)

def unknown_test_label(split):
    return np.zeros((4, 8, 8, 2), np.uint8), np.arange(4) + (split == "test")

def alone(split):
    return np.zeros((4, 8, 8, 2), np.uint8)

constant = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A module of the user's; each test has its own name for it, as modules stay imported."""
    name = f"own_{request.node.name.partition('[')[0]}"
    path = tmp_path / f"{name}.py"
    path.write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    return path


def test_custom_data(own: Path) -> None:
    spec = CustomData(function=f"{own.stem}:stripes", channels=2, params={"count": 12})
    train = images_of(spec, "train")
    assert (train.images.shape, train.images.dtype) == ((12, 2, 8, 6), torch.uint8)
    assert train.images[0, 0, :, 0].tolist() == [255, 0] * 4
    assert (train.num_classes, train.labels.tolist()) == (3, [0, 1, 2] * 4)
    assert train.mean == pytest.approx((0.5, 0.5))
    assert train.std == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("floats", r"uint8 \[N, H, W, 2\], not float32 \[4, 8, 8, 2\]"),
        ("channels_first", r"uint8 \[N, H, W, 2\], not uint8 \[4, 3, 8, 8\]"),
        ("uneven", r"labels should be int64 \[4\] from 0, not int64 \[3\]"),
        ("alone", r"should return \(images, labels\)"),
        ("unknown_test_label", "a test label is 4, but the training labels end at 3"),
        ("constant", "has no function 'constant'"),
        ("missing", "has no function 'missing'"),
    ],
)
def test_custom_data_of_another_form(own: Path, name: str, message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        load(CustomData(function=f"{own.stem}:{name}", channels=2), "test")


def test_params_that_custom_data_does_not_take_are_one_line(own: Path) -> None:
    with pytest.raises(HarnessError, match="stripes: got an unexpected keyword argument 'amount'; given 1 arguments"):
        load(CustomData(function=f"{own.stem}:stripes", channels=2, params={"amount": 1}), "train")


def test_custom_function_whose_source_changed_is_refused(own: Path) -> None:
    spec = CustomData(function=f"{own.stem}:stripes", channels=2)
    assert load_function(spec.function, spec.source)("train")[0].shape == (10, 8, 6, 2)
    own.write_text(OWN + "\n# changed\n")
    load_function.cache_clear()  # as in another process: this one still holds the function it was planned with
    with pytest.raises(HarnessError, match="changed since this run was planned; plan again"):
        load_function(spec.function, spec.source)


def test_runs_of_a_process_share_one_copy_of_a_set_on_a_device() -> None:
    """It goes with the last of them; other parts, sets and devices have their own."""
    data, there = Shapes(image_size=32, train_images=8), torch.device("meta")
    first, second = (load(data, "train").to(there) for _ in range(2))
    assert first is second
    assert isinstance(first, ImageSet)
    assert first.images.device == there
    others = [load(data, "test"), load(data.replace(train_images=7), "train")]
    copies = [first, load(data, "train").to(torch.device("cpu")), *(other.to(there) for other in others)]
    assert len(set(copies)) == 4
    copies.clear()
    last = weakref.ref(first)
    del first
    assert last() is second
    del second
    assert last() is None
