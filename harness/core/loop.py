"""The one training loop, for pre-training and evaluation alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from harness.core.batches import Batch
from harness.core.checkpoint import Progress, restore_state, save_state
from harness.core.optimiser import adamw, learning_rate
from harness.core.precision import autocast, loss_scaler
from harness.core.session import Diverged, Interrupted, Session
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
) -> Iterator[Line]:
    """Train to the end, from the latest checkpoint if there is one.

    Args:
        batches: the batches from a given step on. loss_of: forward pass and loss of a batch, or of a slice of one.

    Yields:
        A metrics line every LOG_STEPS steps and at the end of each epoch. What the caller adds to it is logged with it
        and survives a restart. The host waits for the device only here and at checkpoints, which are written after any
        step when they are due, and always at the end.

    Raises:
        Interrupted: the executor asked to stop; the state is saved.
        Diverged: the loss is not finite.
        Superseded: another process took the run over.
    """
    optimiser, scaler = adamw(groups, recipe), loss_scaler(recipe, session.device)
    loop = Progress(total=torch.zeros((), device=session.device))
    restore_state(session, loop, model=model, optimiser=optimiser, scaler=scaler)
    steps, stream = recipe.epochs * steps_per_epoch, seed_stream(seed, "torch")
    parameters = [parameter for group in groups for parameter in group["params"]]
    begun = saved = time.monotonic()
    for batch in batches(loop.step):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(recipe, loop.step, steps_per_epoch, group["scale"])
        torch.manual_seed(stream ^ loop.step)  # for whatever draws from torch's own generators, such as dropout
        loop.total += _accumulate(session, recipe, scaler, batch, loss_of)
        scaler.unscale_(optimiser)
        norm = torch.nn.utils.clip_grad_norm_(parameters, recipe.clip or math.inf)
        scaler.step(optimiser)
        scaler.update()
        optimiser.zero_grad(set_to_none=True)
        loop.step, loop.since = loop.step + 1, loop.since + 1
        if loop.step % LOG_STEPS == 0 or loop.step % steps_per_epoch == 0:
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
        stop = session.stopping() and loop.step < steps
        if stop or loop.step == steps or time.monotonic() - saved >= session.checkpoint_seconds:
            spent = time.monotonic() - begun
            loop.seconds, loop.waited = loop.seconds + spent, loop.waited + spent
            save_state(session, loop, model=model, optimiser=optimiser, scaler=scaler)
            begun = saved = time.monotonic()
        if stop:
            raise Interrupted(f"stopped at step {loop.step} of {steps}")


def _accumulate(
    session: Session,
    recipe: Recipe,
    scaler: torch.amp.GradScaler,
    batch: Batch,
    loss_of: Callable[[Batch], Tensor],
) -> Tensor:
    """Gradients of the mean loss over a batch, in slices that fit the device; returns that loss, detached."""
    size = len(batch.images)
    piece = session.micro_batch or size
    total = torch.zeros((), device=session.device)
    for first in range(0, size, piece):
        part = Batch(batch.step, *(tensor[first : first + piece] for tensor in batch[1:]))
        with autocast(recipe, session.device):
            loss = loss_of(part) * (len(part.images) / size)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    return total


def _line(loop: Progress, steps: int, steps_per_epoch: int, norm: Tensor) -> Line:
    return {
        "step": loop.step,
        "steps": steps,
        "epoch": loop.step / steps_per_epoch,
        "loss": loop.total.item() / loop.since,
        "grad_norm": norm.item(),
    }
