"""Evaluations of frozen features: linear probe, weighted k-nearest neighbours, a user's own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.core.data.augment import seeded, test_batch
from harness.core.data.batches import Batch, as_images, steps_per_epoch
from harness.core.data.datasets import FolderSet, load
from harness.core.evaluate.features import all_features, pooled
from harness.core.evaluate.labelled import (
    TEST_BATCH,
    accuracy,
    labelled_batches,
    summary,
)
from harness.core.evaluate.start import frozen_encoder
from harness.core.evaluate.tested_training import train_and_test
from harness.core.model.batchnorm import group_batch_norms
from harness.core.runtime.custom import call, load_function
from harness.core.runtime.drop_path import Place
from harness.core.runtime.precision import require
from harness.core.runtime.randomness import initialised
from harness.core.runtime.session import Computation, Session
from harness.core.train.optimiser import parameter_groups
from harness.core.train.training import Training, Update
from harness.core.weights.checkpoint import weights_of
from harness.spec import CustomEvaluation, HarnessError, Knn, LinearProbe, seed_stream


def linear_probe(run: LinearProbe, session: Session) -> Computation:
    """Train a linear classifier on frozen features and publish the accuracy after the last epoch.

    A generator, which hands over before each metrics line is read. Features are computed anew in every epoch, as its
    crops are.
    """
    device, recipe = session.device, run.recipe
    require(recipe, device)
    images, test = load(run.data, "train").to(device), load(run.data, "test").to(device)
    encoder = frozen_encoder(run, session, channels=images.channels)
    # One pass over a blank image gives the width of the features, whatever block and pooling.
    blank = torch.zeros(1, images.channels, run.image_size, run.image_size, device=device)
    width = pooled(encoder, blank, run.block, run.pool)
    probe = initialised(run.seed, "classifier", lambda: _probe(width.shape[1], images.num_classes, run.batch_norm))
    # A place of its own: only grouped batch norms read it here, the frozen encoder draws nothing.
    probe, place = probe.to(device).train(), Place()
    group_batch_norms(probe, recipe, session, place)
    replica = session.group.replicate(probe)

    def logits(inputs: Tensor) -> Tensor:
        found: Tensor = probe(pooled(encoder, inputs, run.block, run.pool))
        return found

    training = Training(
        session,
        recipe,
        replica,
        seed=run.seed,
        groups=parameter_groups(probe.named_parameters(), recipe),
        steps_per_epoch=steps_per_epoch(images, recipe.batch_size),
        place=place,
    )

    def learn(update: Update[Batch]) -> None:
        for part in update.parts:
            with part.forward():
                features = pooled(encoder, part.batch.images, run.block, run.pool)
                loss = F.cross_entropy(replica(features).float(), part.batch.labels)
            part.backward({"classification": loss})
        update.apply()

    yield from train_and_test(
        training,
        partial(labelled_batches, run, images, session),
        learn,
        model=probe,
        test=partial(accuracy, run, test, logits, session),
        tested_epochs=run.tested_epochs,
    )
    lines = session.attempt.lines()
    session.attempt.finish(summary(lines), lines[-1]["seconds"], weights_of(probe))


def knn(run: Knn, session: Session) -> None:
    """Publish the weighted k-nearest-neighbour accuracy."""
    begun = time.monotonic()
    session.attempt.begin_metrics()
    train_set, test_set = (load(run.data, part).to(session.device) for part in ("train", "test"))
    encoder = frozen_encoder(run, session, channels=train_set.channels)
    bank = all_features(run, "train", train_set, encoder, session)
    found = all_features(run, "test", test_set, encoder, session)
    bank_labels, labels = (part.labels.to(session.device) for part in (train_set, test_set))
    right, group = torch.zeros(len(run.ks), dtype=torch.float64, device=session.device), session.group
    for part in torch.split(torch.arange(len(found), device=session.device), TEST_BATCH)[group.rank :: group.size]:
        # One similarity serves all k.
        similarity = cosines(found[part], bank)
        for number, k in enumerate(run.ks):
            predicted = vote(
                similarity, bank_labels, num_classes=train_set.num_classes, k=k, temperature=run.temperature
            )
            right[number] += (predicted == labels[part]).sum()
    accuracies = (100 * (group.sum(right) / len(found))).tolist()
    session.attempt.finish(dict(zip(run.metrics, accuracies, strict=True)), time.monotonic() - begun)


def cosines(queries: Tensor, bank: Tensor) -> Tensor:
    """Cosine similarities float [Q, N] of queries [Q, C] and a bank [N, C]."""
    return F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T


def vote(similarity: Tensor, labels: Tensor, *, num_classes: int, k: int, temperature: float) -> Tensor:
    """Predicted class of each query: its k nearest neighbours vote with weight exp(cosine / temperature).

    Of classes with equal votes the first wins. Among equally similar images, torch.topk chooses the k-th.

    Args:
        similarity: float [Q, N], cosines of queries and bank. labels: int64 [N], of the bank.

    Returns:
        int64 [Q].
    """
    values, nearest = similarity.topk(min(k, len(labels)), dim=1)
    votes = torch.zeros(len(similarity), num_classes, device=similarity.device, dtype=values.dtype)
    weights = ((values - values[:, :1]) / temperature).exp()  # by a factor, which changes no vote, at most 1
    return votes.scatter_add_(1, labels[nearest], weights).argmax(dim=1)


def custom_evaluation(run: CustomEvaluation, session: Session) -> None:
    """Publish what a user's own evaluation finds; rank 0 alone calls it.

    Raises:
        HarnessError: it returns no dict of numbers, or not its main metric.
    """
    begun = time.monotonic()
    session.attempt.begin_metrics()
    function = load_function(run.function, run.source)
    sources = [load(run.data, part) for part in ("train", "test")]
    frozen = frozen_encoder(run, session, channels=sources[0].channels)
    mean, std = sources[0].mean, sources[0].std
    crop = 1.0 if isinstance(sources[0], FolderSet) else run.crop  # a folder's images come cropped

    @torch.no_grad()
    def encoder(images: Tensor) -> Tensor:
        inputs = test_batch(images, mean, std, image_size=run.image_size, crop=crop)
        return frozen.features(inputs).float()

    def compute() -> dict[str, float]:
        whole = [
            as_images(source, image_size=run.image_size, crop=run.crop, workers=session.workers).to(session.device)
            for source in sources
        ]
        sets = [(part.images, part.labels) for part in whole]
        if session.device.type == "cuda":  # whose generators `seeded` leaves alone
            torch.cuda.manual_seed(seed_stream(run.seed, "evaluation"))
        with seeded(run.seed, "evaluation", 0):
            found = call(function, run.function, encoder, *sets, **dict(run.params))
        if not isinstance(found, Mapping) or run.metric not in found:
            raise HarnessError(f"{run.function} should return a dict with {run.metric!r}, not {found!r:.80}")
        try:
            return {str(name): float(value) for name, value in found.items()}
        except (TypeError, ValueError):
            raise HarnessError(f"{run.function} should return a dict of numbers, not {found!r:.80}") from None

    # A user's function knows nothing of processes: rank 0 alone calls it.
    metrics = session.group.lead(compute)
    session.attempt.finish(metrics, time.monotonic() - begun)


def _probe(width: int, num_classes: int, batch_norm: bool) -> nn.Sequential:
    # Batch norm without weights, and deviation 0.01, as in the released main_linprobe.py of MAE.
    layers: list[nn.Module] = [nn.BatchNorm1d(width, affine=False, eps=1e-6)] if batch_norm else []
    linear = nn.Linear(width, num_classes)
    nn.init.trunc_normal_(linear.weight, std=0.01)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(*layers, linear)
