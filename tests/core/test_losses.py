"""The prediction loss and the targets, against values computed by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from tiny import VIT, pretrain

from harness.core.objective.losses import loss_denominators, loss_weight, prediction_loss, total
from harness.core.pretrain.mim import MaskedImageModel
from harness.spec import Backbone, FourierLoss, Loss, RandomMask

TARGET = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]]])  # [1, 2, 2, 2]
PREDICTION = torch.tensor([[[[1.5, 0.0], [3.0, 8.0]], [[1.0, 1.0], [-3.0, 0.25]]]])
HIDDEN = torch.tensor([[[True, False], [True, False]]])


@pytest.mark.parametrize(
    ("loss", "value"),
    [
        # hidden pixels: (0, 0) with errors .5 and 1, (1, 0) with errors 0 and -3; two pixels, two channels
        (Loss(kind="l1"), (0.5 + 1 + 0 + 3) / 2 / 2),
        (Loss(kind="l2"), (0.25 + 1 + 0 + 9) / 2 / 2),
        (Loss(kind="smooth-l1"), (0.125 + 0.5 + 0 + 2.5) / 2 / 2),
        (Loss(kind="smooth-l1", beta=2.0), (0.0625 + 0.25 + 0 + 2.0) / 2 / 2),
        # all pixels: (0, 1) adds errors -2 and 1, (1, 1) adds 4 and .25
        (Loss(kind="l1", scope="full"), (0.5 + 1 + 0 + 3 + 2 + 1 + 4 + 0.25) / 4 / 2),
        (Loss(kind="l2", scope="full"), (0.25 + 1 + 0 + 9 + 4 + 1 + 16 + 0.0625) / 4 / 2),
    ],
)
def test_loss_by_hand(loss: Loss, value: float) -> None:
    assert prediction_loss(loss, PREDICTION, TARGET, HIDDEN).item() == pytest.approx(value, rel=1e-5)


def test_focal_l1_by_hand() -> None:
    """|d| (2 sigmoid(alpha |d|) - 1) ** gamma on hidden errors 0.5, 1, 0 and -3."""

    def focal(alpha: float, gamma: float) -> float:
        errors = (0.5, 1.0, 0.0, 3.0)
        return math.fsum(e * math.pow(2 / (1 + math.exp(-alpha * e)) - 1, gamma) for e in errors) / 4

    for loss, value in (
        (Loss(kind="focal-l1"), focal(0.2, 1.0)),
        (Loss(kind="focal-l1", alpha=0.7, gamma=2.0), focal(0.7, 2.0)),
    ):
        assert prediction_loss(loss, PREDICTION, TARGET, HIDDEN).item() == pytest.approx(value, rel=1e-5)


def test_small_errors_are_nearly_squared_by_focal_l1() -> None:
    error = torch.full((1, 1, 1, 1), 0.01)
    found = prediction_loss(Loss(kind="focal-l1", scope="full"), error, torch.zeros_like(error)).item()
    assert found == pytest.approx(0.1 * 0.01**2, rel=1e-3)


@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.0])
def test_equal_values_have_a_finite_gradient_by_focal_l1(gamma: float) -> None:
    """d tanh(z)^gamma grows as d^(1 + gamma): its derivative at 0 is 0."""
    prediction = torch.tensor([0.0, 2.0]).view(1, 1, 1, 2).requires_grad_()
    loss = Loss(kind="focal-l1", gamma=gamma, alpha=1.0, scope="full")
    prediction_loss(loss, prediction, torch.zeros(1, 1, 1, 2)).backward()
    slope = math.tanh(1) ** gamma + 2 * gamma * math.tanh(1) ** (gamma - 1) * (1 - math.tanh(1) ** 2) / 2
    assert prediction.grad is not None
    assert prediction.grad.flatten().tolist() == pytest.approx([0.0, slope / 2], rel=1e-4)


def test_cosine_by_hand() -> None:
    """One error for all channels."""
    prediction = torch.tensor([[3.0, 4.0], [0.0, 2.0]]).view(1, 2, 1, 2)  # vectors (3, 0) and (4, 2)
    target = torch.tensor([[1.0, 2.0], [1.0, 1.0]]).view(1, 2, 1, 2)  # vectors (1, 1) and (2, 1): same direction
    first = 2 - 2 / math.sqrt(2)
    hidden = torch.tensor([[[True, False]]])
    assert prediction_loss(Loss(kind="cosine"), prediction, target, hidden).item() == pytest.approx(first, rel=1e-4)
    full = Loss(kind="cosine", scope="full")
    assert prediction_loss(full, prediction, target).item() == pytest.approx(first / 2, rel=1e-4)


def test_frequency_loss_by_hand() -> None:
    """The difference [[3, 1], [0, 0]] has the spectrum [[2, 1], [2, 1]]; shifted, zero is at (1, 1)."""
    prediction = torch.tensor([[4.0, 1.0], [5.0, 0.0]]).view(1, 1, 2, 2)
    target = torch.tensor([[1.0, 0.0], [5.0, 0.0]]).view(1, 1, 2, 2)
    lowest = torch.tensor([[[False, False], [False, True]]])
    across = torch.tensor([[[False, False], [True, False]]])  # the fastest column frequency, row frequency 0
    for loss, removed, value in (
        (Loss(kind="frequency"), lowest, 2.0),
        (Loss(kind="frequency"), across, 1.0),
        (Loss(kind="frequency"), ~lowest, 4 / 3),
        (Loss(kind="frequency", gamma=2.0), ~lowest, 2.0),
        (Loss(kind="frequency", scope="full"), None, 1.5),
    ):
        assert prediction_loss(loss, prediction, target, removed).item() == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("gamma", [1.0, 2.0, 0.5])
def test_frequency_loss_against_numpy(gamma: float) -> None:
    prediction, target = torch.randn(2, 3, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    removed = torch.rand(3, 8, 6, generator=torch.Generator().manual_seed(1)) < 0.4
    spectra = [np.fft.fftshift(np.fft.fft2(x.double().numpy(), norm="ortho"), (-2, -1)) for x in (prediction, target)]
    errors = np.abs(spectra[0] - spectra[1]) ** gamma
    where = removed.numpy()
    wanted = errors.transpose(0, 2, 3, 1)[where].sum() / where.sum() / 3
    found = prediction_loss(Loss(kind="frequency", gamma=gamma), prediction, target, removed).item()
    assert found == pytest.approx(wanted, rel=1e-4)


def test_equal_spectra_have_a_finite_gradient() -> None:
    prediction = torch.zeros(1, 1, 4, 4, requires_grad=True)
    prediction_loss(Loss(kind="frequency", scope="full"), prediction, torch.zeros(1, 1, 4, 4)).backward()
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()


def test_eps_of_the_denominator() -> None:
    nothing = torch.zeros_like(HIDDEN)
    assert prediction_loss(Loss(), PREDICTION, TARGET, nothing).item() == 0.0


def test_masked_loss_needs_a_mask() -> None:
    with pytest.raises(ValueError, match="needs the mask"):
        prediction_loss(Loss(scope="masked"), PREDICTION, TARGET, None)


def test_visible_pixels_do_not_enter_the_masked_loss() -> None:
    other = PREDICTION.clone()
    other[0, :, :, 1] += 100
    assert prediction_loss(Loss(), other, TARGET, HIDDEN) == prediction_loss(Loss(), PREDICTION, TARGET, HIDDEN)


def test_each_hidden_pixel_counts_alike_where_images_hide_different_numbers() -> None:
    hidden = torch.tensor([[[True, False], [True, False]], [[True, True], [True, True]], [[False] * 2] * 2])
    errors = torch.tensor([1.0, 4.0, 9.0])[:, None, None, None].expand(3, 2, 2, 2)
    found = prediction_loss(Loss(), errors, torch.zeros_like(errors), hidden).item()
    assert found == pytest.approx((2 * 1.0 + 4 * 4.0 + 0 * 9.0) / 6, rel=1e-5)  # two, four and no hidden pixels


def test_what_a_loss_is_a_mean_over() -> None:
    """Hidden units, or all of them; other losses of a run are means over images."""
    hidden = torch.tensor([[[True, False], [True, False]], [[True, True], [True, False]]])
    assert loss_weight(Loss(scope="masked"), hidden).item() == 5
    assert loss_weight(Loss(scope="full"), hidden).item() == 8
    for scope, first in (("masked", 5.0), ("full", 8.0)):
        run = pretrain(loss=Loss(scope=scope), fourier=FourierLoss())  # type: ignore[arg-type]
        assert loss_denominators(run, hidden) == {"prediction": first, "fourier": 2.0}
        assert loss_denominators(run.replace(fourier=None), hidden) == {"prediction": first}


# Two maps (channels of bins) of three classes: map 0 is channels 0-2 of the prediction, map 1 is channels 3-5.
LOGITS = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 3.0], [0.0, 0.0], [1.0, 0.0]]).view(1, 6, 1, 2)
CLASSES = torch.tensor([[0, 2], [2, 0]]).view(1, 2, 1, 2)


def entropy(logits: tuple[float, ...], wanted: int) -> float:
    return math.log(sum(math.exp(value) for value in logits)) - logits[wanted]


def test_cross_entropy_by_hand() -> None:
    """The mean over hidden places of the mean over maps."""
    first = entropy((2, 0, 0), 0) + entropy((0, 0, 1), 2)
    second = entropy((0, 0, 1), 2) + entropy((3, 0, 0), 0)
    hidden = torch.tensor([[[True, False]]])
    loss = Loss(kind="cross-entropy")
    assert prediction_loss(loss, LOGITS, CLASSES, hidden).item() == pytest.approx(first / 2, rel=1e-4)
    full = loss.replace(scope="full")
    assert prediction_loss(full, LOGITS, CLASSES).item() == pytest.approx((first + second) / 2 / 2, rel=1e-4)


def test_cross_entropy_of_even_odds_is_the_log_of_the_classes() -> None:
    hidden = torch.ones(1, 1, 2, dtype=torch.bool)
    found = prediction_loss(Loss(kind="cross-entropy"), torch.zeros(1, 6, 1, 2), CLASSES, hidden)
    assert found.item() == pytest.approx(math.log(3), rel=1e-4)


def test_model_loss_by_hand() -> None:
    """A model whose head predicts a constant: the loss is the mean distance of the hidden pixels from it."""
    run = pretrain(mask=RandomMask(size=16, ratio=0.5))
    model: Any = MaskedImageModel(run, channels=3)
    head = model.head[0]
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.constant_(head.bias, 0.25)
    images = torch.zeros(1, 3, 32, 32)
    images[:, 0, :16, :16] = 1.0  # hidden: first unit, |0.25 - 1| in one channel, 0.25 in the two others
    images[:, 1, :16, 16:] = 3.0  # visible: must not count
    units = torch.tensor([[[True, False], [True, False]]])
    loss = total(model(images, units)[1])
    by_hand = (256 * 0.75 + 256 * 0.25 * 2 + 256 * 0.25 * 3) / 512 / 3
    assert loss.item() == pytest.approx(by_hand, rel=1e-5)


def test_pixel_shuffle_order_of_the_head() -> None:
    """Output channel c at offset (i, j) of a token is input channel c * s * s + i * s + j (SimMIM section 3.3)."""
    run = pretrain(backbone=Backbone(name=VIT.name, args=VIT.args, patch_size=8), mask=RandomMask(size=8, ratio=0.5))
    head: Any = MaskedImageModel(run, channels=3).head
    torch.nn.init.zeros_(head[0].weight)
    head[0].bias.data = torch.arange(3 * 8 * 8.0)
    out = head(torch.zeros(1, 32, 4, 4))
    assert out.shape == (1, 3, 32, 32)
    assert out[0, 2, 8 + 5, 16 + 3].item() == 2 * 64 + 5 * 8 + 3
