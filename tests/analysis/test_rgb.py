"""Statistics of masked inputs against values computed by hand."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from harness.analysis.rgb import dc, histogram, statistics
from harness.core.model.corruption import filled
from harness.spec import RgbStatistics
from harness.spec.model.corruption import Fill

PIXELS = torch.tensor([[[[0.1, 0.2], [0.3, 0.6]]]], dtype=torch.float64)
HIDDEN = torch.tensor([[[True, False], [False, True]]])
BLACK = torch.tensor([0.0], dtype=torch.float64)


def test_statistics_by_hand() -> None:
    masked = filled(PIXELS, HIDDEN, "zero", BLACK)
    found = statistics(masked, PIXELS, 4)
    values = np.array([0.0, 0.2, 0.3, 0.0])
    assert found["mean"].tolist() == pytest.approx([0.125])
    assert found["squares"].tolist() == pytest.approx([0.125**2])
    assert found["variance"].tolist() == pytest.approx([values.var()])
    assert found["shift"].item() == pytest.approx(0.3 - 0.125)
    assert found["histogram"].tolist() == [[0.75, 0.25, 0.0, 0.0]]


def test_dc_is_the_share_of_frequency_zero() -> None:
    images = torch.rand(3, 2, 4, 4, dtype=torch.float64)
    power = np.abs(np.fft.fft2(images.numpy())) ** 2
    np.testing.assert_allclose(dc(images).numpy(), power[..., 0, 0] / power.sum(axis=(2, 3)))
    assert dc(torch.zeros(1, 1, 2, 2)).item() == 1.0


def test_histogram_keeps_what_lies_outside() -> None:
    images = torch.tensor([-0.5, 0.0, 0.25, 0.4999, 0.5, 1.0, 1.5, 0.99]).view(1, 1, 2, 4)
    assert histogram(images, 4).flatten().tolist() == [0.25, 0.25, 0.125, 0.375]


def test_every_fill_of_a_corruption_is_looked_at() -> None:
    assert set(RgbStatistics.fills) == set(get_args(Fill))


def test_a_mean_fill_keeps_the_mean_and_takes_variance() -> None:
    pixels = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    hidden = torch.rand(4, 8, 8) < 0.6
    kept = filled(pixels, hidden, "visible-mean", BLACK.expand(3))
    seen = torch.stack([image[:, ~part].mean(dim=1) for image, part in zip(pixels, hidden, strict=True)])
    assert torch.allclose(kept.mean(dim=(2, 3)), seen)
    assert (kept.var(dim=(2, 3)) < pixels.var(dim=(2, 3))).all()
