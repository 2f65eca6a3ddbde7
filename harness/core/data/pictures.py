"""Preparation of pictures of any size and mode, the same for training, testing and prediction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision.io import ImageReadMode
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as pil

from harness.core.data.augment import Interpolation, normalise, test_batch, test_size
from harness.core.data.datasets import Facts
from harness.core.data.pack import Pack, PackedPicture
from harness.spec import CocoFolder, Data, HarnessError, ImageFolder, MaskFolder
from harness.spec.data.packs import packed_side

Picture = str | Path | Image.Image | NDArray[np.uint8]
"""A file, a PIL image, or an array uint8 [H, W] or [H, W, C]."""

JPEG = b"\xff\xd8\xff"
"""First bytes of every JPEG file."""

Mode = Literal["L", "RGB"]
T = TypeVar("T")


def as_tested(picture: Picture, data: Data, facts: Facts, *, image_size: int, crop: float) -> Tensor:
    """A picture prepared like the test images of a data set: channels, resizing, central crop, normalisation.

    `prepared` defines the treatment of other modes and of EXIF orientation.

    Returns:
        float32 [1, C, image_size, image_size].

    Raises:
        HarnessError: a file is no picture, or an array has another shape or type.
    """
    if isinstance(data, ImageFolder) and data.decoder == "torchvision" and isinstance(picture, str | Path):
        pixels = decoded(Path(picture))
    else:
        pixels = pixels_of(picture, facts.channels)
    if isinstance(data, MaskFolder | CocoFolder):  # files are resized in 8 bits, images in memory in floats
        return normalise(central(pil.to_pil_image(pixels), image_size, crop)[None], facts.mean, facts.std)
    if isinstance(data, ImageFolder):
        if (side := packed_side(data.content)) is not None:
            pixels = central(_as_decoded(pixels, data), side, 1.0)
        square = central(_as_decoded(pixels, data), image_size, crop)
        return normalise(square[None], facts.mean, facts.std)
    return test_batch(pixels[None], facts.mean, facts.std, image_size=image_size, crop=crop)


def _as_decoded(pixels: Tensor, data: ImageFolder) -> Image.Image | Tensor:
    return pil.to_pil_image(pixels) if data.decoder == "pil" else pixels


def pixels_of(picture: Picture, channels: int) -> Tensor:
    """Pixels of a picture, uint8 [channels, H, W].

    Raises:
        HarnessError: a file is no picture, or an array has another shape or type.
    """
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or not picture.size:
            got = f"{picture.dtype} {list(picture.shape)}"
            raise HarnessError(f"a picture as an array should be uint8 [H, W] or [H, W, C], not {got}")
        deep = picture if picture.ndim == 3 else picture[..., None]
        if deep.shape[2] == channels:
            return torch.tensor(deep.transpose(2, 0, 1))
        if deep.shape[2] not in (1, 3, 4):
            raise HarnessError(f"a picture of {deep.shape[2]} channels for a model of {channels}")
        picture = Image.fromarray(deep[..., 0] if deep.shape[2] == 1 else deep)
    if channels not in (1, 3):
        raise HarnessError(f"a model of {channels} channels takes arrays uint8 [H, W, {channels}], no files")
    mode: Mode = "L" if channels == 1 else "RGB"
    if isinstance(picture, Image.Image):
        try:
            return _tensor(prepared(picture, mode))
        except (OSError, ValueError) as error:
            raise HarnessError(f"cannot read the picture: {error}") from None
    if not isinstance(picture, str | Path):
        raise HarnessError(f"a picture is a file, a PIL image or an array, not a {type(picture).__name__}")
    return read(Path(picture), lambda file: _tensor(prepared(file, mode)))


def read(path: Path, use: Callable[[Image.Image | PackedPicture], T], pack: Pack | None = None) -> T:
    """Result of a function of the opened picture at `path`, a file or in a pack.

    Raises:
        HarnessError: the file is no picture, is damaged, is larger than PIL's limit, or cannot be prepared.
    """
    if pack is not None:
        return use(pack.picture(path))
    try:
        with Image.open(path) as file:
            return use(file)
    except Exception as error:  # what PIL's many formats raise for damaged files has no common type
        if isinstance(error, HarnessError):
            raise
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise HarnessError(f"cannot read {path} as a picture: {reason}".replace("\n", " ")) from None


def prepared(image: Image.Image | PackedPicture, mode: Mode = "RGB") -> Image.Image:
    """A picture in 8 bits a channel: the one way in which training, testing, prediction and reconstruction see it.

    - EXIF orientation is not applied, as torchvision's ImageFolder and timm do not, so that published numbers hold.
    - Of an animation or of several pages the first is taken.
    - Transparency is left out, and the colours below it are taken. A palette is looked up, CMYK and YCbCr are converted
      as PIL does, without colour profiles. One channel becomes three equal ones, and colours one by the weights 0.299,
      0.587, 0.114.
    - 16 bits keep the upper eight, in grey (PIL's modes I;16 and I) as PIL does it in colour.
    - Floats are from 0, black, to 1, white: times 255, rounded.

    Raises:
        ValueError: integers above 16 bits, or floats outside 0 to 1; or PIL cannot convert the mode.
    """
    if isinstance(image, PackedPicture):  # prepared when it was packed
        return image.image()
    if image.mode == mode:
        image.load()  # a file is closed after this
        return image
    if image.mode.startswith("I"):
        image = _eight_bits(image, 65535, lambda values: values.astype(np.int64) >> 8)
    elif image.mode == "F":
        image = _eight_bits(image, 1, lambda values: np.rint(values * 255.0))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours, without PIL's warning
    return image.convert(mode)


def _eight_bits(image: Image.Image, white: int, scale: Callable[[NDArray[Any]], NDArray[Any]]) -> Image.Image:
    """Grey picture of 8 bits from values between 0 and `white`; `scale` maps them to 0 to 255."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= white):  # written so that NaN, for which every comparison is false, is refused
        raise ValueError(f"its values should be 0 to {white}, not {low:g} to {high:g}")
    return Image.fromarray(scale(values).astype(np.uint8))


def decoded(path: Path, pack: Pack | None = None) -> Tensor:
    """Pixels of a file as `decoder="torchvision"` reads them, uint8 [3, H, W]: a JPEG, by its first bytes whatever its
    name, by torchvision's decode_jpeg; every other file by PIL, as `prepared` describes.

    Never decoded at a fraction of its size, as PIL does with a JPEG that is much larger than needed. EXIF orientation
    is not applied.

    Raises:
        HarnessError: decode_jpeg refuses the JPEG, or PIL the other file.
    """
    if pack is not None:
        return pack.pixels(path)
    try:
        content = np.fromfile(path, dtype=np.uint8)
        if content[:3].tobytes() == JPEG:
            # The operator of torchvision.io.decode_jpeg, which warns at each call that it moves to TorchCodec.
            pixels: Tensor = torch.ops.image.decode_jpeg(torch.from_numpy(content), ImageReadMode.RGB.value, False)
            return pixels
    except OSError as error:
        raise HarnessError(f"cannot read {path} as a picture: {error.strerror}") from None
    except RuntimeError as error:  # what torchvision raises begins with the place in its source
        reason = str(error).splitlines()[0].rpartition(", ")[2]
        raise HarnessError(f"cannot read {path} as a picture: {reason} (decode_jpeg)") from None
    return read(path, lambda file: _tensor(prepared(file)))


def resized(pixels: Tensor, height: int, width: int, interpolation: Interpolation) -> Tensor:
    """Pixels resized with antialiasing in 8 bits by torch, within 1 of PIL's: uint8 [C, H, W] to [C, height, width]."""
    rows = pixels[None].contiguous(memory_format=torch.channels_last)  # torch's fast kernel is for this order
    return functional.interpolate(rows, size=(height, width), mode=interpolation, antialias=True)[0]


def central(image: Image.Image | Tensor, image_size: int, crop: float) -> Tensor:
    """Test image from a file: shorter side resized to int(image_size / crop), bicubic, then the central square.

    Args:
        image: PIL resizes a picture of its own, torch pixels uint8 [C, H, W].

    Returns:
        uint8 [C, image_size, image_size].
    """
    short = test_size(image_size, crop)
    if isinstance(image, Image.Image):
        return _tensor(pil.center_crop(pil.resize(image, short, InterpolationMode.BICUBIC), image_size))
    height, width = image.shape[1:]
    if (least := min(height, width)) != short:
        image = resized(image, int(short * height / least), int(short * width / least), "bicubic")
    square: Tensor = pil.center_crop(image, image_size)
    return square


def _tensor(image: Image.Image) -> Tensor:
    pixels: Tensor = pil.pil_to_tensor(image)
    return pixels
