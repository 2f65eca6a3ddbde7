"""Any picture, of any size and mode, as a run tests its images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import functional as pil

from harness.core.data.augment import normalise, test_batch
from harness.core.data.data_facts import Facts
from harness.core.data.samples import central
from harness.spec import Data, HarnessError, ImageFolder

Picture = str | Path | Image.Image | NDArray[np.uint8]
"""A file, a PIL image, or an array uint8 [H, W] or [H, W, C]."""


def as_tested(picture: Picture, data: Data, facts: Facts, *, image_size: int, crop: float) -> Tensor:
    """A picture as the test images of a data set: same channels, resizing, central crop and normalisation.

    EXIF orientation is applied. Grey, palette, 16-bit and CMYK pictures are converted; transparency is left out, and
    the colours below it are taken, as for training images.

    Returns:
        float32 [1, C, image_size, image_size].

    Raises:
        HarnessError: a file is no picture, or an array has another shape or type.
    """
    pixels = _pixels(picture, facts.channels)
    if isinstance(data, ImageFolder):  # its files are resized by PIL, images in memory by torch
        square = central(pil.to_pil_image(pixels), image_size, crop)
        return normalise(square[None], facts.mean, facts.std)
    return test_batch(pixels[None], facts.mean, facts.std, image_size=image_size, crop=crop)


def _pixels(picture: Picture, channels: int) -> Tensor:
    """uint8 [channels, H, W]."""
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
    mode = "L" if channels == 1 else "RGB"
    image = _converted(picture, mode) if isinstance(picture, Image.Image) else _read(Path(picture), mode)
    pixels: Tensor = pil.pil_to_tensor(image)
    return pixels


def _read(path: Path, mode: str) -> Image.Image:
    try:
        with Image.open(path) as file:
            return _converted(file, mode)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise HarnessError(f"cannot read {path} as a picture: {reason}".replace("\n", " ")) from None


def _converted(image: Image.Image, mode: str) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16 bits: PIL would cut off at 255
        values = np.asarray(upright).astype(np.int64)
        upright = Image.fromarray((values >> 8 if values.max() > 255 else values).clip(0, 255).astype(np.uint8))
    if upright.mode == "P" and "transparency" in upright.info:
        upright = upright.convert("RGBA")
    return upright.convert(mode)
