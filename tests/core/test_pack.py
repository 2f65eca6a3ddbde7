"""Packs: the same pixels, parts and keys as the folder they were made of, whole or not at all."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest
import torch
from PIL import Image

from harness.core.data import datasets, packing
from harness.core.data.batches import Batch, as_images, training_batches
from harness.core.data.batches import test_batches as batches_of
from harness.core.data.datasets import IMAGENET_COLOURS, Facts, FolderSet, facts_of, load
from harness.core.data.packing import pack
from harness.core.data.pictures import as_tested
from harness.spec import Augment, HarnessError, ImageFolder
from harness.spec.data.datasets import Crops, Decoder, planned_manifest
from harness.spec.data.packs import read_header

CPU = torch.device("cpu")


def photograph(path: Path, height: int, width: int, seed: int) -> None:
    """A picture with slopes and texture; JPEGs of several kinds and a PNG by their endings."""
    draw = np.random.default_rng(seed)
    rough = Image.fromarray(draw.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8))
    image = rough.resize((width, height), Image.Resampling.BICUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    match seed % 4:
        case 0:
            image.convert("L").save(path, quality=90)
        case 1 if path.suffix == ".jpg":
            image.convert("CMYK").save(path)
        case _:
            image.save(path)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Lay the data set `pets` at a path, as the next command sees it; first at a folder of pictures of many sizes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number, (height, width) in enumerate([(150, 200), (260, 170), (70, 90), (16, 400), (3, 5), (401, 333)]):
        for name in ("cat", "dog"):
            ending = "png" if number == 2 else "jpg"
            photograph(tmp_path / "pets" / "train" / name / f"{number}.{ending}", height, width, number)
            photograph(tmp_path / "pets" / "val" / name / f"{number}.jpg", width, height, number + 7)

    def lay(path: Path) -> None:
        monkeypatch.setenv("HARNESS_DATA_PETS", str(path))
        for cached in (planned_manifest, load, datasets._read_once):
            cached.cache_clear()

    lay(tmp_path / "pets")
    return lay


def packed(place: Callable[[Path], None], file: Path, side: int | None = None, decoder: Decoder = "pil") -> Path:
    pack("pets", file, side=side, decoder=decoder, threads=2)
    place(file)
    return file


def trained(spec: ImageFolder, size: int = 24, augment: Augment | None = None) -> torch.Tensor:
    source = load(spec, "pretrain")
    batches = training_batches(
        source, augment or Augment(crop_scale=(0.2, 1.0)), image_size=size, batch_size=4, seed=3, first_step=0,
        steps=9, device=CPU,
    )  # fmt: skip
    return torch.cat([batch.images for batch in batches])


def measured(spec: ImageFolder, size: int = 24, crop: float = 0.75) -> torch.Tensor:
    source = load(spec, "test")
    batches = batches_of(source, image_size=size, crop=crop, batch_size=5, device=CPU, workers=0)
    return torch.cat([images for images, _ in batches])


@pytest.mark.filterwarnings("ignore:the validation split lacks")
@pytest.mark.parametrize("decoder", ["pil", "torchvision"])
def test_a_pack_of_whole_pictures_is_its_folder_to_the_bit(
    decoder: Decoder, place: Callable[[Path], None], tmp_path: Path
) -> None:
    """Also where PIL decodes JPEGs at a half, a quarter or an eighth: at 10 px most are."""
    spec = ImageFolder(name="pets", decoder=decoder)
    timm = Augment(rand_augment="rand-m5")
    before = [*(trained(spec, size) for size in (10, 24, 100)), trained(spec, augment=timm), measured(spec)]
    sets = [load(spec, part) for part in ("pretrain", "train", "test")]
    held_out = [load(spec.replace(split="validation"), part) for part in ("train", "test")]
    facts = facts_of(spec)
    packed(place, tmp_path / "pets.pack", decoder=decoder)
    again = ImageFolder(name="pets", decoder=decoder)
    assert (again, again.digest) == (spec, spec.digest)
    after = [*(trained(again, size) for size in (10, 24, 100)), trained(again, augment=timm), measured(again)]
    for ours, theirs in zip(after, before, strict=True):
        assert torch.equal(ours, theirs)
    sets_again = [load(again, part) for part in ("pretrain", "train", "test")]
    sets_again += [load(again.replace(split="validation"), part) for part in ("train", "test")]
    for found, expected in zip(sets_again, [*sets, *held_out], strict=True):
        assert isinstance(found, FolderSet)
        assert isinstance(expected, FolderSet)
        names = [path.relative_to(tmp_path / "pets.pack") for path in found.paths]
        assert names == [path.relative_to(tmp_path / "pets") for path in expected.paths]
        assert torch.equal(found.labels, expected.labels)
    assert facts_of(again) == facts
    assert again.known_classes == 2
    assert again.fault(tested=True) is None


@pytest.mark.parametrize("decoder", ["pil", "torchvision"])
def test_a_pack_of_squares_is_the_folder_of_its_squares(
    decoder: Decoder, place: Callable[[Path], None], tmp_path: Path
) -> None:
    """The shorter side resized to the side of the squares, of which testing at the same size takes the middle."""
    spec = ImageFolder(name="pets", decoder=decoder)
    tested = measured(spec, 24, 0.75)  # resizes the shorter side to 32
    packed(place, tmp_path / "pets.pack", side=32, decoder=decoder)
    again = ImageFolder(name="pets", decoder=decoder)
    assert again.content == f"{spec.content} at 32 px"
    assert again.digest != spec.digest
    assert torch.equal(measured(again, 24, 0.75), tested)
    # Written as PNG files, the squares give the same training images.
    squares = as_images(load(spec.replace(content=again.content), "train"), image_size=32, crop=1.0, workers=0)
    source = load(again, "train")
    assert isinstance(source, FolderSet)
    for image, path in zip(squares.images, source.paths, strict=True):
        file = tmp_path / "squares" / path.relative_to(tmp_path / "pets.pack").with_suffix(".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file)
    seen = trained(again)
    place(tmp_path / "squares")
    assert torch.equal(trained(ImageFolder(name="pets", decoder=decoder)), seen)


def test_prediction_prepares_a_picture_as_the_squares_were(place: Callable[[Path], None], tmp_path: Path) -> None:
    packed(place, tmp_path / "pets.pack", side=40)
    spec = ImageFolder(name="pets")
    source = load(spec, "test")
    assert isinstance(source, FolderSet)
    for number, path in enumerate(source.paths):
        file = tmp_path / "pets" / path.relative_to(tmp_path / "pets.pack")
        seen = as_tested(file, spec, Facts(3, source.mean, source.std), image_size=24, crop=0.75)
        assert torch.equal(seen[0], measured(spec)[number])


def test_a_pack_is_not_read_by_another_decoder(place: Callable[[Path], None], tmp_path: Path) -> None:
    spec = ImageFolder(name="pets", decoder="torchvision")
    packed(place, tmp_path / "pets.pack")
    told = r"pets.pack was packed with decoder 'pil', and decoder='torchvision' gives other pixels: say"
    with pytest.raises(ValueError, match=told):
        ImageFolder(name="pets", decoder="torchvision")
    assert told.split(":")[0] in str(spec.fault(tested=False))
    with pytest.raises(HarnessError, match=told):
        load(spec, "train")


@pytest.mark.parametrize("damage", ["header", "pixels", "cut off", "no pack"])
def test_a_damaged_pack_is_refused_in_one_line(damage: str, place: Callable[[Path], None], tmp_path: Path) -> None:
    file = packed(place, tmp_path / "pets.pack")
    content = bytearray(file.read_bytes())
    match damage:
        case "header":
            content[-100] ^= 1
        case "pixels":
            content[5000] ^= 1
        case "cut off":
            del content[-9:]
        case "no pack":
            content[:4] = b"what"
    file.write_bytes(content)
    place(file)
    with pytest.raises(ValueError, match=r"pets.pack is (damaged|neither a folder nor a pack)[^\n]+") as caught:
        ImageFolder(name="pets")
    assert "harness pack" in str(caught.value) or "pack its folder again" in str(caught.value)


def test_a_changed_pack_is_not_what_a_run_was_planned_with(place: Callable[[Path], None], tmp_path: Path) -> None:
    spec = ImageFolder(name="pets")
    packed(place, tmp_path / "pets.pack", side=32)
    with pytest.raises(HarnessError, match="is not the pets that this run was planned with"):
        load(spec, "train")


def test_nothing_is_left_of_a_pack_that_could_not_be_written(
    place: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del place
    there = sorted(path.name for path in tmp_path.iterdir())

    def full(self: object, held: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(packing._Writer, "picture", full)
        with pytest.raises(HarnessError, match=r"cannot write .*pets.pack: No space left on device; nothing is left"):
            pack("pets", tmp_path / "pets.pack", side=None, decoder="pil", threads=1)

    def interrupted(done: int, number: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack("pets", tmp_path / "pets.pack", side=None, decoder="pil", threads=1, advance=interrupted)
    damaged = tmp_path / "pets" / "train" / "cat" / "0.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-300])
    with pytest.raises(HarnessError, match=rf"cannot read {damaged} as a picture"):
        pack("pets", tmp_path / "pets.pack", side=8, decoder="torchvision", threads=2)
    damaged.write_bytes(b"no picture")
    with pytest.raises(HarnessError, match=rf"cannot read {damaged}: "):
        pack("pets", tmp_path / "pets.pack", side=8, decoder="pil", threads=2)
    assert sorted({path.name for path in tmp_path.iterdir()} - {"cache"}) == sorted({*there} - {"cache"})


def test_a_folder_that_changes_while_it_is_packed_is_refused(place: Callable[[Path], None], tmp_path: Path) -> None:
    del place

    def more(done: int, number: int) -> None:
        photograph(tmp_path / "pets" / "train" / "cat" / "new.jpg", 20, 20, 2)

    with pytest.raises(HarnessError, match="changed while it was packed"):
        pack("pets", tmp_path / "pets.pack", side=None, decoder="pil", threads=1, advance=more)


def test_one_process_writes_a_pack(place: Callable[[Path], None], tmp_path: Path) -> None:
    del place
    with (
        packing._locked(tmp_path / ".pets.pack.part"),
        pytest.raises(HarnessError, match=r"another process is writing .*pets.pack.part"),
    ):
        pack("pets", tmp_path / "pets.pack", side=None, decoder="pil", threads=1)
    assert (tmp_path / ".pets.pack.part").exists()  # the other's
    (tmp_path / ".pets.pack.part").write_bytes(b"what a killed process left")
    assert pack("pets", tmp_path / "pets.pack", side=8, decoder="pil", threads=1).images == 24
    assert read_header(tmp_path / "pets.pack").side == 8


@pytest.mark.parametrize(
    ("name", "file", "told"),
    [
        ("cats", "a.pack", "data set cats is not here"),
        ("pets", "pets", "is there already"),
        ("pets", "none/a.pack", "there is no folder"),
    ],
)
def test_what_cannot_be_packed_is_told_in_one_line(
    name: str, file: str, told: str, place: Callable[[Path], None], tmp_path: Path
) -> None:
    del place
    with pytest.raises(HarnessError, match=told):
        pack(name, tmp_path / file, side=None, decoder="pil", threads=1)


def test_a_pack_of_a_pack_and_one_larger_than_the_disk_are_refused(
    place: Callable[[Path], None], tmp_path: Path
) -> None:
    with pytest.raises(
        HarnessError, match=r"24 pictures of 100000000 px take 720000000.0 GB, and .* has [\d.]+ GB free"
    ):
        packing._refuse_too_large(tmp_path / "a.pack", 24, 10**8)
    packed(place, tmp_path / "pets.pack")
    with pytest.raises(HarnessError, match="which is no folder: packs are made of folders"):
        pack("pets", tmp_path / "b.pack", side=None, decoder="pil", threads=1)


@pytest.mark.parametrize("decoder", ["pil", "torchvision"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_squares_that_are_cropped_in_batch_are_nearly_those_of_the_loader(
    interpolation: Literal["bilinear", "bicubic"], decoder: Decoder, place: Callable[[Path], None], tmp_path: Path
) -> None:  # fmt: skip
    packed(place, tmp_path / "pets.pack", side=40, decoder=decoder)
    augment = Augment(crop_scale=(0.3, 1.0), interpolation=interpolation)

    def batches(crops: Crops, first_step: int = 0, rows: slice | None = None) -> list[Batch]:
        source = load(ImageFolder(name="pets", decoder=decoder, crops=crops), "train")
        return list(
            training_batches(
                source, augment, image_size=24, batch_size=5, seed=1, first_step=first_step, steps=7, device=CPU,
                rows=rows,
            )
        )  # fmt: skip

    alone, together = batches("alone"), batches("batch")
    spread = torch.tensor(IMAGENET_COLOURS[1])[:, None, None]
    for ours, theirs in zip(together, alone, strict=True):
        assert ours.step == theirs.step
        assert torch.equal(ours.labels, theirs.labels)
        assert torch.equal(ours.positions, theirs.positions)
        least = 1.001 if interpolation == "bilinear" else 2.001  # overshoots are cut between the passes too, or not
        assert float(((ours.images - theirs.images) * spread * 255).abs().max()) < least
    resumed, few = batches("batch", 4), batches("batch", 0, slice(2, 4))
    for ours, theirs in zip([*resumed, *few], [*together[4:], *together], strict=True):
        rows = slice(None) if len(ours.images) == 5 else slice(2, 4)
        assert torch.equal(ours.images, theirs.images[rows])
        assert torch.equal(ours.labels, theirs.labels[rows])


def test_crops_in_batch_are_in_the_key_and_take_squares(place: Callable[[Path], None], tmp_path: Path) -> None:
    """Other augmentations than crops and flips go through the loader: the same pixels under both keys."""
    for _ in ("folder", "pack of whole pictures"):
        with pytest.raises(ValueError, match="crops='batch' needs squares of one size"):
            ImageFolder(name="pets", crops="batch")
        with pytest.raises(HarnessError, match="crops='batch' needs squares of one size"):
            load(ImageFolder(name="pets").replace(crops="batch"), "train")
        (tmp_path / "pets.pack").unlink(missing_ok=True)
        place(tmp_path / "pets")
        packed(place, tmp_path / "pets.pack")
    place(tmp_path / "pets")
    packed(place, tmp_path / "squares.pack", side=40)
    alone, together = (ImageFolder(name="pets", crops=crops) for crops in get_args(Crops))
    assert ImageFolder(name="pets").digest == alone.digest != together.digest
    erased = Augment(crop_scale=(0.2, 1.0), erasing=1.0)
    assert torch.equal(trained(together, augment=erased), trained(alone, augment=erased))
    assert not torch.equal(trained(together), trained(alone))


def test_a_pack_that_was_exchanged_is_read_anew_in_the_same_process(
    place: Callable[[Path], None], tmp_path: Path
) -> None:
    seen = []
    for side in (32, 40):
        place(tmp_path / "pets")
        (tmp_path / "pets.pack").unlink(missing_ok=True)
        packed(place, tmp_path / "pets.pack", side=side)
        source = load(ImageFolder(name="pets"), "train")
        assert isinstance(source, FolderSet)
        assert source.pack is not None
        seen.append(source.pack.side)
    assert seen == [32, 40]


def test_loader_workers_are_handed_the_place_of_a_pack_not_its_pixels(
    place: Callable[[Path], None], tmp_path: Path
) -> None:
    packed(place, tmp_path / "pets.pack", side=64)
    source = load(ImageFolder(name="pets"), "train")
    assert isinstance(source, FolderSet)
    assert source.pack is not None
    written = pickle.dumps(source)
    assert len(written) < 10_000 < 12 * 64 * 64 * 3
    again = pickle.loads(written)
    assert torch.equal(again.pack.pixels(source.paths[3]), source.pack.pixels(source.paths[3]))
