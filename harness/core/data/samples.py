"""Training and test images computed one by one in loader workers: files, and timm's transforms of single images.

A sample is a function of the seed, the step, the place in the global batch and the image, so the number of workers
does not change it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, assert_never

import torch
from PIL import Image, ImageOps
from timm.data.auto_augment import RandAugment
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional as pil

from harness.core.data.augment import Interpolation, seeded
from harness.core.data.datasets import FolderSet, ImageSet
from harness.core.data.pack import PackedPicture
from harness.core.data.pictures import central, decoded, prepared, read, resized
from harness.core.data.single import crop_box, is_flipped
from harness.spec import Augment, HarnessError


class TrainingSamples(Dataset[tuple[Tensor, int, int]]):
    """Augmented training images: (step, position, index) gives an image, its label and the step.

    With timm's transforms, images are float32 [C, S, S] and normalised; files that are only cropped and
    flipped come as uint8 [3, S, S]. Grey images pass through timm's transforms as they are (PIL mode L).

    Raises:
        HarnessError: timm's transforms are wanted for images of other than 1 or 3 channels.
    """

    def __init__(self, source: ImageSet | FolderSet, augment: Augment, image_size: int, seed: int) -> None:
        if source.channels not in (1, 3):
            raise HarnessError(f"rand_augment, color_jitter and erasing work on 1 or 3 channels, not {source.channels}")
        self.source = source.to(torch.device("cpu"))  # workers never touch an accelerator
        self.augment = augment
        self.image_size = image_size
        self.seed = seed
        self.transform = _timm_transform(source, augment, image_size) if augment.needs_loader else None

    def __getitem__(self, sample: tuple[int, int, int]) -> tuple[Tensor, int, int]:
        step, position, index = sample
        return self._image(step, position, index), int(self.source.labels[index]), step

    def _image(self, step: int, position: int, index: int) -> Tensor:
        match self.source:
            case FolderSet(paths=paths, decoder="torchvision", pack=pack) if self.transform is None:
                return self._cropped_tensor(decoded(paths[index], pack), step, position)
            case FolderSet(paths=paths, pack=pack) if self.transform is None:
                return read(paths[index], lambda file: self._cropped(file, step, position), pack)
            case FolderSet(paths=paths, decoder="torchvision", pack=pack):
                image = pil.to_pil_image(decoded(paths[index], pack))
            case FolderSet(paths=paths, pack=pack):
                image = read(paths[index], prepared, pack)
            case ImageSet(images=images):
                image = pil.to_pil_image(images[index])
            case _:
                assert_never(self.source)
        assert self.transform is not None, "images in memory come here for timm's transforms only"
        with seeded(self.seed, "augment", step, position):
            augmented: Tensor = self.transform(image)
        return augmented

    def _cropped(self, file: Image.Image | PackedPicture, step: int, position: int) -> Tensor:
        size = self.image_size
        width, height = file.size
        top, left, tall, wide = self._box(height, width, step, position)
        # A JPEG much larger than needed is decoded at 1/2, 1/4 or 1/8, never below twice the size needed.
        file.draft(None, (2 * size * width // wide, 2 * size * height // tall))
        # The box was drawn in pixels of the full image; scale it to the size that was decoded.
        across, down = file.size[0] / width, file.size[1] / height
        near = (round(left * across), round(top * down))
        far = (round((left + wide) * across), round((top + tall) * down))
        image = prepared(file).crop((*near, *far)).resize((size, size), pil_filter(self.augment.interpolation))
        if self._mirrored(step, position):
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels: Tensor = pil.pil_to_tensor(image)
        return pixels

    def _cropped_tensor(self, pixels: Tensor, step: int, position: int) -> Tensor:
        height, width = pixels.shape[1:]
        top, left, tall, wide = self._box(height, width, step, position)
        part = pixels[:, top : top + tall, left : left + wide]
        image = resized(part, self.image_size, self.image_size, self.augment.interpolation)
        return image.flip(2) if self._mirrored(step, position) else image

    def _box(self, height: int, width: int, step: int, position: int) -> tuple[int, int, int, int]:
        return crop_box(height, width, self.augment, seed=self.seed, step=step, position=position)

    def _mirrored(self, step: int, position: int) -> bool:
        return is_flipped(self.augment, seed=self.seed, step=step, position=position)


class TestSamples(Dataset[tuple[Tensor, int]]):
    """Test images from files: uint8 [3, S, S], and their labels."""

    def __init__(self, source: FolderSet, image_size: int, crop: float) -> None:
        self.source = source
        self.image_size = image_size
        self.crop = crop

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._image(self.source.paths[index]), int(self.source.labels[index])

    def _image(self, path: Path) -> Tensor:
        if self.source.decoder == "torchvision":
            return central(decoded(path, self.source.pack), self.image_size, self.crop)
        return read(path, lambda file: central(prepared(file), self.image_size, self.crop), self.source.pack)


def pil_filter(interpolation: Interpolation) -> Image.Resampling:
    """PIL's filter of an interpolation."""
    match interpolation:
        case "bilinear":
            return Image.Resampling.BILINEAR
        case "bicubic":
            return Image.Resampling.BICUBIC
        case _:
            assert_never(interpolation)


def _timm_transform(source: ImageSet | FolderSet, augment: Augment, image_size: int) -> Any:
    transform = create_transform(
        image_size,
        is_training=True,
        scale=augment.crop_scale,
        ratio=augment.crop_ratio,
        hflip=augment.flip,
        interpolation=augment.interpolation,
        auto_augment=augment.rand_augment or None,
        color_jitter=augment.color_jitter,
        re_prob=augment.erasing,
        re_mode="pixel",
        re_count=1,
        mean=source.mean,
        std=source.std,
    )
    # timm's Posterize raises at 0 bits with new versions of Pillow, so its function is exchanged.
    for step in transform.transforms:
        if isinstance(step, RandAugment):
            for operation in step.ops:
                if operation.name.startswith("Posterize"):
                    operation.aug_fn = _posterize
    return transform


def _posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
    """timm's Posterize, which gives black at 0 bits: its increasing magnitudes reach 0, which new Pillows refuse."""
    if bits >= 8:
        return image
    return ImageOps.posterize(image, bits) if bits > 0 else image.point(lambda value: 0)


def collected(
    made: Dataset[Any],
    wanted: Iterable[list[Any]],
    device: torch.device,
    workers: int,
    together: Callable[[list[Any]], list[Tensor]] | None = None,
) -> Iterator[list[Tensor]]:
    """Batches of the wanted samples in order, computed by `workers` processes, or here if 0.

    Args:
        together: makes a batch of samples; None stacks each field.

    Raises:
        HarnessError: raised by a sample.
    """
    with warnings.catch_warnings():
        # Python warns of a fork beside other threads (see _start_method), torch of more workers than cores.
        warnings.simplefilter("ignore")
        batches = iter(
            DataLoader(
                made,
                batch_sampler=wanted,
                num_workers=workers,
                collate_fn=together,
                pin_memory=device.type == "cuda",
                multiprocessing_context=_start_method() if workers else None,
                generator=torch.Generator(),  # not the global one: the caller's draws stay the same
            )
        )
    try:
        yield from batches
    except HarnessError as error:  # a worker's comes wrapped in its traceback
        raise HarnessError(str(error).strip().splitlines()[-1].split("HarnessError: ")[-1]) from None


def _start_method() -> str:
    """Start method of loader workers: fork if that is safe, as it shares the images in memory, else forkserver.

    Workers use one thread and no accelerator, so a fork is safe unless this process has initialised CUDA, whose driver
    has threads that hold locks.
    """
    cuda = torch.cuda.is_initialized()
    return "fork" if sys.platform == "linux" and not cuda else "forkserver"
