"""Pictures of what a pre-trained model predicts, kept as an artefact so that reports need no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from harness.core.batches import test_batches
from harness.core.datasets import load
from harness.core.masking import make_mask, spread
from harness.core.session import Session
from harness.spec import Pretrain

if TYPE_CHECKING:
    from harness.core.pretrain import MaskedImageModel

COUNT = 8
GREY = 128


@torch.no_grad()
def write_reconstructions(run: Pretrain, model: MaskedImageModel, session: Session) -> None:
    """Write reconstructions.npz for the first test images, with masks that are the same for every run of a seed.

    Arrays: original, masked and predicted uint8 [n, H, W, C], masked with hidden pixels grey; hidden bool [n, H, W].
    `predicted` is what `Targets.picture` makes of a prediction. A target that shows nothing leaves no file.
    """
    source = load(run.data, "test")
    batches = test_batches(
        source, image_size=run.image_size, crop=1.0, batch_size=COUNT, device=session.device, workers=0
    )
    images = next(iter(batches))[0]
    positions = torch.arange(len(images), device=session.device)
    units = make_mask(run.mask, image_size=run.image_size, seed=run.seed, step=0, steps=1, positions=positions)
    picture = model.targets.picture(model(images, units)[0].float())
    if picture is None:
        return
    prediction = F.interpolate(picture, images.shape[-2:], mode="nearest")
    hidden = spread(units, images.shape[-1])
    original = _pixels(images, source.mean, source.std)
    hidden_array = hidden.cpu().numpy()
    np.savez_compressed(
        session.attempt.artefact("reconstructions.npz"),
        original=original,
        masked=np.where(hidden_array[..., None], np.uint8(GREY), original),
        predicted=_pixels(prediction, source.mean, source.std),
        hidden=hidden_array,
    )


def _pixels(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.uint8]:
    """Normalised [n, C, H, W] back to uint8 [n, H, W, C]."""
    scale, shift = (images.new_tensor(values)[:, None, None] for values in (std, mean))
    values = ((images * scale + shift) * 255).round().clamp(0, 255).to(torch.uint8)
    found: NDArray[np.uint8] = values.permute(0, 2, 3, 1).cpu().numpy()
    return found
