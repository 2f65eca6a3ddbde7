"""Fine-tuning of all weights on labels."""

from __future__ import annotations

from functools import partial
from typing import assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.core.data.batches import Batch, steps_per_epoch
from harness.core.data.datasets import load
from harness.core.evaluate.labelled import accuracy, labelled_batches, summary
from harness.core.evaluate.start import classifier
from harness.core.evaluate.tested_training import train_and_test
from harness.core.model.batchnorm import group_batch_norms
from harness.core.model.checkpointing import checkpoint_blocks
from harness.core.model.memory_format import to_device
from harness.core.runtime.average import Averaged
from harness.core.runtime.drop_path import key_drop_paths
from harness.core.runtime.precision import require
from harness.core.runtime.session import Computation, Session
from harness.core.train.optimiser import layer_scales, parameter_groups
from harness.core.train.training import Training, Update
from harness.core.weights.checkpoint import weights_of
from harness.spec import CustomBackbone, FineTune, HarnessError


def finetune(run: FineTune, session: Session) -> Computation:
    """Fine-tune and publish the accuracy after the last epoch. Hands over before each metrics line is read."""
    device, recipe = session.device, run.recipe
    require(recipe, device)
    images, test = load(run.data, "train").to(device), load(run.data, "test").to(device)
    model = classifier(run, session, channels=images.channels, num_classes=images.num_classes)
    model = to_device(model, device).train()
    scales = layer_scales(model, recipe.layer_decay)
    # Copied before drop paths and batch norms are replaced: the average is tested with timm's own layers.
    averaged = Averaged(model) if recipe.average else None
    place = key_drop_paths(model, run.seed, recipe.batch_size)
    group_batch_norms(model, recipe, session, place)
    if session.recompute:
        checkpoint_blocks(model)
    # The average is a part of the trained module, so that checkpoints hold it too.
    replica = session.group.replicate(averaged or model, may_skip=isinstance(run.built, CustomBackbone))
    per_epoch = steps_per_epoch(images, recipe.batch_size)
    tested = averaged.average if averaged else model
    _check_test_size(run, tested, images.channels, device)

    groups = parameter_groups(model.named_parameters(), recipe, scales)
    training = Training(
        session,
        recipe,
        replica,
        seed=run.seed,
        groups=groups,
        steps_per_epoch=per_epoch,
        place=place,
        schedules={"average": partial(recipe.average.decay_at, steps_per_epoch=per_epoch)} if recipe.average else None,
    )

    forward = session.compiled(replica)

    def learn(update: Update[Batch]) -> None:
        for part in update.parts:
            with part.forward():
                loss = classification_loss(run, forward(part.batch.images).float(), part.batch.labels)
            part.backward({"classification": loss})
        update.apply()
        if averaged:  # after the weights: it averages the new ones
            averaged.follow(update.rate("average"))

    yield from train_and_test(
        training,
        partial(labelled_batches, run, images, session),
        learn,
        model=tested,
        test=partial(accuracy, run, test, tested, session),
        tested_epochs=run.tested_epochs,
    )
    lines = session.attempt.lines()
    session.attempt.finish(summary(lines), lines[-1]["seconds"], weights_of(tested))


def classification_loss(run: FineTune, logits: Tensor, labels: Tensor) -> Tensor:
    """Classification loss of logits [B, K] and soft targets float32 [B, K], mixed and smoothed or not; a scalar."""
    match run.loss:
        case "cross-entropy":
            return F.cross_entropy(logits, labels)
        case "binary-cross-entropy":
            if run.label_threshold is not None:
                # As timm's BinaryCrossEntropy: whatever is mixed in above the threshold counts as fully present.
                labels = (labels > run.label_threshold).to(labels.dtype)
            return F.binary_cross_entropy_with_logits(logits, labels)
        case _:
            assert_never(run.loss)


@torch.no_grad()
def _check_test_size(run: FineTune, model: torch.nn.Module, channels: int, device: torch.device) -> None:
    """Refuse a test size at which the model does not compute.

    Raises:
        HarnessError: it fails on a blank image of this size.
    """
    # Before training, as a model of fixed size would otherwise fail at its first test, an epoch later.
    if run.test_size is None:
        return
    try:
        model.eval()(torch.zeros(1, channels, run.test_size, run.test_size, device=device))
    except torch.OutOfMemoryError:
        raise
    except (AssertionError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise HarnessError(
            f"{run.built.name} cannot be tested at {run.test_size} px ({reason}); valid test_size: {run.image_size}"
        ) from None
    model.train()
