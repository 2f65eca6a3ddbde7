"""The one training loop, for pre-training and evaluation alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from harness.core.data.batches import Batch
from harness.core.model.batchnorm import GroupBatchNorm
from harness.core.runtime.distributed import gathering, original
from harness.core.runtime.precision import autocast, loss_scaler
from harness.core.runtime.session import Diverged, Interrupted, Session
from harness.core.train.optimiser import learning_rate, make_optimiser
from harness.core.weights.checkpoint import Progress, restore_state, save_state
from harness.spec import Recipe, seed_stream

LOG_STEPS = 50
Line = dict[str, Any]


def train(
    session: Session,
    *,
    seed: int,
    model: nn.Module,
    groups: list[dict[str, Any]],
    recipe: Recipe,
    steps_per_epoch: int,
    batches: Callable[[int], Iterator[Batch]],
    loss_of: Callable[[Batch], Tensor],
    weight_of: Callable[[Batch], Tensor] | None = None,
    after_step: Callable[[int], None] | None = None,
) -> Iterator[Line]:
    """Train to the end, from the latest checkpoint if there is one.

    Args:
        model: as `session.group.replicate` gave it; its forward pass is what `loss_of` calls.
        batches: the batches from a given step on, this process's rows of them.
        loss_of: forward pass and loss of a batch, or of a slice of one: a mean, or several that add up, [T].
        weight_of: over how much a slice's loss is a mean (the denominator, up to a constant factor), a scalar or [T],
            so that the slices of all processes add up to the loss of the global batch; None where it is the number of
            images.
        after_step: called with each step, counted from 0, once the weights have changed. What it changes has to be
            part of `model`, so that it is saved.

    Yields:
        A metrics line every LOG_STEPS steps and at the end of each epoch. What the caller adds to it is logged with it
        and survives a restart. The host waits for the device only here and at checkpoints, which are written after any
        step when they are due, and always at the end. Loss, gradient norm and rates are those of the global batch, the
        same in every process.

    Raises:
        Interrupted: the executor asked to stop; the state is saved.
        Diverged: the loss is not finite.
        Superseded: another process took the run over.
    """
    group, module = session.group, original(model)
    optimiser, scaler = make_optimiser(groups, recipe), loss_scaler(recipe, session.device)
    loop = Progress(total=torch.zeros((), device=session.device))
    restore_state(session, loop, model=module, optimiser=optimiser, scaler=scaler)
    if group.rank:
        loop.total.zero_()  # the sum over all ranks is what was saved
    steps, stream = recipe.epochs * steps_per_epoch, seed_stream(seed, f"torch {group.rank}" if group.rank else "torch")
    parameters = [parameter for group in groups for parameter in group["params"]]
    norms = [layer for layer in module.modules() if isinstance(layer, GroupBatchNorm)]
    begun = saved = time.monotonic()
    for batch in batches(loop.step):
        for members in optimiser.param_groups:
            members["lr"] = learning_rate(recipe, loop.step, steps_per_epoch, members["scale"])
        torch.manual_seed(stream ^ loop.step)  # for whatever draws from torch's own generators, such as dropout
        loop.total += _accumulate(session, recipe, scaler, model, batch, loss_of, weight_of)
        for layer in norms:
            layer.settle()
        scaler.unscale_(optimiser)
        norm = torch.nn.utils.clip_grad_norm_(parameters, recipe.clip or math.inf)
        scaler.step(optimiser)
        scaler.update()
        optimiser.zero_grad(set_to_none=True)
        if after_step is not None:
            after_step(loop.step)
        loop.step, loop.since = loop.step + 1, loop.since + 1
        if is_logged(loop.step, steps_per_epoch):
            group.sum(loop.total)
            line = _line(loop, steps, steps_per_epoch, norm)
            line["lr"] = learning_rate(recipe, loop.step - 1, steps_per_epoch)
            line["images_per_second"] = loop.since * recipe.batch_size / (loop.waited + time.monotonic() - begun)
            if not math.isfinite(line["loss"]):
                raise Diverged(f"the loss is {line['loss']} at step {loop.step} of {steps}")
            yield line
            loop.seconds += time.monotonic() - begun
            line["seconds"] = loop.seconds
            session.attempt.log(line)
            session.report(line)
            loop.total, loop.since, loop.waited, begun = torch.zeros_like(loop.total), 0, 0.0, time.monotonic()
        due = loop.step == steps or time.monotonic() - saved >= session.checkpoint_seconds
        asked, due = group.agree(session.stopping(), due)
        stop = asked and loop.step < steps
        if stop or due:
            spent = time.monotonic() - begun
            loop.seconds, loop.waited = loop.seconds + spent, loop.waited + spent
            group.sum(loop.total)
            save_state(session, loop, model=module, optimiser=optimiser, scaler=scaler)
            if group.rank:
                loop.total.zero_()
            begun = saved = time.monotonic()
        if stop:
            raise Interrupted(f"stopped at step {loop.step} of {steps}")


def is_logged(done: int, steps_per_epoch: int) -> bool:
    """Whether a metrics line is written once so many steps are done."""
    return done % LOG_STEPS == 0 or done % steps_per_epoch == 0


def _accumulate(
    session: Session,
    recipe: Recipe,
    scaler: torch.amp.GradScaler,
    model: nn.Module,
    batch: Batch,
    loss_of: Callable[[Batch], Tensor],
    weight_of: Callable[[Batch], Tensor] | None,
) -> Tensor:
    """Gradients of the mean loss over a global batch, computed in slices that fit the device.

    Returns:
        This process's part of that loss, detached: the parts of all processes add up to it.
    """
    size = len(batch.images)
    piece = session.micro_batch or size
    parts = [
        Batch(batch.step, *(tensor[first : first + piece] for tensor in batch[1:])) for first in range(0, size, piece)
    ]
    total = torch.zeros((), device=session.device)
    for part, share in zip(parts, _shares(session, recipe, parts, weight_of), strict=True):
        with nullcontext() if part is parts[-1] else gathering(model):
            with autocast(recipe, session.device):
                loss = (loss_of(part) * share).sum()
            # Replicas average their gradients, where those of the parts are to be added up.
            scaler.scale(loss * session.group.size).backward()
        total += loss.detach()
    return total


def _shares(
    session: Session, recipe: Recipe, parts: list[Batch], weight_of: Callable[[Batch], Tensor] | None
) -> list[float] | Tensor:
    """What each slice's loss counts in that of the global batch; over all processes this adds up to 1."""
    if weight_of is None or (len(parts) == 1 and session.group.size == 1):
        return [len(part.images) / recipe.batch_size for part in parts]
    weights = torch.stack([weight_of(part) for part in parts]).double()
    whole = session.group.sum(weights.sum(0))
    return (weights / whole.clamp(min=1)).float()


def _line(loop: Progress, steps: int, steps_per_epoch: int, norm: Tensor) -> Line:
    return {
        "step": loop.step,
        "steps": steps,
        "epoch": loop.step / steps_per_epoch,
        "loss": loop.total.item() / loop.since,
        "grad_norm": norm.item(),
    }
