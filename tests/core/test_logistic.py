"""Logistic regression on frozen features, against scikit-learn's solution and arithmetic by hand."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from harness.core.evaluate import logistic
from harness.core.evaluate.logistic import fit_logistic, standardised
from harness.spec import HarnessError, Knn, LogisticProbe, Scratch, key
from harness.spec.data.datasets import Shapes
from harness.spec.model.backbone import Backbone


@pytest.mark.parametrize("seed", range(10))
def test_the_solution_is_that_of_scikit_learn(seed: int) -> None:
    draw = np.random.default_rng(seed)
    count, width, classes, c = (
        draw.integers(40, 300),
        draw.integers(2, 20),
        draw.integers(2, 7),
        10 ** draw.uniform(-2, 2),
    )
    centres = draw.normal(size=(classes, width))
    labels = np.concatenate([np.arange(classes), draw.integers(0, classes, count - classes)])
    features = centres[labels] + draw.normal(size=(count, width))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn deprecates an argument now and then
        theirs = LogisticRegression(C=c, tol=1e-12, max_iter=100_000, solver="newton-cg").fit(features, labels)
    weights, bias = fit_logistic(torch.from_numpy(features), torch.from_numpy(labels), num_classes=int(classes), c=c)
    if classes == 2:  # scikit-learn keeps one row, the difference of both classes, and penalises it as one
        their_logits = features @ theirs.coef_.T + theirs.intercept_
        # Two rows with w, -w and penalty |w|^2 equal one row 2 w with |2 w|^2 / 2 at half the strength.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again = LogisticRegression(C=2 * c, tol=1e-12, max_iter=100_000, solver="newton-cg").fit(features, labels)
        their_logits = features @ again.coef_.T + again.intercept_
        ours = torch.from_numpy(features) @ (weights[1] - weights[0]) + bias[1] - bias[0]
        assert np.abs(ours.numpy() - their_logits[:, 0]).max() < 1e-4
    else:
        assert np.abs(weights.numpy() - theirs.coef_).max() < 1e-4
        assert np.abs(bias.numpy() - (theirs.intercept_ - theirs.intercept_.mean())).max() < 1e-4


def test_bias_alone_gives_the_frequencies_of_the_classes() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    weights, bias = fit_logistic(torch.zeros(10, 2, dtype=torch.float64), labels, num_classes=3, c=1.0)
    assert weights.abs().max() < 1e-6
    assert (bias - bias[2]).tolist() == pytest.approx([math.log(6), math.log(3), 0], abs=1e-3)


def test_standardised_by_hand() -> None:
    known, other = standardised(torch.tensor([[0.0, 7.0], [4.0, 7.0]]), torch.tensor([[8.0, 8.0]]))
    assert known.tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    assert other.tolist() == [[3.0, 1.0]]
    assert known.dtype == other.dtype == torch.float64


@pytest.mark.parametrize(("c", "decay"), [(0.01, 0.0), (100.0, 3.0)])
def test_the_optimum_is_reached_where_values_of_the_loss_round_off(c: float, decay: float) -> None:
    """L-BFGS alone ended at gradients of 1.4e-8 and more in one of these 40 problems in ten."""
    for seed in range(20):
        draw = np.random.default_rng(seed)
        scales = np.exp(-decay * np.arange(32) / 8)
        known = torch.from_numpy(draw.normal(size=(64, 32)) * scales @ draw.normal(size=(32, 32)))
        labels, (features, _) = torch.from_numpy(draw.integers(0, 6, 64)), standardised(known, known)
        weights, bias = (part.clone().requires_grad_() for part in fit_logistic(features, labels, num_classes=6, c=c))
        loss = torch.nn.functional.cross_entropy(features @ weights.T + bias, labels)
        (loss + weights.square().sum() / (2 * c * 64)).backward()
        assert weights.grad is not None
        assert bias.grad is not None
        assert max(weights.grad.abs().max(), bias.grad.abs().max()) < 1e-8


def test_an_optimum_that_is_not_reached_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "ITERATIONS", 2)
    monkeypatch.setattr(logistic, "NEWTON_STEPS", 0)
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(50, 5, generator=draw, dtype=torch.float64)
    with pytest.raises(HarnessError, match="did not reach its optimum in 2 iterations"):
        fit_logistic(features, torch.arange(50) % 3, num_classes=3, c=100.0)


def test_one_number_of_neighbours_in_a_tuple_has_the_key_of_the_number() -> None:
    start = Scratch(backbone=Backbone(name="vit_tiny_patch16_224", patch_size=4), image_size=16)
    data = Shapes(image_size=16, train=64, test=32)
    assert key(Knn(start=start, data=data, k=(20,))) == key(Knn(start=start, data=data))
    assert key(Knn(start=start, data=data, k=(20, 10))) != key(Knn(start=start, data=data, k=(10, 20)))
    for k in ((), (5, 5)):
        with pytest.raises(ValueError, match="several different ones"):
            Knn(start=start, data=data, k=k)
    with pytest.raises(ValueError, match="greater than 0"):
        LogisticProbe(start=start, data=data, c=0)
