"""Pictures of every kind, as training, testing and prediction see them: the same, by rules worked out by hand."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data.dataset import ImageDataset
from torchvision.datasets.folder import default_loader

from harness.core.data.batches import test_batches as batches_of
from harness.core.data.batches import training_batches
from harness.core.data.datasets import Facts, FolderSet
from harness.core.data.pictures import as_tested, prepared
from harness.spec import Augment, CocoFolder, HarnessError, ImageFolder, MaskFolder
from harness.spec.data.datasets import Decoder

SIDE = 16
RAMP = np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE)
COLOURS = np.stack([RAMP, RAMP.T, 255 - RAMP], axis=-1)
PLAIN = Augment(crop_scale=(1.0, 1.0), flip=0.0)
WHITE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def folder_of(*paths: Path, decoder: Decoder = "pil") -> FolderSet:
    return FolderSet(paths, torch.zeros(len(paths), dtype=torch.int64), ("only",), *WHITE, decoder)


def trained(
    path: Path, augment: Augment = PLAIN, decoder: Decoder = "pil", size: int = SIDE, step: int = 0
) -> NDArray[np.float32]:
    """A file as a training sees it, [3, S, S] from 0 to 1."""
    cpu = torch.device("cpu")
    settings = {"image_size": size, "batch_size": 1, "seed": 0, "first_step": step, "steps": step + 1, "device": cpu}
    (batch,) = training_batches(folder_of(path, decoder=decoder), augment, **settings)  # type: ignore[arg-type]
    return batch.images[0].numpy()


def measured(path: Path, decoder: Decoder = "pil", size: int = SIDE, crop: float = 1.0) -> NDArray[np.float32]:
    folder = folder_of(path, decoder=decoder)
    (batch,) = batches_of(folder, image_size=size, crop=crop, batch_size=1, device=torch.device("cpu"), workers=0)
    return batch[0][0].numpy()


def predicted(path: Path, decoder: Decoder = "pil", size: int = SIDE, crop: float = 1.0) -> NDArray[np.float32]:
    data = ImageFolder.model_construct(name="any", decoder=decoder)
    return as_tested(path, data, Facts(3, *WHITE), image_size=size, crop=crop)[0].numpy()


def saved(folder: Path, name: str, image: Image.Image, **options: Any) -> Path:
    image.save(folder / name, **options)
    return folder / name


def grey(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(values[..., None], 3, 2)


def palette() -> tuple[Image.Image, NDArray[np.uint8]]:
    image = Image.fromarray(RAMP // 16, mode="P")
    colours = np.arange(48, dtype=np.uint8).reshape(16, 3) * 5
    image.putpalette(colours.tobytes())
    return image, colours[RAMP // 16]


def made(kind: str, folder: Path) -> tuple[Path, NDArray[np.uint8]]:
    """A file and its colours, uint8 [S, S, 3]."""
    exact = RAMP.astype(np.float32) / 255
    match kind:
        case "rgb":
            return saved(folder, "a.png", Image.fromarray(COLOURS)), COLOURS
        case "grey":
            return saved(folder, "a.png", Image.fromarray(RAMP)), grey(RAMP)
        case "two colours":
            return saved(folder, "a.png", Image.fromarray(RAMP > 99)), grey(np.uint8(255) * (RAMP > 99))
        case "16 bits":  # 255 is 0xff of 65535 = 0xffff; what lies between is cut to its upper byte
            values = RAMP.astype(np.uint16) * 256 + 200
            return saved(folder, "a.png", Image.fromarray(values)), grey(RAMP)
        case "16 bits, TIFF":
            return saved(folder, "a.tif", Image.fromarray(RAMP.astype(np.uint16) * 257)), grey(RAMP)
        case "dark 16 bits":  # all below 256 of 65535 is black, not a picture of 8 bits
            return saved(folder, "a.png", Image.fromarray(RAMP.astype(np.uint16))), grey(RAMP * np.uint8(0))
        case "16 bits in 32":
            return saved(folder, "a.tif", Image.fromarray(RAMP.astype(np.int32) * 257)), grey(RAMP)
        case "floats":
            return saved(folder, "a.tif", Image.fromarray(exact)), grey(RAMP)
        case "alpha":
            return saved(folder, "a.png", Image.fromarray(np.dstack([COLOURS, RAMP]))), COLOURS
        case "grey and alpha":
            return saved(folder, "a.png", Image.fromarray(np.dstack([RAMP, RAMP.T]), mode="LA")), grey(RAMP)
        case "palette":
            image, colours = palette()
            return saved(folder, "a.png", image), colours
        case "transparent palette":
            image, colours = palette()
            return saved(folder, "a.png", image, transparency=bytes(range(16))), colours
        case "cmyk":
            ink = np.dstack([255 - COLOURS, np.zeros_like(RAMP)])
            return saved(folder, "a.tif", Image.fromarray(ink, mode="CMYK")), COLOURS
        case "animation":
            frames = [Image.fromarray(255 - COLOURS), Image.fromarray(COLOURS.T.copy().T)]
            return saved(folder, "a.png", Image.fromarray(COLOURS), save_all=True, append_images=frames), COLOURS
        case "pages":
            pages = [Image.fromarray(255 - COLOURS)]
            return saved(folder, "a.tif", Image.fromarray(COLOURS), save_all=True, append_images=pages), COLOURS
        case "turned":
            exif = Image.Exif()
            exif[0x0112] = 6  # to be shown turned by 90 degrees
            return saved(folder, "a.png", Image.fromarray(COLOURS), exif=exif), COLOURS
        case "turned photograph":
            exif = Image.Exif()
            exif[0x0112] = 6
            path = saved(folder, "a.jpg", Image.fromarray(COLOURS), exif=exif)
            with Image.open(path) as file:
                return path, np.asarray(file)
    raise AssertionError(kind)


KINDS = [
    "rgb", "grey", "two colours", "16 bits", "16 bits, TIFF", "dark 16 bits", "16 bits in 32", "floats", "alpha",
    "grey and alpha", "palette", "transparent palette", "cmyk", "animation", "pages", "turned",
    "turned photograph",
]  # fmt: skip


@pytest.mark.parametrize("decoder", ["pil", "torchvision"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_picture_everywhere(kind: str, decoder: Decoder, tmp_path: Path) -> None:
    path, colours = made(kind, tmp_path)
    expected = colours.transpose(2, 0, 1) / np.float32(255)
    for seen in (
        trained(path, decoder=decoder),
        trained(path, PLAIN.replace(erasing=1e-9), decoder),
        measured(path, decoder),
        predicted(path, decoder),
    ):
        np.testing.assert_allclose(seen, expected, atol=1e-6)


def photograph(folder: Path, height: int, width: int, mode: str = "RGB") -> Path:
    """A JPEG with slopes and texture; never a .jpg by name, as the first bytes decide."""
    draw = np.random.default_rng(height * width)
    rough = Image.fromarray(draw.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
    smooth = np.asarray(rough.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    pixels = (smooth + draw.integers(-20, 21, smooth.shape)).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(folder / "a.png", "JPEG", quality=90)
    return folder / "a.png"


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_torchvision_gives_the_crops_and_flips_of_pil_within_one_of_255(
    interpolation: Literal["bilinear", "bicubic"], mode: str, tmp_path: Path
) -> None:
    path = photograph(tmp_path, 150, 200, mode=mode)
    augment = Augment(crop_scale=(0.3, 1.0), interpolation=interpolation)
    for step in range(8):  # PIL decodes less than the whole only where a crop is four times as wide as needed
        theirs, ours = (trained(path, augment, decoder, size=64, step=step) for decoder in ("pil", "torchvision"))
        assert np.abs(ours - theirs).max() * 255 < 1.001
    assert np.abs(measured(path, "torchvision", 64, 0.875) - measured(path, "pil", 64, 0.875)).max() * 255 < 1.001


def test_prediction_is_prepared_as_testing_by_either_decoder(tmp_path: Path) -> None:
    path = photograph(tmp_path, 90, 70)
    for decoder in ("pil", "torchvision"):
        assert (measured(path, decoder, 48, 0.875) == predicted(path, decoder, 48, 0.875)).all()


def test_a_jpeg_that_torchvision_refuses_is_not_read_by_pil(tmp_path: Path) -> None:
    path = photograph(tmp_path, 64, 64)
    path.write_bytes(path.read_bytes()[:-400])
    for look in (trained, measured, predicted):
        with pytest.raises(HarnessError, match=rf"^cannot read {path} as a picture: [^\n/]+ \(decode_jpeg\)$"):
            look(path, decoder="torchvision")
    with pytest.raises(HarnessError, match=rf"^cannot read {tmp_path / 'none.png'} as a picture: No such file"):
        trained(tmp_path / "none.png", decoder="torchvision")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "16" not in kind and kind != "floats"])
def test_what_torchvision_and_timm_read_alike_is_read_as_they_do(kind: str, tmp_path: Path) -> None:
    """In particular neither turns a picture as its EXIF orientation says."""
    path, _ = made(kind, tmp_path)
    with Image.open(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's, of transparent palettes
        ours = np.asarray(prepared(file))
        assert (ours == np.asarray(default_loader(path))).all()
        (tmp_path / "only").mkdir()
        path.rename(tmp_path / "only" / "a.png")  # which no decoder minds
        theirs = ImageDataset(str(tmp_path), input_img_mode="RGB", class_map="", reader="")[0][0]
        assert (ours == np.asarray(theirs)).all()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.array([[0.0, 255.0]], np.float32), "its values should be 0 to 1, not 0 to 255"),
        (np.array([[0.0, np.nan]], np.float32), "its values should be 0 to 1, not nan to nan"),
        (np.array([[-1, 5]], np.int32), "its values should be 0 to 65535, not -1 to 5"),
        (np.array([[0, 70_000]], np.int32), "its values should be 0 to 65535, not 0 to 70000"),
    ],
)
def test_values_of_another_range_are_refused_with_the_file(
    values: NDArray[np.generic], told: str, tmp_path: Path
) -> None:
    path = saved(tmp_path, "a.tif", Image.fromarray(values))
    for look in (trained, measured, predicted):
        with pytest.raises(HarnessError, match=rf"cannot read {path} as a picture: {told}$"):
            look(path)
    with pytest.raises(HarnessError, match=f"cannot read the picture: {told}"):
        as_tested(
            Image.fromarray(values), ImageFolder.model_construct(name="any"), Facts(3, *WHITE), image_size=8, crop=1.0
        )


@pytest.mark.parametrize(
    "data", [MaskFolder.model_construct(name="any", classes=2), CocoFolder.model_construct(name="any")]
)
def test_pictures_of_a_folder_with_maps_or_boxes_are_prepared_as_its_test_images(
    data: MaskFolder | CocoFolder, tmp_path: Path
) -> None:
    """In 8 bits, as all files are resized: in floats the noise here would differ by a grey level."""
    values = np.random.default_rng(0).integers(0, 256, (31, 47, 3), dtype=np.uint8)
    path = saved(tmp_path, "a.png", Image.fromarray(values))
    seen = as_tested(path, data, Facts(3, *WHITE), image_size=SIDE, crop=0.9)
    assert np.array_equal(seen[0].numpy(), measured(path, crop=0.9))


@pytest.mark.parametrize("content", ["nothing", "half", "noise", "huge"])
def test_a_picture_that_is_damaged_or_too_large_names_its_file(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = made("rgb", tmp_path)
    whole = path.read_bytes()
    if content == "huge":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    else:
        path.write_bytes({"nothing": b"", "half": whole[: len(whole) // 2], "noise": b"noise"}[content])
    for look in (trained, measured, predicted):
        with pytest.raises(HarnessError, match=rf"^cannot read {path} as a picture: [^\n]+$"):
            look(path)
