"""Masked-image-modelling pre-training, from spec to weights."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from harness.core.batches import Batch, steps_per_epoch, training_batches
from harness.core.batchnorm import group_batch_norms
from harness.core.checkpoint import weights_of, write_snapshot
from harness.core.datasets import load
from harness.core.drop_path import key_drop_paths
from harness.core.loop import train
from harness.core.losses import loss_weight
from harness.core.masking import make_mask
from harness.core.mim import MaskedImageModel
from harness.core.optimiser import parameter_groups
from harness.core.precision import require
from harness.core.reconstruct import write_reconstructions
from harness.core.session import Diverged, Session
from harness.core.start import load_pretraining_start
from harness.spec import CustomHead, PixelTarget, Pretrain

COLLAPSED = 1e-3
"""Predicted pixels whose standard deviation is below this, in units of the data set's, show one colour everywhere."""


def pretrain(run: Pretrain, session: Session) -> None:
    """Pre-train, show reconstructions of test images, publish the weights.

    Raises:
        Diverged: the loss is not finite, or in the second half of training the predictions are one flat colour.
    """
    device = session.device
    require(run.recipe, device)
    images = load(run.data, "pretrain").to(device)
    per_epoch = steps_per_epoch(images, run.recipe.batch_size)
    steps = run.recipe.epochs * per_epoch
    model = MaskedImageModel(run, images.channels)
    if run.start is not None:
        load_pretraining_start(run.start, model)
    model = model.to(device).train()
    place = key_drop_paths(model, run.seed)
    group_batch_norms(model, run.recipe, session, place)
    replica = session.group.replicate(model, may_skip=isinstance(run.head, CustomHead))

    def batches(first: int) -> Iterator[Batch]:
        return training_batches(
            images,
            run.recipe.augment,
            image_size=run.image_size,
            batch_size=run.recipe.batch_size,
            seed=run.seed,
            first_step=first,
            steps=steps,
            device=device,
            workers=session.workers,
            rows=session.group.rows(run.recipe.batch_size),
        )

    def hidden(batch: Batch) -> Tensor:
        return make_mask(
            run.mask,
            image_size=run.image_size,
            seed=run.seed,
            step=batch.step,
            steps=steps,
            positions=batch.positions,
        )

    contrast = torch.zeros((), device=device)

    def loss_of(batch: Batch) -> Tensor:
        place.step, place.positions = batch.step, batch.positions
        prediction: Tensor
        loss: Tensor
        prediction, loss = replica(batch.images, hidden(batch))
        contrast.copy_(prediction.detach().float().std())
        return loss

    for line in train(
        session,
        seed=run.seed,
        model=replica,
        groups=parameter_groups(model.named_parameters(), run.recipe),
        recipe=run.recipe,
        steps_per_epoch=per_epoch,
        batches=batches,
        loss_of=loss_of,
        weight_of=lambda batch: loss_weight(run.loss, hidden(batch)),
    ):
        line["contrast"] = session.group.mean(contrast).item()
        if isinstance(run.target, PixelTarget) and line["step"] * 2 > steps and line["contrast"] < COLLAPSED:
            raise Diverged(
                f"the predictions collapsed to one colour (sd {line['contrast']:.1e}) at step {line['step']}"
            )
        write_snapshot(model, line["epoch"], session)

    write_reconstructions(run, model.eval(), session)
    last = session.attempt.lines()[-1]
    session.attempt.finish({"loss": last["loss"]}, last["seconds"], weights_of(model))
