"""Masked-image-modelling pre-training, from spec to weights."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from harness.core.data.batches import Batch, steps_per_epoch
from harness.core.data.datasets import load
from harness.core.masks.local import predicted_units
from harness.core.masks.masking import in_views, spread
from harness.core.model.batchnorm import group_batch_norms
from harness.core.model.checkpointing import checkpoint_blocks
from harness.core.model.memory_format import to_device
from harness.core.objective.contrastive import require_whole_batch
from harness.core.objective.fourier import GradientRatio, require_whole_groups
from harness.core.objective.losses import loss_denominators
from harness.core.pretrain.draws import Draws, draw, drawn_batches
from harness.core.pretrain.mim import MaskedImageModel, load_pretraining_start
from harness.core.pretrain.momentum import momentum_at
from harness.core.pretrain.reconstruct import write_reconstructions
from harness.core.runtime.drop_path import Place, key_drop_paths
from harness.core.runtime.precision import autocast, require
from harness.core.runtime.session import Computation, Diverged, Session
from harness.core.train.optimiser import parameter_groups
from harness.core.train.rates import Schedule
from harness.core.train.training import Line, Step, Training, Update
from harness.core.weights.checkpoint import weights_of, write_snapshot
from harness.spec import CustomBackbone, CustomHead, PixelTarget, Pretrain

COLLAPSED = 1e-3
"""Predicted pixels whose standard deviation is below this, in units of the data set's, show one colour everywhere."""


def pretrain(run: Pretrain, session: Session) -> Computation:
    """Pre-train a model, write reconstructions of test images, publish the weights.

    A generator, which hands over before each metrics line is read.

    Raises:
        Diverged: the loss is not finite, or in the second half of training the predictions are one flat colour.
        HarnessError: the device lacks the precision, or processes and micro-batches cut a group of images apart.
    """
    device, recipe = session.device, run.recipe
    require(recipe, device)
    # Refused before any data is read: losses over groups of images that slices or processes would cut apart.
    require_whole_groups(run, session)
    require_whole_batch(run, session)
    images = load(run.data, "pretrain").to(device)
    per_epoch = steps_per_epoch(images, recipe.batch_size)
    model = MaskedImageModel(run, images.channels)
    if run.start is not None:
        load_pretraining_start(run.start, model)
        if model.momentum is not None:
            # Its copies were made before the weights were loaded.
            model.momentum.restart(model)
    model = to_device(model, device).train()
    # Before the batch norms, which read the positions of images from the same place.
    model.place = key_drop_paths(model, run.seed, recipe.batch_size)
    model.processes = session.group
    # Swapped crops pass the encoder twice in a step, for which torch would update running statistics twice.
    swaps = run.contrastive is not None and run.contrastive.crops == "swapped"
    group_batch_norms(model, recipe, session, model.place, repeated=swaps)
    if session.recompute:
        checkpoint_blocks(model)
    # A user's own network may leave parameters unused in a step.
    own = isinstance(run.head, CustomHead) or isinstance(run.backbone, CustomBackbone)
    replica = session.group.replicate(model, may_skip=own)
    groups = parameter_groups(model.named_parameters(), recipe)
    training = Training(
        session,
        recipe,
        replica,
        seed=run.seed,
        groups=groups,
        steps_per_epoch=per_epoch,
        place=model.place,
        schedules=_schedules(run, per_epoch),
    )
    learn = partial(_learn, run, model, session.compiled(replica))

    for step in training.steps(partial(drawn_batches, run, images, session, training.total_steps)):
        seen = step.compute(learn)
        if step.logged:
            yield session.mark()
            line = step.read()
            line |= _measured(run, model, step, seen)
            _check_collapse(run, line)
            write_snapshot(model, line["epoch"], session)

    # Before the weights are published: a run is done once `finish` has written its result.
    write_reconstructions(run, model.eval(), session)
    last = session.attempt.lines()[-1]
    session.attempt.finish({"loss": last["loss"]}, last["seconds"], weights_of(model))


class Seen(NamedTuple):
    """Inputs of a slice of a batch, and its prediction and losses by `MaskedImageModel`, without gradient.

    positions: int64 [B], places of the images in the global batch.
    """

    positions: Tensor
    draws: Draws
    prediction: Tensor
    losses: dict[str, Tensor]


def _learn(run: Pretrain, model: MaskedImageModel, replica: nn.Module, update: Update[Batch]) -> list[Seen]:
    """One step: masks, forward and backward passes, new weights, momentum encoder.

    Returns:
        Inputs and outputs of the last slice; of every slice if the run has a Fourier loss, whose ratio needs them.
    """
    seen: list[Seen] = []
    # Masks come before any weight changes, and once: a mask may look at the momentum encoder.
    draws = [draw(model, part, update.steps) for part in update.parts]
    update.weigh(loss_denominators(run, drawn.hidden) for drawn in draws)
    for part, drawn in zip(update.parts, draws, strict=True):
        with part.forward():
            prediction, losses = replica(in_views(run.mask, drawn.images), drawn.hidden, drawn.pairs)
        part.backward(losses)
        if part.last or run.fourier is not None:
            found = {name: loss.detach() for name, loss in losses.items()}
            seen.append(Seen(part.batch.positions, drawn, prediction.detach(), found))
    update.apply()
    if model.momentum is not None:  # after the weights: it averages the new ones
        model.momentum.follow(model, update.rate("momentum"))
    return seen


def _measured(
    run: Pretrain,
    model: MaskedImageModel,
    step: Step[Batch],
    seen: list[Seen],
) -> Line:
    """Numbers of a pre-training's metrics line besides loss and rates, by name."""
    training, last = step.training, seen[-1]
    group, found = training.session.group, Line()
    found |= {name: at(step.number) for name, at in training.schedules.items()}
    found["contrast"] = group.mean(_contrast(run, last.prediction.float())).item()
    if run.contrastive is not None:
        found["contrastive"] = group.mean(last.losses["contrastive"].clone()).item()
    if run.fourier is not None:
        found["fourier_ratio"] = _fourier_ratio(run, model, step, seen)
    return found


def _contrast(run: Pretrain, prediction: Tensor) -> Tensor:
    """Deviation of predictions [B, K, h, w], a scalar; of pixels that of the channel that varies most."""
    # A flat colour is no deviation, whatever its channels are; classes and features have no such zero.
    return prediction.std(dim=(0, 2, 3)).amax() if isinstance(run.target, PixelTarget) else prediction.std()


def _fourier_ratio(run: Pretrain, model: MaskedImageModel, step: Step[Batch], seen: list[Seen]) -> float:
    """Strength of the Fourier loss relative to the prediction error, over the slices of a step (`GradientRatio`)."""
    ratio, session = GradientRatio(run), step.training.session
    for positions, draws, prediction, _ in seen:
        # Computed again, for logged steps alone, instead of being kept in every step.
        scored = predicted_units(run, draws.hidden, Place().move(step.number, positions), model.windows)
        with autocast(run.recipe, session.device):
            target = model.targets(in_views(run.mask, draws.images))
            ratio.add(prediction, target, spread(scored, target.shape[-1]), scored)
    return ratio.settle(session.group)


def _schedules(run: Pretrain, steps_per_epoch: int) -> dict[str, Schedule]:
    """Schedules besides that of the learning rate, by the names that they have in metrics lines."""
    if run.momentum is None:
        return {}
    steps = run.recipe.total_steps(steps_per_epoch)
    return {"momentum": partial(momentum_at, run.momentum, steps=steps, steps_per_epoch=steps_per_epoch)}


def _check_collapse(run: Pretrain, line: Line) -> None:
    """Raise Diverged if, in the second half of training, predicted pixels are one flat colour."""
    if isinstance(run.target, PixelTarget) and line["step"] * 2 > line["steps"] and line["contrast"] < COLLAPSED:
        raise Diverged(f"the predictions collapsed to one colour (sd {line['contrast']:.1e}) at step {line['step']}")
