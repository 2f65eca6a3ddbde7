"""Fine-tuning all weights on labels."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor

from harness.core.batches import Batch, steps_per_epoch
from harness.core.batchnorm import group_batch_norms
from harness.core.checkpoint import weights_of
from harness.core.datasets import load
from harness.core.drop_path import key_drop_paths
from harness.core.labelled import accuracy, labelled_batches, measured_after, summary
from harness.core.loop import train
from harness.core.optimiser import layer_scales, parameter_groups
from harness.core.precision import require
from harness.core.session import Session
from harness.core.start import classifier
from harness.spec import FineTune


def finetune(run: FineTune, session: Session) -> None:
    """Fine-tune and publish the accuracy after the last epoch."""
    device, recipe = session.device, run.recipe
    require(recipe, device)
    images, test = load(run.data, "train").to(device), load(run.data, "test").to(device)
    model = classifier(run, session, channels=images.channels, num_classes=images.num_classes).to(device).train()
    scales = layer_scales(model, recipe.layer_decay)
    place = key_drop_paths(model, run.seed)
    group_batch_norms(model, recipe, session, place)
    replica = session.group.replicate(model)

    def loss_of(batch: Batch) -> Tensor:
        place.step, place.positions = batch.step, batch.positions
        return F.cross_entropy(replica(batch.images).float(), batch.labels)

    for line in train(
        session,
        seed=run.seed,
        model=replica,
        groups=parameter_groups(model.named_parameters(), recipe, scales),
        recipe=recipe,
        steps_per_epoch=steps_per_epoch(images, recipe.batch_size),
        batches=partial(labelled_batches, run, images, session),
        loss_of=loss_of,
    ):
        if measured_after(run, line["epoch"]):
            found = accuracy(run, test, model.eval(), session)
            line |= {f"test_{name}": value for name, value in found.items()}
            model.train()

    lines = session.attempt.lines()
    session.attempt.finish(summary(lines), lines[-1]["seconds"], weights_of(model))
