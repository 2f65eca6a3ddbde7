"""The one training loop, for pre-training and evaluation alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from harness.core.batches import Batch
from harness.core.checkpoint import restore_state, save_state
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
        and survives a restart. The host waits for the device only here. A checkpoint is written when it is due, and
        always at the end.

    Raises:
        Interrupted: the executor asked to stop; the state is saved.
        Diverged: the loss is not finite.
        Superseded: another process took the run over.
    """
    optimiser, scaler = adamw(groups, recipe), loss_scaler(recipe, session.device)
    step, seconds = restore_state(session, model=model, optimiser=optimiser, scaler=scaler)
    steps, stream = recipe.epochs * steps_per_epoch, seed_stream(seed, "torch")
    parameters = [parameter for group in groups for parameter in group["params"]]
    total = torch.zeros((), device=session.device)
    since, begun, saved = 0, time.monotonic(), time.monotonic()
    for batch in batches(step):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(recipe, step, steps_per_epoch, group["scale"])
        torch.manual_seed(stream ^ step)  # for whatever draws from torch's own generators, such as dropout
        total += _accumulate(session, recipe, scaler, batch, loss_of)
        scaler.unscale_(optimiser)
        norm = torch.nn.utils.clip_grad_norm_(parameters, recipe.clip or math.inf)
        scaler.step(optimiser)
        scaler.update()
        optimiser.zero_grad(set_to_none=True)
        step, since = step + 1, since + 1
        if step % LOG_STEPS and step % steps_per_epoch:
            continue
        line = _line(step, steps, steps_per_epoch, total.item() / since, norm.item())
        line["lr"] = learning_rate(recipe, step - 1, steps_per_epoch)
        line["images_per_second"] = since * recipe.batch_size / (time.monotonic() - begun)
        if not math.isfinite(line["loss"]):
            raise Diverged(f"the loss is {line['loss']} at step {step} of {steps}")
        yield line
        seconds += time.monotonic() - begun
        line["seconds"] = seconds
        session.attempt.log(line)
        session.report(line)
        stop = session.stopping() and step < steps
        if stop or step == steps or time.monotonic() - saved >= session.checkpoint_seconds:
            save_state(session, step=step, seconds=seconds, model=model, optimiser=optimiser, scaler=scaler)
            saved = time.monotonic()
        if stop:
            raise Interrupted(f"stopped at step {step} of {steps}")
        total, since, begun = torch.zeros_like(total), 0, time.monotonic()


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


def _line(step: int, steps: int, steps_per_epoch: int, loss: float, norm: float) -> Line:
    return {"step": step, "steps": steps, "epoch": step / steps_per_epoch, "loss": loss, "grad_norm": norm}
