"""A training step that is recorded once and then replayed: the host launches it whole, not operator by operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from harness.core.runtime.session import Session
from harness.core.train.optimiser import takes_tensors
from harness.spec import Detect, HarnessError, Recipe
from harness.spec.base import Spec
from harness.spec.user_code import UserFunction

WARM_UP = 3
"""Steps that are computed before one is recorded: libraries choose and allocate in the first ones."""
Record = Callable[[Callable[[], Any]], Callable[[], Any]]
"""Records a function without arguments. The function that it returns replays the recording, and returns the objects of
the first call with new values."""
T = TypeVar("T")


def as_graph(compute: Callable[[], T]) -> Callable[[], T]:
    """Record a function as a CUDA graph on the current stream, which must not be the default one.

    Raises:
        HarnessError: it waits for the device, or cannot be recorded for another reason.
    """
    graph = torch.cuda.CUDAGraph()
    try:
        # Other threads, as those of loaders, may go on using the device meanwhile.
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
            found = compute()
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise HarnessError(f"this run's step cannot be captured ({reason}); leave capture out") from error

    def replay() -> T:
        graph.replay()
        return found

    return replay


class Recorded:
    """The recording of a training step, and tensors at fixed addresses that hold its inputs.

    Args:
        record: makes the recording, as `as_graph` does.
    """

    def __init__(self, record: Record) -> None:
        self.record, self.done = record, 0
        self.given, self.held = list[tuple[Tensor, int]](), list[Tensor]()
        self.replay: Callable[[], Any] | None = None

    def hold(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Copy the inputs of a step into the tensors of the first step, whose addresses the recording reads."""
        if not self.held:
            self.held = [tensor.clone() for tensor in inputs]
        else:
            for mine, tensor, (before, version) in zip(self.held, inputs, self.given, strict=True):
                # The same tensor, not written to since (_version counts writes), holds the same values.
                if tensor is not before or tensor._version != version:
                    mine.copy_(tensor)
        self.given = [(tensor, tensor._version) for tensor in inputs]
        return (*self.held,)

    def compute(self, compute: Callable[[], T]) -> T:
        """Compute a step whose inputs are held: at first as it is, then by a recording of it.

        Args:
            compute: does the same in every step. It reads all that changes from step to step from tensors at fixed
                addresses, as a recording repeats the first one's kernels and never runs its Python again.
        """
        self.done += 1
        if self.done <= WARM_UP:
            return compute()
        self.replay = self.replay or self.record(compute)
        found: T = self.replay()
        return found


def why_not_recorded(session: Session, recipe: Recipe) -> str | None:
    """Reason why a run's steps are computed operator by operator and not recorded; None if they are recorded."""
    if not session.capture:
        return "not asked for"
    if session.device.type != "cuda":
        return f"no CUDA graph on {session.device.type}"
    if session.group.size > 1:
        return "several processes"
    if session.micro_batch is not None and session.micro_batch < recipe.batch_size:
        return "several slices of a batch"
    if not takes_tensors(recipe):
        return f"the optimiser's rate is a number of the host ({recipe.optimizer})"
    if isinstance(session.attempt.run, Detect):
        return "the number of boxes differs from step to step"
    if own := [*_own_code(session.attempt.run)]:
        return f"code of your own might hold numbers of the host ({', '.join(own)})"
    return None


def _own_code(spec: Spec) -> Iterator[str]:
    """The user's functions that a run's steps call: not those that make its data, nor those of a run it starts from."""
    built = getattr(spec, "built", None)
    values = {name: getattr(spec, name) for name in type(spec).model_fields if name not in ("data", "augment", "start")}
    for value in (built, *values.values()):
        if isinstance(value, UserFunction):
            yield value.function
        elif isinstance(value, Spec):
            yield from _own_code(value)
