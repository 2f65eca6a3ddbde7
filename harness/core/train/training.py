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
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from harness.core.data.batches import Batch
from harness.core.data.scenes import SceneBatch
from harness.core.model.batchnorm import GroupBatchNorm
from harness.core.runtime.distributed import gathering, original
from harness.core.runtime.drop_path import Place
from harness.core.runtime.precision import autocast, loss_scaler
from harness.core.runtime.session import Diverged, Interrupted, Session
from harness.core.train.optimiser import learning_rate, make_optimiser, takes_tensors
from harness.core.train.rates import Rates, Schedule
from harness.core.train.recorded import Recorded, as_graph, why_not_recorded
from harness.core.weights.checkpoint import Progress, restore_state, save_state
from harness.spec import HarnessError, Recipe, seed_stream

LOG_STEPS = 50
T = TypeVar("T")
B = TypeVar("B", bound=Batch | SceneBatch)
"""A batch: its first field is the step, the others are tensors with a row for each image."""
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
            done: steps done of `total`. at_end: True saves at the end of the loop too.

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

        def learn(update: Update) -> Tensor:
            for part in update.parts:
                with part.forward():
                    losses = ...
                part.backward(losses)
            update.apply()
            return ...

        training = Training(session, recipe, replica, seed=..., groups=..., steps_per_epoch=...)
        for step in training.steps(batches):
            found = step.compute(learn)
            if step.logged:
                yield session.mark()  # what reads below waits for the device
                line = step.read()
                line["..."] = ...

    Args:
        model: as `session.group.replicate` gave it. What a recipe changes besides its parameters has to be part of it,
            so that checkpoints hold it.
        seed: of the run. groups: parameter groups, each with its `scale`, the factor on the learning rate's peak.
        place: step and image positions that drop paths and batch norms of the model read; moved before each forward
            pass.
        schedules: numbers besides learning rates that change from step to step, by name (`Update.rate`).
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
        place: Place | None = None,
        schedules: Mapping[str, Schedule] | None = None,
    ) -> None:
        self.session, self.recipe, self.model, self.steps_per_epoch = session, recipe, model, steps_per_epoch
        self.total_steps, warmup = recipe.total_steps(steps_per_epoch), recipe.steps_of_warmup(steps_per_epoch)
        if warmup >= self.total_steps:  # where one is in epochs and the other in steps, only the data set tells
            raise HarnessError(f"a warm-up of {warmup} steps leaves nothing of {self.total_steps} steps")
        self.optimiser, self.scaler = make_optimiser(groups, recipe), loss_scaler(recipe, session.device)
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        self.place, self.schedules = place or Place(), schedules or {}
        rates = [
            partial(learning_rate, recipe, steps_per_epoch=steps_per_epoch, scale=members["scale"])
            for members in self.optimiser.param_groups
        ]
        reason = why_not_recorded(session, recipe)
        self.recorded = Recorded(self._record) if reason is None else None
        if session.capture:
            session.attempt.note({"captured": reason is None} | ({} if reason is None else {"not captured": reason}))
        # The same kind of numbers whether a step is recorded or not, so that the weights are the same too.
        tensors = takes_tensors(recipe) and (session.device.type == "cuda" or self.recorded is not None)
        self.rates = Rates([*rates, *self.schedules.values()], session.device if tensors else None)
        self.norms = [layer for layer in original(model).modules() if isinstance(layer, GroupBatchNorm)]
        # Ranks draw dropout apart; rank 0 draws as a process alone does.
        rank = session.group.rank
        self.stream = seed_stream(seed, f"torch {rank}" if rank else "torch")
        self.progress = Progress(total=torch.zeros((), device=session.device))
        self.begun = time.monotonic()

    def steps(self, batches: Callable[[int], Iterator[B]]) -> Iterator[Step[B]]:
        """Remaining steps, one at a time; call `compute` of each before asking for the next.

        The host waits for the device only where a metrics line or a checkpoint is due. Lines come every LOG_STEPS
        steps, at the end of each epoch and of the training; checkpoints after any step when they are due, and always at
        the end.

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
        try:
            for batch in batches(progress.step):
                # Before the caller computes the step, which reads both.
                self._set_rates(progress.step)
                self._seed(progress.step)
                step = Step(self, batch)
                yield step
                # The step is done, and progress.step counts it.
                if step.line is not None:
                    self._log(step.line)
                if pace.after(progress.step, self.total_steps, at_end=True):
                    self.begun = time.monotonic()  # _save has counted the time until here, and its own is no step's
        finally:
            self.recorded = None  # at once, with its memory: it refers to this training, which refers to it

    def _set_rates(self, step: int) -> None:
        self.rates.move(step)
        # The learning rates of the groups come first; behind them are the schedules, which `Update.rate` reads.
        groups = self.optimiser.param_groups
        for members, rate in zip(groups, self.rates.now[: len(groups)], strict=True):
            members["lr"] = rate

    def _seed(self, step: int) -> None:
        """Seed torch's own generators, for what draws from them, as dropout does."""
        # Not torch.manual_seed, which costs more than some kernels: it also seeds, or plans to, devices not in use.
        seed, device = self.stream ^ step, self.session.device
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            number = torch.cuda.current_device() if device.index is None else device.index
            torch.cuda.default_generators[number].manual_seed(seed)

    def compute(self, learn: Callable[[Update[B]], T], batch: B) -> tuple[T, Tensor]:
        """Compute one step, by its operators or by its recording.

        Returns:
            The result of `learn`, and the norm of the gradients, a scalar.
        """
        step, recorded = self.progress.step, self.recorded

        def compute() -> tuple[T, Tensor]:
            update = Update(self, batch)
            return learn(update), update.norm

        if recorded is None:
            return compute()
        held = _made_of(batch, step, recorded.hold(batch[1:]))
        # A recorded step knows no number of the host: it finds its own in a tensor.
        batch = _made_of(held, self.place.move(step, held.positions).step, held[1:])
        return recorded.compute(compute)

    def _record(self, compute: Callable[[], T]) -> Callable[[], T]:
        # torch's Adam refuses to be recorded without this flag, and warns of it where no graph is being recorded. So it
        # is set for the recording only, and checkpoints never hold it. It changes nothing that the fused Adam computes.
        groups = [members for members in self.optimiser.param_groups if "capturable" in members]
        for members in groups:
            members["capturable"] = True
        try:
            return as_graph(compute)
        finally:
            for members in groups:
                members["capturable"] = False

    def _resume(self) -> None:
        model = original(self.model)
        restore_state(self.session, self.progress, model=model, optimiser=self.optimiser, scaler=self.scaler)
        if self.session.group.rank:
            self.progress.total.zero_()  # the sum over all ranks is what was saved

    def _save(self) -> None:
        progress, group = self.progress, self.session.group
        spent = time.monotonic() - self.begun
        progress.seconds, progress.waited = progress.seconds + spent, progress.waited + spent
        group.sum(progress.total)  # rank 0, which writes, goes on with the sum; the others begin at 0 again
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
        progress.total.zero_()
        progress.since, progress.waited = 0, 0.0
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
            # Of the step that was computed, which progress.step counts already.
            "lr": learning_rate(self.recipe, progress.step - 1, self.steps_per_epoch),
            "images_per_second": progress.since * self.recipe.batch_size / elapsed,
        }
        if not math.isfinite(line["loss"]):
            raise Diverged(f"the loss is {line['loss']} at step {progress.step} of {self.total_steps}")
        return line


class Step(Generic[B]):
    """One optimiser step, handed out by `Training.steps`.

    Attributes:
        batch: this process's rows of the global batch. number: counted from 0.
        logged: True if a metrics line follows the step.
        line: that line once it is read, else None; what a recipe adds to it is logged with it.
    """

    def __init__(self, training: Training, batch: B) -> None:
        self.training, self.batch, self.number = training, batch, training.progress.step
        done = self.number + 1
        # The last one too, where the length is in steps and ends within an epoch.
        self.logged = done % LOG_STEPS == 0 or done % training.steps_per_epoch == 0 or done == training.total_steps
        self.line: Line | None = None
        self.norm: Tensor | None = None

    def compute(self, learn: Callable[[Update[B]], T]) -> T:
        """Compute the step; gives what `learn` returns.

        Nothing here waits for the device, except in fp16 with an optimiser of your own that is not fused: torch's loss
        scaler looks at the gradients before it calls one.

        Args:
            learn: forward and backward passes, update of the weights and all that follows them. What changes from step
                to step, such as the batch and the rates, may reach it through tensors only: a recorded step is replayed
                with new values in the same tensors.
        """
        training, progress = self.training, self.training.progress
        found, self.norm = training.compute(learn, self.batch)
        progress.step, progress.since = progress.step + 1, progress.since + 1
        return found

    def read(self) -> Line:
        """Metrics line of a computed step: loss, gradient norm and learning rate of the global batch, by name.

        This waits for the device, as nothing before it in a step does. What is added to the line is logged with it.

        Raises:
            Diverged: the loss is not finite.
        """
        assert self.norm is not None
        self.line = self.training.next_line(self.norm)
        return self.line

    def ends_epoch(self, last: int | None) -> bool:
        """True after the last step, and after each of the `last` epochs; None for every epoch."""
        done, per_epoch, total = self.number + 1, self.training.steps_per_epoch, self.training.total_steps
        epoch, rest = divmod(done, per_epoch)
        epochs = math.ceil(total / per_epoch)  # the last of them may be cut short
        return done == total or (not rest and epoch > epochs - (last or epochs))


class Update(Generic[B]):
    """One update of the weights, while it is computed.

    Attributes:
        parts: slices of the batch that fit the device.
        norm: of the gradients of the global batch before clipping, a scalar, once the update is applied.
    """

    def __init__(self, training: Training, batch: B) -> None:
        self.training = training
        size = len(batch.images)
        piece = training.session.micro_batch or size
        cut = [slice(first, first + piece) for first in range(0, size, piece)]
        # One slice is the batch itself: a recorded step has to find the very tensors that are held for it.
        parts = ([tensor[rows] for tensor in batch[1:]] for rows in cut)
        slices = [_made_of(batch, batch.step, tensors) for tensors in parts] if cut[1:] else [batch]
        whole = training.recipe.batch_size
        self.parts = [Part(self, rows, len(rows.images) / whole, rows is slices[-1]) for rows in slices]
        self.total = torch.zeros((), device=training.session.device)
        self.norm = self.total

    @property
    def steps(self) -> int:
        """Number of steps of the whole training."""
        return self.training.total_steps

    def rate(self, name: str) -> float | Tensor:
        """Number of one of the schedules at this step."""
        names = [*self.training.schedules]
        return self.training.rates.now[names.index(name) - len(names)]  # they stand behind the learning rates

    def weigh(self, denominators: Iterable[Mapping[str, Tensor]]) -> None:
        """Weigh the losses of each part by the number of terms they average, instead of by the number of images.

        So the parts of all processes add up to the loss of the global batch, however it is cut.

        Args:
            denominators: for each part a mapping from the name of a loss to the number of terms, such as hidden pixels,
                that it is a mean over, up to a constant factor: float64 scalars. Not read where one part is the whole
                global batch.
        """
        group = self.training.session.group
        if len(self.parts) == 1 and group.size == 1:
            return
        found = list(denominators)
        weights = torch.stack([torch.stack([*named.values()]) for named in found]).double()  # [parts, losses]
        whole = group.sum(weights.sum(0))
        for part, named, share in zip(self.parts, found, (weights / whole.clamp(min=1)).float(), strict=True):
            part.share = dict(zip(named, share, strict=True))

    def apply(self) -> None:
        """Update the weights by the gradients of all parts."""
        training = self.training
        for layer in training.norms:
            layer.settle()  # running statistics, once a step: all parts have been seen
        training.scaler.unscale_(training.optimiser)  # before the norm, which is of the true gradients
        self.norm = torch.nn.utils.clip_grad_norm_(training.parameters, training.recipe.clip or math.inf)
        training.scaler.step(training.optimiser)
        training.scaler.update()
        training.optimiser.zero_grad(set_to_none=True)
        training.progress.total += self.total


@dataclass
class Part(Generic[B]):
    """A slice of a step's batch.

    share: weight of its losses in those of the global batch, one for all losses or by name.
    last: True for the last slice of the step, in whose backward pass processes exchange gradients.
    """

    update: Update[B]
    batch: B
    share: float | Mapping[str, Tensor]
    last: bool

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Context for the forward pass of these images.

        Layers that draw random numbers find the images' places, and arithmetic has the recipe's precision.
        """
        training = self.update.training
        training.place.move(training.progress.step, self.batch.positions)
        with self._gathering(), autocast(training.recipe, training.session.device):
            yield

    def backward(self, losses: Mapping[str, Tensor]) -> None:
        """Accumulate the gradients of the part's loss, the sum of `losses`: scalars by name."""
        training, share = self.update.training, self.share
        values = torch.stack([*losses.values()])
        shares = share if isinstance(share, float) else torch.stack([share[name] for name in losses])
        loss = (values * shares).sum()
        # Replicas average gradients over the processes, but the shares of all parts add up to 1 already: times the
        # number of processes, their average is the sum that is wanted.
        scaled = training.scaler.scale(loss * training.session.group.size)
        with self._gathering():
            torch.autograd.backward(scaled)
        self.update.total += loss.detach()

    def _gathering(self) -> AbstractContextManager[None]:
        return nullcontext() if self.last else gathering(self.update.training.model)


def _made_of(batch: B, step: int | Tensor, tensors: Iterable[Tensor]) -> B:
    """A batch of the same kind with other tensors."""
    make: Any = type(batch)
    made: B = make(step, *tensors)
    return made
