"""Masked-image-modelling pre-training, from spec to weights."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from harness.core.data.batches import Batch, in_pairs, steps_per_epoch, training_batches
from harness.core.data.datasets import load
from harness.core.evaluate.start import load_pretraining_start
from harness.core.masks.masking import in_views, make_views, spread
from harness.core.model.batchnorm import group_batch_norms
from harness.core.model.memory_format import placed
from harness.core.objective.contrastive import SECOND, has_second_crop, pairs_of, require_whole_batch
from harness.core.objective.fourier import GradientRatio, require_whole_groups
from harness.core.objective.losses import loss_weights
from harness.core.pretrain.mim import MaskedImageModel
from harness.core.pretrain.momentum import momentum_at
from harness.core.pretrain.reconstruct import write_reconstructions
from harness.core.runtime.drop_path import key_drop_paths
from harness.core.runtime.precision import require
from harness.core.runtime.session import Diverged, Session
from harness.core.train.loop import is_logged, train
from harness.core.train.optimiser import parameter_groups
from harness.core.weights.checkpoint import weights_of, write_snapshot
from harness.spec import CustomHead, PixelTarget, Pretrain, seed_stream

COLLAPSED = 1e-3
"""Predicted pixels whose standard deviation is below this, in units of the data set's, show one colour everywhere."""


def pretrain(run: Pretrain, session: Session) -> None:
    """Pre-train, show reconstructions of test images, publish the weights.

    Raises:
        Diverged: the loss is not finite, or in the second half of training the predictions are one flat colour.
        HarnessError: the device lacks the precision, or processes and micro-batches cut a group of images apart.
    """
    device = session.device
    require(run.recipe, device)
    require_whole_groups(run, session)
    require_whole_batch(run, session)
    images = load(run.data, "pretrain").to(device)
    per_epoch = steps_per_epoch(images, run.recipe.batch_size)
    steps, twice = run.recipe.epochs * per_epoch, has_second_crop(run.contrastive)
    model = MaskedImageModel(run, images.channels)
    if run.start is not None:
        load_pretraining_start(run.start, model)
        if model.momentum is not None:
            model.momentum.restart(model)
    model = placed(model, device).train()
    place = model.place = key_drop_paths(model, run.seed)
    model.processes = session.group
    swaps = run.contrastive is not None and run.contrastive.crops == "swapped"
    group_batch_norms(model, run.recipe, session, place, repeated=swaps)
    replica = session.group.replicate(model, may_skip=isinstance(run.head, CustomHead))

    def crops(first: int, purpose: str | None = None) -> Iterator[Batch]:
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
            crop_seed=None if purpose is None else seed_stream(run.seed, purpose),
        )

    def batches(first: int) -> Iterator[Batch]:
        return crops(first) if not twice else in_pairs(crops(first), crops(first, SECOND))

    def hidden(batch: Batch) -> Tensor:
        seen = batch.images[:, 0] if twice else batch.images
        return make_views(
            run.mask,
            scores=model.scores(seen),
            image_size=run.image_size,
            seed=run.seed,
            step=batch.step,
            steps=steps,
            positions=batch.positions,
        )

    contrast, apart = torch.zeros(2, device=device)
    ratio = GradientRatio(run)

    def loss_of(batch: Batch) -> Tensor:
        place.step, place.positions = batch.step, batch.positions
        prediction: Tensor
        loss: Tensor
        first, second = batch.images.unbind(1) if twice else (batch.images, None)
        units, shown = hidden(batch), in_views(run.mask, first)
        pairs = pairs_of(run, second, step=batch.step, steps=steps, positions=batch.positions, look=model.scores)
        prediction, loss = replica(shown, units, pairs)
        if pairs is not None:
            apart.copy_(loss[1 if run.fourier is None else 2].detach())
        contrast.copy_(prediction.detach().float().std())
        if run.fourier is not None and is_logged(batch.step + 1, per_epoch):
            target = model.targets(shown)
            ratio.add(prediction, target, spread(units, target.shape[-1]), units)
        return loss

    def follow(step: int) -> None:
        if model.momentum is not None:
            model.momentum.follow(model, step, steps, per_epoch)

    for line in train(
        session,
        seed=run.seed,
        model=replica,
        groups=parameter_groups(model.named_parameters(), run.recipe),
        recipe=run.recipe,
        steps_per_epoch=per_epoch,
        batches=batches,
        loss_of=loss_of,
        weight_of=lambda batch: loss_weights(run, hidden(batch)),
        after_step=follow,
    ):
        if run.momentum is not None:
            line["momentum"] = momentum_at(run.momentum, line["step"] - 1, steps, per_epoch)
        line["contrast"] = session.group.mean(contrast).item()
        if run.contrastive is not None:
            line["contrastive"] = session.group.mean(apart).item()
        if run.fourier is not None:
            line["fourier_ratio"] = ratio.settle(session.group)
        if isinstance(run.target, PixelTarget) and line["step"] * 2 > steps and line["contrast"] < COLLAPSED:
            raise Diverged(
                f"the predictions collapsed to one colour (sd {line['contrast']:.1e}) at step {line['step']}"
            )
        write_snapshot(model, line["epoch"], session)

    write_reconstructions(run, model.eval(), session)
    last = session.attempt.lines()[-1]
    session.attempt.finish({"loss": last["loss"]}, last["seconds"], weights_of(model))
