"""Logistic regression on frozen features: a probe without learning rate, seed or schedule."""

from __future__ import annotations

import time

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from harness.core.data.datasets import load
from harness.core.evaluate.features import all_features
from harness.core.evaluate.labelled import accuracies, sums_of
from harness.core.evaluate.start import frozen_encoder
from harness.core.runtime.session import Session
from harness.spec import HarnessError, LogisticProbe

Vector = NDArray[np.float64]

GRADIENT = 1e-8
"""Largest entry of the gradient of the mean loss at which the optimum counts as reached."""

ITERATIONS = 10_000
NEWTON_STEPS = 3
"""Most steps of Newton's method after L-BFGS, which compares values of the loss and so ends where they round off."""


def logistic_probe(run: LogisticProbe, session: Session) -> None:
    """Fit a logistic regression to features of the training images, and publish its accuracy on the test images.

    Raises:
        HarnessError: the optimum was not reached.
    """
    begun = time.monotonic()
    session.attempt.begin_metrics()
    train, test = (load(run.data, part).to(session.device) for part in ("train", "test"))
    encoder = frozen_encoder(run, session, channels=train.channels)
    features = all_features(run, "train", train, encoder, session)
    queries = all_features(run, "test", test, encoder, session)
    labels, answers = (part.labels.to(session.device) for part in (train, test))

    def evaluate() -> dict[str, float]:
        known, asked = standardised(features, queries)
        weights, bias = fit_logistic(known, labels, num_classes=train.num_classes, c=run.c)
        return accuracies(sums_of(asked @ weights.T + bias, answers) / len(answers))

    # All processes hold all features; the fit is one computation, which rank 0 makes.
    session.attempt.finish(session.group.lead(evaluate), time.monotonic() - begun)


def standardised(known: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets of features in float64, standardised by the mean and the standard deviation of the first.

    Features that do not vary in the first set are only shifted.

    Args:
        known: [N, C], of the training images. other: [M, C], of the test images.
    """
    known, other = known.double(), other.double()
    mean, deviation = known.mean(dim=0), known.std(dim=0, correction=0)
    scale = torch.where(deviation > 0, deviation, 1.0)
    return (known - mean) / scale, (other - mean) / scale


def fit_logistic(features: Tensor, labels: Tensor, *, num_classes: int, c: float) -> tuple[Tensor, Tensor]:
    """Weights [K, C] and bias [K] that minimise c * (sum of cross-entropies) + |weights|^2 / 2.

    By L-BFGS in float64, and Newton's method for the last digits. Only differences between biases matter; their sum is
    0, as that of scikit-learn's.

    Args:
        features: float64 [N, C]. labels: int64 [N], below `num_classes`, which is K.
        c: inverse strength of the penalty, as in scikit-learn: a larger one fits the training images more closely.

    Raises:
        HarnessError: the gradient did not vanish within ITERATIONS.
    """
    from scipy.optimize import minimize  # here, as every other run would load it in vain

    problem = _Problem(features, labels, num_classes, c)
    start = np.zeros(num_classes * (features.shape[1] + 1))
    # scipy's own criteria are too tight for rounding to meet them early; the check of the gradient below decides.
    options = {"maxiter": ITERATIONS, "maxfun": 2 * ITERATIONS, "ftol": 0.0, "gtol": GRADIENT / 100, "maxcor": 20}
    found = minimize(problem.mean_loss, start, method="L-BFGS-B", jac=True, options=options)
    best, steps = found.x, 0
    while (steepest := float(np.abs(problem.mean_loss(best)[1]).max())) > GRADIENT and steps < NEWTON_STEPS:
        best, steps = best - problem.newton_step(best), steps + 1
    if steepest > GRADIENT:
        raise HarnessError(
            f"logistic regression did not reach its optimum in {found.nit} iterations (gradient {steepest:.1e}); "
            "a smaller c makes it easier"
        )
    weights, bias = problem.split(best)
    return weights, bias - bias.mean()


class _Problem:
    """Mean loss of a logistic regression and its derivatives, of weights and bias in one array: float64 [K (C + 1)].

    All are divided by c * N, so that the gradient does not grow with the number of images.
    """

    def __init__(self, features: Tensor, labels: Tensor, num_classes: int, c: float) -> None:
        self._features, self._labels, self._strength = features, labels, c * len(labels)
        self._wanted = F.one_hot(labels, num_classes).double()

    def split(self, flat: Vector) -> tuple[Tensor, Tensor]:
        """Weights [K, C] and bias [K], on the device of the features."""
        both = torch.from_numpy(flat).to(self._features.device).view(self._wanted.shape[1], -1)
        return both[:, :-1], both[:, -1]

    def mean_loss(self, flat: Vector) -> tuple[float, Vector]:
        """The loss and its gradient."""
        weights, bias = self.split(flat)
        logits = self._features @ weights.T + bias
        loss = F.cross_entropy(logits, self._labels) + weights.square().sum() / (2 * self._strength)
        # Derivative of a cross-entropy by its logits: probabilities minus one-hot labels.
        return loss.item(), self._by_weights(logits.softmax(dim=1) - self._wanted, weights)

    def newton_step(self, flat: Vector) -> Vector:
        """What to subtract by Newton's method: the inverse of the second derivative, times the gradient."""
        from scipy.sparse.linalg import LinearOperator, cg

        weights, bias = self.split(flat)
        likely = (self._features @ weights.T + bias).softmax(dim=1)

        def curved(direction: Vector) -> Vector:
            """The second derivative, times a direction."""
            weights, bias = self.split(direction)
            change = self._features @ weights.T + bias
            return self._by_weights(likely * (change - (likely * change).sum(dim=1, keepdim=True)), weights)

        step: Vector = cg(LinearOperator((flat.size, flat.size), curved, dtype=np.float64), self.mean_loss(flat)[1])[0]
        return step

    def _by_weights(self, excess: Tensor, weights: Tensor) -> Vector:
        """Derivative by weights and bias; excess: of the sum of the cross-entropies by the logits, [N, K]."""
        excess = excess / len(excess)
        slope = torch.cat([excess.T @ self._features + weights / self._strength, excess.sum(dim=0)[:, None]], dim=1)
        return slope.flatten().cpu().numpy()
