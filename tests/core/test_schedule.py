"""Learning rates at single steps, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from harness.core.runtime.precision import require
from harness.core.train.optimiser import learning_rate
from harness.spec import Cosine, HarnessError, MultiStep, Poly, Recipe

# SimMIM's ablation: Swin-B, 100 epochs, batch 2048, base lr 2e-4 for 512 images
SIMMIM = Recipe(
    epochs=100,
    batch_size=2048,
    lr=2e-4,
    warmup_epochs=10,
    warmup_lr=1e-6,
    schedule=Cosine(min_lr=1e-5),
)
STEPS = 625


def test_scaled_with_the_batch() -> None:
    assert SIMMIM.scaled(SIMMIM.lr) == pytest.approx(8e-4)
    assert SIMMIM.replace(lr_batch=None).scaled(2e-4) == 2e-4


def test_warm_up_is_linear() -> None:
    assert learning_rate(SIMMIM, 0, STEPS) == pytest.approx(4e-6)
    assert learning_rate(SIMMIM, 5 * STEPS, STEPS) == pytest.approx((4e-6 + 8e-4) / 2)


def test_cosine_counted_from_the_start_is_below_its_peak_after_warm_up() -> None:
    """x 0.9755 for 10 of 100 epochs (SimMIM section 2.4)."""
    found = learning_rate(SIMMIM, 10 * STEPS, STEPS)
    assert (found - 4e-5) / (8e-4 - 4e-5) == pytest.approx(0.9755, abs=5e-5)
    late = SIMMIM.replace(warmup_epochs=20)
    assert (learning_rate(late, 20 * STEPS, STEPS) - 4e-5) / (8e-4 - 4e-5) == pytest.approx(0.9045, abs=5e-5)


def test_cosine_counted_from_warm_up_begins_at_the_peak() -> None:
    recipe = SIMMIM.replace(schedule=Cosine(min_lr=1e-5, counted_from="warm-up"))
    assert learning_rate(recipe, 10 * STEPS, STEPS) == pytest.approx(8e-4)
    assert learning_rate(recipe, 55 * STEPS, STEPS) == pytest.approx((8e-4 + 4e-5) / 2)


def test_cosine_ends_at_the_floor() -> None:
    last = learning_rate(SIMMIM, 100 * STEPS - 1, STEPS)
    by_hand = 4e-5 + 0.5 * (8e-4 - 4e-5) * (1 + math.cos(math.pi * (62_499 / 62_500)))
    assert last == pytest.approx(by_hand, rel=1e-12)


def test_multistep() -> None:
    recipe = Recipe(epochs=800, batch_size=2048, lr=1e-4, schedule=MultiStep(milestones=(700,)))
    assert learning_rate(recipe, 700 * STEPS - 1, STEPS) == pytest.approx(4e-4)
    assert learning_rate(recipe, 700 * STEPS, STEPS) == pytest.approx(4e-5)


def test_milestones_in_steps() -> None:
    recipe = Recipe(
        steps=100, batch_size=8, lr=1e-3, lr_batch=None, schedule=MultiStep(milestones=(89, 96), unit="steps")
    )
    assert [learning_rate(recipe, step, STEPS) for step in (88, 89, 96)] == pytest.approx([1e-3, 1e-4, 1e-5])


def test_poly() -> None:
    """mmsegmentation's UPerNet of MAE: 160,000 steps, linear to 0; A2MIM's FCN: power 0.9 down to 1e-4."""
    mae = Recipe(
        steps=160_000, warmup_steps=1500, warmup_lr=1e-10, batch_size=16, lr=1e-4, lr_batch=None, schedule=Poly()
    )
    assert learning_rate(mae, 0, STEPS) == pytest.approx(1e-10)
    assert learning_rate(mae, 750, STEPS) == pytest.approx(0.5e-4, rel=1e-5)
    assert learning_rate(mae, 1500, STEPS) == pytest.approx(1e-4 * (1 - 1500 / 160_000), rel=1e-12)
    assert learning_rate(mae, 120_000, STEPS, 0.1) == pytest.approx(0.25e-5, rel=1e-12)
    later = mae.replace(schedule=Poly(counted_from="warm-up"))
    assert learning_rate(later, 1500, STEPS) == pytest.approx(1e-4, rel=1e-12)
    assert learning_rate(later, 80_750, STEPS) == pytest.approx(0.5e-4, rel=1e-12)
    fcn = Recipe(steps=1000, batch_size=16, lr=1e-2, lr_batch=None, schedule=Poly(power=0.9, min_lr=1e-4))
    assert learning_rate(fcn, 0, STEPS) == pytest.approx(1e-2)
    assert learning_rate(fcn, 500, STEPS) == pytest.approx(1e-4 + (1e-2 - 1e-4) * 0.5**0.9, rel=1e-12)
    assert learning_rate(fcn, 1000, STEPS) == pytest.approx(1e-4)


def test_a_length_in_steps_is_one_in_epochs_of_as_many() -> None:
    """10 epochs of 625 steps, the first of them a warm-up."""
    epochs = SIMMIM.replace(epochs=10, warmup_epochs=1)
    steps = SIMMIM.replace(steps=6250, warmup_steps=625)
    assert (steps.epochs, steps.warmup_epochs, epochs.total_steps(STEPS)) == (0, 0, steps.total_steps(3))
    assert all(learning_rate(epochs, step, STEPS) == learning_rate(steps, step, STEPS) for step in range(0, 6250, 50))
    assert steps.replace(epochs=10, warmup_epochs=1) == epochs


def test_layer_scale_multiplies_the_peak_only() -> None:
    """Floor and warm-up start are absolute, as in the released code."""
    assert learning_rate(SIMMIM, 0, STEPS, 0.1) == pytest.approx(4e-6)
    assert learning_rate(SIMMIM, 5 * STEPS, STEPS, 0.1) == pytest.approx((4e-6 + 8e-5) / 2)
    assert learning_rate(SIMMIM, 100 * STEPS, STEPS, 0.1) == pytest.approx(4e-5)


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
def test_precision_that_the_device_lacks_is_refused(precision: str) -> None:
    with pytest.raises(HarnessError, match=f"precision {precision} needs a GPU"):
        require(SIMMIM.replace(precision=precision), torch.device("cpu"))
