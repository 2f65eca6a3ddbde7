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

GRADIENT = 1e-8
"""Largest entry of the gradient of the mean loss at which the optimum counts as reached."""

ITERATIONS = 10_000


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

    By L-BFGS in float64. Only differences between biases matter; their sum is 0, as that of scikit-learn's.

    Args:
        features: float64 [N, C]. labels: int64 [N], below `num_classes`, which is K.
        c: inverse strength of the penalty, as in scikit-learn: a larger one fits the training images more closely.

    Raises:
        HarnessError: the gradient did not vanish within ITERATIONS.
    """
    from scipy.optimize import minimize  # here, as every other run would load it in vain

    count, width = features.shape
    device = features.device

    wanted = F.one_hot(labels, num_classes).double()

    def mean_loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Objective divided by c * N, so that its gradient does not grow with the number of images; its gradient."""
        both = torch.from_numpy(flat).to(device).view(num_classes, width + 1)
        weights, bias = both[:, :width], both[:, width]
        logits = features @ weights.T + bias
        loss = F.cross_entropy(logits, labels) + weights.square().sum() / (2 * c * count)
        # Derivative of the mean cross-entropy by the logits: probabilities minus one-hot labels.
        excess = (logits.softmax(dim=1) - wanted) / count
        slope = torch.cat([excess.T @ features + weights / (c * count), excess.sum(dim=0)[:, None]], dim=1)
        return loss.item(), slope.flatten().cpu().numpy()

    start = np.zeros(num_classes * (width + 1))
    # scipy's own criteria are too tight for rounding to meet them early; the check of the gradient below decides.
    options = {"maxiter": ITERATIONS, "maxfun": 2 * ITERATIONS, "ftol": 0.0, "gtol": GRADIENT / 100, "maxcor": 20}
    found = minimize(mean_loss, start, method="L-BFGS-B", jac=True, options=options)
    if (steepest := float(np.abs(mean_loss(found.x)[1]).max())) > GRADIENT:
        raise HarnessError(
            f"logistic regression did not reach its optimum in {found.nit} iterations (gradient {steepest:.1e}); "
            "a smaller c makes it easier"
        )
    both = torch.from_numpy(found.x).to(device).view(num_classes, width + 1)
    return both[:, :width], both[:, width] - both[:, width].mean()
