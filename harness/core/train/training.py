"""The training loop: one for pre-training and evaluation alike.

A recipe is a `for` loop over `Training.steps`. The loop hands out one step at a time and does what all recipes share:
rates, seeds, slices that fit the device, the update, metrics lines, checkpoints, resuming and stopping.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
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
"""A metrics line: names to numbers."""


class Pace:
    """Schedule of saving and stopping, shared by training loops and by analyses that go through parts.

    Args:
        save: writes the state of the loop.
    """

    def __init__(self, session: Session, save: Callable[[], None]) -> None:
        self.session, self.save, self.saved = session, save, time.monotonic()

    def after(self, done: int, total: int, *, at_end: bool) -> bool:
        """Save if a checkpoint is due, and stop if the executor asked for it; returns whether it saved.

        Args:
            done: steps done of `total`. at_end: whether the end of the loop is saved too.

        Raises:
            Interrupted: the executor asked to stop; the state is saved.
        """
        due = time.monotonic() - self.saved >= self.session.checkpoint_seconds
        # All processes have to decide alike: one that saves alone would wait for the others for ever.
        asked, due = self.session.group.agree(self.session.stopping(), due)
        stop, last = asked and done < total, done == total
        saves = stop or (at_end if last else due)
        if saves:
            self.save()
            self.saved = time.monotonic()
        if stop:
            raise Interrupted(f"stopped at step {done} of {total}")
        return saves


class Training:
    """Training of one model with one optimiser, from the latest checkpoint if there is one.

        training = Training(session, recipe, replica, seed=..., groups=..., steps_per_epoch=...)
        for step in training.steps(batches):
            for part in step.parts:
                with part.forward():
                    losses = ...
                part.backward(losses)
            step.update()
            if step.logged:
                yield session.mark()  # what reads below waits for the device
                line = step.read()
                line["..."] = ...

    Args:
        model: as `session.group.replicate` gave it. What a recipe changes besides its parameters has to be part of it,
            so that checkpoints hold it.
        seed: of the run. groups: parameter groups, each with its `scale` of the learning rate.
    """

    def __init__(
        self,
        session: Session,
        recipe: Recipe,
        model: nn.Module,
        *,
        seed: int,
        groups: list[dict[str, Any]],
        steps_per_epoch: int,
    ) -> None:
        self.session, self.recipe, self.model, self.steps_per_epoch = session, recipe, model, steps_per_epoch
        self.total_steps = recipe.epochs * steps_per_epoch
        self.optimiser, self.scaler = make_optimiser(groups, recipe), loss_scaler(recipe, session.device)
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        self.norms = [layer for layer in original(model).modules() if isinstance(layer, GroupBatchNorm)]
        # Ranks draw dropout apart; rank 0 draws as a process alone does.
        rank = session.group.rank
        self.stream = seed_stream(seed, f"torch {rank}" if rank else "torch")
        self.progress = Progress(total=torch.zeros((), device=session.device))
        self.begun = time.monotonic()

    def steps(self, batches: Callable[[int], Iterator[Batch]]) -> Iterator[Step]:
        """Remaining steps, one at a time; call `update` of each before asking for the next.

        The host waits for the device only where a metrics line or a checkpoint is due. Lines come every LOG_STEPS
        steps and at the end of each epoch; checkpoints after any step when they are due, and always at the end.

        Args:
            batches: function of a step that gives this process's rows of the batches from that step on.

        Raises:
            Interrupted: the executor asked to stop; the state is saved.
            Diverged: the loss is not finite.
            Superseded: another process took the run over.
        """
        progress, session = self.progress, self.session
        self._resume()
        pace = Pace(session, self._save)
        self.begun = time.monotonic()
        for batch in batches(progress.step):
            for members in self.optimiser.param_groups:
                members["lr"] = learning_rate(self.recipe, progress.step, self.steps_per_epoch, members["scale"])
            torch.manual_seed(
                self.stream ^ progress.step
            )  # for what draws from torch's own generators, as dropout does
            step = Step(self, batch)
            yield step
            if step.line is not None:
                self._log(step.line)
            if pace.after(progress.step, self.total_steps, at_end=True):
                self.begun = time.monotonic()

    def _resume(self) -> None:
        model = original(self.model)
        restore_state(self.session, self.progress, model=model, optimiser=self.optimiser, scaler=self.scaler)
        if self.session.group.rank:
            self.progress.total.zero_()  # the sum over all ranks is what was saved

    def _save(self) -> None:
        progress, group = self.progress, self.session.group
        spent = time.monotonic() - self.begun
        progress.seconds, progress.waited = progress.seconds + spent, progress.waited + spent
        group.sum(progress.total)
        model = original(self.model)
        save_state(self.session, progress, model=model, optimiser=self.optimiser, scaler=self.scaler)
        if group.rank:
            progress.total.zero_()

    def _log(self, line: Line) -> None:
        progress = self.progress
        progress.seconds += time.monotonic() - self.begun
        line["seconds"] = progress.seconds
        self.session.attempt.log(line)
        self.session.report(line)
        progress.total, progress.since, progress.waited = torch.zeros_like(progress.total), 0, 0.0
        self.begun = time.monotonic()

    def next_line(self, norm: Tensor) -> Line:
        """Metrics line of the step that was just done; see `Step.read`."""
        progress = self.progress
        self.session.group.sum(progress.total)
        elapsed = progress.waited + time.monotonic() - self.begun
        line = {
            "step": progress.step,
            "steps": self.total_steps,
            "epoch": progress.step / self.steps_per_epoch,
            "loss": progress.total.item() / progress.since,
            "grad_norm": norm.item(),
            "lr": learning_rate(self.recipe, progress.step - 1, self.steps_per_epoch),
            "images_per_second": progress.since * self.recipe.batch_size / elapsed,
        }
        if not math.isfinite(line["loss"]):
            raise Diverged(f"the loss is {line['loss']} at step {progress.step} of {self.total_steps}")
        return line


class Step:
    """One optimiser step, handed out by `Training.steps`.

    Attributes:
        batch: this process's rows of the global batch. number: counted from 0.
        parts: slices of the batch that fit the device. logged: whether a metrics line follows the step.
        line: that line once it is read, else None; what a recipe adds to it is logged with it.
    """

    def __init__(self, training: Training, batch: Batch) -> None:
        self.training, self.batch, self.number = training, batch, training.progress.step
        done = self.number + 1
        self.logged = done % LOG_STEPS == 0 or done % training.steps_per_epoch == 0
        self.line: Line | None = None
        size = len(batch.images)
        piece = training.session.micro_batch or size
        cut = [slice(first, first + piece) for first in range(0, size, piece)]
        slices = [Batch(batch.step, *(tensor[rows] for tensor in batch[1:])) for rows in cut]
        whole = training.recipe.batch_size
        self.parts = [Part(self, rows, len(rows.images) / whole, rows is slices[-1]) for rows in slices]
        self.total = torch.zeros((), device=training.session.device)
        self.norm = self.total

    def weigh(self, denominators: Iterable[Mapping[str, Tensor]]) -> None:
        """Weigh the losses of each part by what they are means over, instead of by its number of images.

        So the parts of all processes add up to the loss of the global batch, however it is cut.

        Args:
            denominators: for each part, and each of its losses by name, over how much it is a mean (up to a constant
                factor): float64 scalars. They are not looked at where one part is the whole global batch.
        """
        group = self.training.session.group
        if len(self.parts) == 1 and group.size == 1:
            return
        found = list(denominators)
        weights = torch.stack([torch.stack([*named.values()]) for named in found]).double()  # [parts, losses]
        whole = group.sum(weights.sum(0))
        for part, named, share in zip(self.parts, found, (weights / whole.clamp(min=1)).float(), strict=True):
            part.share = dict(zip(named, share, strict=True))

    def update(self) -> None:
        """Update the weights by the gradients of all parts. Nothing here waits for the device."""
        training, progress = self.training, self.training.progress
        for layer in training.norms:
            layer.settle()
        training.scaler.unscale_(training.optimiser)  # before the norm, which is of the true gradients
        self.norm = torch.nn.utils.clip_grad_norm_(training.parameters, training.recipe.clip or math.inf)
        training.scaler.step(training.optimiser)
        training.scaler.update()
        training.optimiser.zero_grad(set_to_none=True)
        progress.total += self.total
        progress.step, progress.since = progress.step + 1, progress.since + 1

    def read(self) -> Line:
        """Metrics line of an updated step: loss, gradient norm and learning rate of the global batch, by name.

        The first of what waits for the device. What is added to the line is logged with it.

        Raises:
            Diverged: the loss is not finite.
        """
        self.line = self.training.next_line(self.norm)
        return self.line


@dataclass
class Part:
    """A slice of a step's batch. share: weight of its losses in those of the global batch, one for all or by name."""

    step: Step
    batch: Batch
    share: float | Mapping[str, Tensor]
    last: bool

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Context of the forward pass: the recipe's precision; processes exchange gradients in the last part only."""
        training = self.step.training
        with self._gathering(), autocast(training.recipe, training.session.device):
            yield

    def backward(self, losses: Mapping[str, Tensor]) -> None:
        """Accumulate the gradients of the part's loss, the sum of `losses`: scalars by name."""
        training, share = self.step.training, self.share
        values = torch.stack([*losses.values()])
        shares = share if isinstance(share, float) else torch.stack([share[name] for name in losses])
        loss = (values * shares).sum()
        # Replicas average their gradients, where those of the parts are to be added up.
        scaled = training.scaler.scale(loss * training.session.group.size)
        with self._gathering():
            torch.autograd.backward(scaled)
        self.step.total += loss.detach()

    def _gathering(self) -> AbstractContextManager[None]:
        return nullcontext() if self.last else gathering(self.step.training.model)
