"""Occlusion robustness: accuracy of a classifier as a function of the share of dropped patches."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from harness.analysis.interactions import reward
from harness.analysis.sweep import SampleBatches, random_orders, sweep, write_arrays
from harness.core.data.datasets import load
from harness.core.evaluate.start import fine_tuned
from harness.core.masks.masking import spread
from harness.core.runtime.precision import autocast, require
from harness.core.runtime.session import Session
from harness.spec import Occlusion, seed_stream

Classify = Callable[[Tensor], Tensor]
"""Normalised images float32 [B, C, S, S] to logits float32 [B, K]."""


def occlusion(run: Occlusion, session: Session) -> None:
    """Measure accuracy over the drop ratio; publish the areas under the curves, write analysis.npz.

    Arrays: ratios [ratios]; random float64 [ratios, draws], salient and nonsalient [ratios], top-1 in per cent; images,
    their number. The model computes in the fine-tuning's precision, so that its accuracy at ratio 0 is the run's own.
    """
    require(run.start.recipe, session.device)
    source = load(run.data, "test")
    model = fine_tuned(run.start, session, channels=source.channels)
    batches = SampleBatches(run, source, session)
    shape = (batches.parts, len(run.ratios))
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
        inputs, labels, positions = batches.part(part)
        for draw in range(run.draws):
            order = random_order(run, draw, positions)
            found["random"][part, :, draw] = count_correct(run, classify, inputs, labels, order)
        salient = saliency(classify, inputs, run.side).argsort(dim=1, descending=True, stable=True)
        found["salient"][part] = count_correct(run, classify, inputs, labels, salient)
        found["nonsalient"][part] = count_correct(run, classify, inputs, labels, salient.flip(1))

    work = batches.size * len(run.ratios) * (run.draws + 2)
    seconds = sweep(session, parts=batches.parts, found=found, compute=compute, images=work, part_size=batches.size)
    curves = {name: 100 * (array.sum(0).numpy() / batches.count) for name, array in found.items()}
    write_arrays(session, ratios=np.array(run.ratios), images=np.array(batches.count), **curves)
    session.attempt.finish(_metrics(run, curves), seconds)


def random_order(run: Occlusion, draw: int, positions: Tensor) -> Tensor:
    """Random order in which patches are dropped: int64 [B, patches], a permutation for each image.

    positions: int64 [B], place of each image in the sample; row i depends on positions[i] alone.
    """
    return random_orders(seed_stream(run.seed, "occlusion"), draw, positions, run.side**2)


def dropped(order: Tensor, count: int) -> Tensor:
    """Mask of the first `count` patches of each order: int64 [B, patches] -> bool [B, side, side], True = dropped."""
    hidden = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, :count], value=True)
    side = math.isqrt(order.shape[1])
    return hidden.view(-1, side, side)


@torch.no_grad()
def count_correct(run: Occlusion, classify: Classify, images: Tensor, labels: Tensor, order: Tensor) -> Tensor:
    """Number of correctly classified images at each ratio: float64 [ratios], on the CPU.

    order: int64 [B, patches], in which patches are dropped. Dropped pixels are 0, the data set's mean colour.
    """
    found = []
    for count in run.counts:
        inputs = images.masked_fill(spread(dropped(order, count), images.shape[-1])[:, None], 0.0)
        found.append((classify(inputs).argmax(dim=1) == labels).sum())
    # Kept on the device until here: one transfer instead of one a ratio.
    return torch.stack(found).double().cpu()


def saliency(classify: Classify, images: Tensor, side: int) -> Tensor:
    """Saliency of each patch: float32 [B, side^2].

    Sum over the patch's pixels and channels of the absolute gradient of the predicted class's log-odds.
    """
    with torch.enable_grad():  # the callers compute without gradients
        inputs = images.detach().clone().requires_grad_(True)
        logits = classify(inputs)
        (gradient,) = torch.autograd.grad(reward(logits, logits.argmax(dim=1), "log-odds").sum(), inputs)
    # With divisor 1 the average is a sum.
    return F.avg_pool2d(gradient.abs().sum(1, keepdim=True), images.shape[-1] // side, divisor_override=1).flatten(1)


def _metrics(run: Occlusion, curves: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    """Area under each curve, divided by the range of ratios, and every point of the curves; in per cent."""
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
