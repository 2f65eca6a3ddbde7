"""Accuracy of a classifier over the share of its input's patches that are dropped."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from harness.analysis.chosen import chosen
from harness.analysis.interactions import reward
from harness.analysis.sweep import sweep, write_arrays
from harness.core.data.batches import test_batches
from harness.core.data.datasets import FolderSet, ImageSet, load
from harness.core.evaluate.labelled import test_batch_size
from harness.core.evaluate.start import fine_tuned
from harness.core.masks.masking import spread
from harness.core.runtime.precision import autocast, require
from harness.core.runtime.randomness import words
from harness.core.runtime.session import Session
from harness.spec import Occlusion, seed_stream

Drop = Literal["random", "salient", "nonsalient"]
Classify = Callable[[Tensor], Tensor]


def occlusion(run: Occlusion, session: Session) -> None:
    """Publish the areas under the curves of accuracy over drop ratio, and write analysis.npz.

    Arrays: ratios [ratios]; random float64 [ratios, draws], salient and nonsalient [ratios], top-1 in per cent; images,
    their number. The model computes in the fine-tuning's precision, so that at ratio 0 its accuracy is the run's own.
    """
    require(run.start.recipe, session.device)
    source = load(run.data, "test")
    model = fine_tuned(run.start, session, channels=source.channels)
    images = chosen(source, run.images, run.seed).to(session.device)
    size = test_batch_size(session)
    parts = math.ceil(len(images) / size)
    shape = (parts, len(run.ratios))
    found = {
        "random": torch.zeros(*shape, run.draws, dtype=torch.float64),
        "salient": torch.zeros(*shape, dtype=torch.float64),
        "nonsalient": torch.zeros(*shape, dtype=torch.float64),
    }

    def classify(inputs: Tensor) -> Tensor:
        with autocast(run.start.recipe, session.device):
            logits: Tensor = model(inputs)
        return logits.float()

    def compute(part: int) -> None:
        inputs, labels = _batch(run, images, session, part, size)
        positions = part * size + torch.arange(len(inputs), device=session.device)
        for draw in range(run.draws):
            found["random"][part, :, draw] = right(run, classify, inputs, labels, random_order(run, draw, positions))
        salient = saliency(classify, inputs, run.side).argsort(dim=1, descending=True, stable=True)
        found["salient"][part] = right(run, classify, inputs, labels, salient)
        found["nonsalient"][part] = right(run, classify, inputs, labels, salient.flip(1))

    work = size * len(run.ratios) * (run.draws + 2)
    seconds = sweep(session, parts=parts, found=found, compute=compute, images=work)
    curves = {name: 100 * (array.sum(0).numpy() / len(images)) for name, array in found.items()}
    write_arrays(session, ratios=np.array(run.ratios), images=np.array(len(images)), **curves)
    session.attempt.finish(_metrics(run, curves), seconds)


def _batch(
    run: Occlusion, images: ImageSet | FolderSet, session: Session, part: int, size: int
) -> tuple[Tensor, Tensor]:
    batches = test_batches(
        images, image_size=run.image_size, crop=run.crop, batch_size=size, device=session.device,
        workers=session.workers, rank=part, size=math.ceil(len(images) / size),
    )  # fmt: skip
    return next(iter(batches))


def random_order(run: Occlusion, draw: int, positions: Tensor) -> Tensor:
    """The order in which patches are dropped: int64 [B, patches], a permutation for each image.

    positions: int64 [B], place of each image in the whole list; row i depends on positions[i] alone.
    """
    noise = words(seed_stream(run.seed, "occlusion"), draw, positions, 2 * run.side**2)
    high, low = noise.chunk(2, dim=1)
    return ((high << 31) | (low >> 1)).argsort(dim=1, stable=True)


def dropped(order: Tensor, count: int) -> Tensor:
    """The first `count` patches of each order: int64 [B, patches] -> bool [B, side, side], True = dropped."""
    hidden = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, :count], value=True)
    side = math.isqrt(order.shape[1])
    return hidden.view(-1, side, side)


@torch.no_grad()
def right(run: Occlusion, classify: Classify, images: Tensor, labels: Tensor, order: Tensor) -> Tensor:
    """How many images are classified rightly at each ratio: float64 [ratios], on the CPU."""
    found = []
    for count in run.counts:
        inputs = images.masked_fill(spread(dropped(order, count), images.shape[-1])[:, None], 0.0)
        found.append((classify(inputs).argmax(dim=1) == labels).sum())
    return torch.stack(found).double().cpu()


def saliency(classify: Classify, images: Tensor, side: int) -> Tensor:
    """Saliency of each patch: float32 [B, side^2].

    The sum over the pixels of a patch of the absolute gradient of the log-odds of the predicted class.
    """
    with torch.enable_grad():
        inputs = images.detach().clone().requires_grad_(True)
        logits = classify(inputs)
        (gradient,) = torch.autograd.grad(reward(logits, logits.argmax(dim=1), "log-odds").sum(), inputs)
    return F.avg_pool2d(gradient.abs().sum(1, keepdim=True), images.shape[-1] // side, divisor_override=1).flatten(1)


def _metrics(run: Occlusion, curves: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    """Areas under the curves, as a mean accuracy over the range of ratios, and every point of them, in per cent."""
    ratios = np.array(run.ratios)
    widths = np.diff(ratios) / (ratios[-1] - ratios[0])
    area = {name: ((curve[1:] + curve[:-1]) / 2 * widths.reshape(-1, *[1] * (curve.ndim - 1))).sum(axis=0)
            for name, curve in curves.items()}  # fmt: skip
    metrics = {f"area_{name}": float(np.mean(values)) for name, values in area.items()}
    if run.draws > 1:
        metrics["area_random_sd"] = float(np.std(area["random"], ddof=1))
    for name, curve in curves.items():
        for ratio, value in zip(run.ratios, curve, strict=True):
            metrics[f"{name}({ratio:g})"] = float(np.mean(value))
    return metrics
