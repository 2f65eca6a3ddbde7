"""Colour statistics of masked images under each fill of hidden pixels, compared with the clean images."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.analysis.sweep import SampleBatches, sweep, write_arrays
from harness.core.data.datasets import load
from harness.core.masks.masking import make_mask, spread
from harness.core.model.corruption import filled, noise_stream
from harness.core.runtime.drop_path import Place
from harness.core.runtime.session import Session
from harness.spec import RgbStatistics

Values = NDArray[np.float64]


def rgb_statistics(run: RgbStatistics, session: Session) -> None:
    """Measure how far each fill moves the colour statistics of images; publish metrics, write analysis.npz.

    Arrays, float64, averaged over images and masks, colours in [0, 1]: fills str [fills]; mean, variance and dc [fills,
    channels], of an image's mean, variance and `dc`; mean_sd [fills, channels], standard deviation of an image's mean;
    histogram [fills, channels, bins], shares that add up to 1, with values outside [0, 1] in the outermost bins; shift
    [fills], absolute change of the mean colour, averaged over channels.
    """
    source = load(run.data, "test")
    batches = SampleBatches(run, source, session)
    parts, fills, channels = batches.parts, run.fills, source.channels
    scale, shift = (torch.tensor(values, device=session.device)[:, None, None] for values in (source.std, source.mean))
    # Black as the normalised images have it; hidden pixels are filled in that space, as in training.
    black = (-shift / scale)[:, 0, 0]
    names = ("mean", "squares", "variance", "dc")
    found = {name: torch.zeros(parts, len(fills), channels, dtype=torch.float64) for name in names}
    found["shift"] = torch.zeros(parts, len(fills), dtype=torch.float64)
    found["histogram"] = torch.zeros(parts, len(fills), channels, run.bins, dtype=torch.float64)

    def coloured(normalised: Tensor) -> Tensor:
        return normalised.double() * scale + shift

    def compute(part: int) -> None:
        inputs, _, positions = batches.part(part)
        for draw in range(run.masks):
            hidden, place = _hidden(run, draw, positions), Place().move(draw, positions)
            for number, fill in enumerate(fills):
                masked = filled(inputs, hidden, fill, black, stream=noise_stream(run.seed), place=place)
                for name, values in statistics(coloured(masked), coloured(inputs), run.bins).items():
                    found[name][part, number] += values.cpu()

    work = batches.size * run.masks * len(fills)
    seconds = sweep(session, parts=parts, found=found, compute=compute, images=work, part_size=batches.size)
    total = {name: array.sum(0).numpy() / (batches.count * run.masks) for name, array in found.items()}
    # Rounding can make the variance of equal means slightly negative.
    deviation = np.sqrt(np.maximum(total["squares"] - total["mean"] ** 2, 0))
    kept = {name: values for name, values in total.items() if name != "squares"}
    write_arrays(session, fills=np.array(fills), mean_sd=deviation, **kept)
    session.attempt.finish(_metrics(run, kept), seconds)


def _hidden(run: RgbStatistics, draw: int, positions: Tensor) -> Tensor:
    """Hidden pixels, bool [B, S, S], True = hidden, by the pre-training's mask; draw n is that of step n."""
    units = make_mask(
        run.start.mask, image_size=run.image_size, seed=run.seed, step=draw, steps=run.masks, positions=positions
    )
    return spread(units, run.image_size)


def statistics(masked: Tensor, clean: Tensor, bins: int) -> dict[str, Tensor]:
    """Sums over a batch of the arrays of `rgb_statistics`; squares: of the means.

    Args:
        masked, clean: float64 [B, C, S, S], colours in [0, 1].
    """
    mean = masked.mean(dim=(2, 3))
    return {
        "mean": mean.sum(0),
        "squares": mean.square().sum(0),
        "variance": masked.var(dim=(2, 3), correction=0).sum(0),
        "dc": dc(masked).sum(0),
        "shift": (mean - clean.mean(dim=(2, 3))).abs().mean(dim=1).sum(),
        "histogram": histogram(masked, bins).sum(0),
    }


def dc(images: Tensor) -> Tensor:
    """Share of an image's power at frequency zero: float [B, C, S, S] -> float [B, C].

    By Parseval's theorem this is mean^2 / (mean^2 + variance); 1 for a black image.
    """
    square = images.mean(dim=(2, 3)).square()
    power = images.square().mean(dim=(2, 3))
    return torch.where(power > 0, square / power.clamp(min=torch.finfo(power.dtype).tiny), torch.ones_like(power))


def histogram(images: Tensor, bins: int) -> Tensor:
    """Share of pixels in each of `bins` equal parts of [0, 1]: float [B, C, S, S] -> float64 [B, C, bins]."""
    # Not torch.histc: that has no batches, and drops what lies outside [0, 1].
    places = (images * bins).floor().clamp(0, bins - 1).long().flatten(2)
    counts = torch.zeros(*places.shape[:2], bins, dtype=torch.float64, device=images.device)
    return counts.scatter_add_(2, places, torch.ones_like(places, dtype=torch.float64)) / places.shape[2]


def _metrics(run: RgbStatistics, total: dict[str, Values]) -> dict[str, float]:
    """Metrics of each fill; the first one is the shift of the run's own fill, which tables show.

    mean_shift: change of the mean colour. variance_ratio: variance over that of the clean images. dc: see `dc`.
    histogram_distance: total variation from the clean histogram, half the sum of absolute differences.
    """
    own = run.fills.index(run.start.corruption.fill)
    metrics = {"mean_shift": total["shift"][own]}
    clean = run.fills.index("none")
    for number, fill in enumerate(run.fills):
        metrics[f"mean_shift({fill})"] = total["shift"][number]
        metrics[f"variance_ratio({fill})"] = total["variance"][number].mean() / total["variance"][clean].mean()
        metrics[f"dc({fill})"] = total["dc"][number].mean()
        distance = np.abs(total["histogram"][number] - total["histogram"][clean]).sum(axis=1) / 2
        metrics[f"histogram_distance({fill})"] = distance.mean()
    return {name: float(value) for name, value in metrics.items()}
