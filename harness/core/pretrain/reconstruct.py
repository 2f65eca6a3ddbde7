"""Reconstructions by a pre-trained model, stored as an artefact so that reports need no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from harness.core.data.batches import test_batches
from harness.core.data.datasets import load
from harness.core.masks.frequencies import without_frequencies
from harness.core.masks.masking import make_mask, spread
from harness.core.runtime.drop_path import Place
from harness.core.runtime.session import Session
from harness.spec import FrequencyMask, Pretrain

if TYPE_CHECKING:
    from harness.core.pretrain.mim import MaskedImageModel

COUNT = 8
"""Test images that are reconstructed."""
GREY = 128
"""Value of hidden pixels in the masked picture, in all channels."""


class Reconstructed(NamedTuple):
    """Reconstructions of n images, as pictures.

    original, masked, predicted: uint8 [n, H, W, C], masked with hidden pixels grey. hidden: bool [n, H, W], True =
        hidden.

    Where frequencies are removed, masked is the image without them, and all pixels count as hidden.
    """

    original: NDArray[np.uint8]
    masked: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    hidden: NDArray[np.bool_]


@torch.no_grad()
def write_reconstructions(run: Pretrain, model: MaskedImageModel, session: Session) -> None:
    """Write reconstructions.npz of the first test images, with masks that are equal for all runs of a seed.

    A folder without test images, which a pre-training does not need, gives the first ones that it is trained on. The
    model leaves its place in the training.

    Arrays: original, masked and predicted uint8 [n, H, W, C], masked with hidden pixels grey; hidden bool [n, H, W];
    labels int64 [n], of which a report shows one image each.
    `predicted` is the picture of `Targets.picture`; no file is written for a target without pictures.
    """
    source = load(run.data, "test" if run.data.fault(tested=True) is None else "pretrain")
    batches = test_batches(
        source, image_size=run.image_size, crop=1.0, batch_size=COUNT, device=session.device, workers=0
    )
    # One batch, for which loader processes would take longer to start than to load.
    images, labels = next(iter(batches))
    # Step 0 and positions from 0, not the last batch's: pictures of different runs of a seed show the same masks.
    model.place = Place()
    positions = torch.arange(len(images), device=session.device)
    units = make_mask(
        run.mask,
        image_size=run.image_size,
        seed=run.seed,
        step=0,
        steps=1,
        positions=positions,
        scores=model.scores(images),
    )
    found = reconstructed(model, images, units, source.mean, source.std)
    if found is None:
        return
    np.savez_compressed(
        session.attempt.artefact("reconstructions.npz"),
        original=found.original,
        masked=found.masked,
        predicted=found.predicted,
        hidden=found.hidden,
        labels=labels.cpu().numpy(),
    )


@torch.no_grad()
def reconstructed(
    model: MaskedImageModel, images: Tensor, units: Tensor, mean: tuple[float, ...], std: tuple[float, ...]
) -> Reconstructed | None:
    """Reconstructions of masked images, as pictures of `Targets.picture`; None for a target without pictures.

    Args:
        images: float [n, C, H, W], normalised with mean and std. units: bool, from `make_mask`.
    """
    picture = model.targets.picture(model(images, units)[0].float(), images)
    if picture is None:
        return None
    # Nearest: a target of lower resolution shows as squares, which is what was predicted.
    prediction = F.interpolate(picture, images.shape[-2:], mode="nearest")
    original = _pixels(images, mean, std)
    if isinstance(model.run.mask, FrequencyMask):
        masked = _pixels(without_frequencies(images, units, *images.new_tensor((mean, std))), mean, std)
        return Reconstructed(original, masked, _pixels(prediction, mean, std), np.ones(original.shape[:3], dtype=bool))
    hidden = spread(units, images.shape[-1]).cpu().numpy()
    masked = np.where(hidden[..., None], np.uint8(GREY), original)
    return Reconstructed(original, masked, _pixels(prediction, mean, std), hidden)


def _pixels(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.uint8]:
    """Normalised [n, C, H, W] back to uint8 [n, H, W, C]."""
    scale, shift = (images.new_tensor(values)[:, None, None] for values in (std, mean))
    # Predictions may lie outside the range of colours.
    values = ((images * scale + shift) * 255).round().clamp(0, 255).to(torch.uint8)
    found: NDArray[np.uint8] = values.permute(0, 2, 3, 1).cpu().numpy()
    return found
