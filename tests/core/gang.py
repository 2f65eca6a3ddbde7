"""Processes that have imported torch and wait for work, so that many tests pay for one start; and what they do."""

from __future__ import annotations

import itertools
import os
import signal
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from harness.core.model.batchnorm import GroupBatchNorm, Grouping
from harness.core.runtime.distributed import Group, join, rows_of
from harness.core.runtime.drop_path import Place
from harness.core.train import training
from harness.launch import Event, Resources
from harness.launch.job import work
from harness.launch.local.pool import start_server
from harness.spec import Run
from harness.store import Store

CPU = torch.device("cpu")
PATIENCE = 120.0


class Gang:
    """Processes that do the same thing together, in a group of their own for each call."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder, self._calls = folder, itertools.count()
        start_server(__name__)
        context = get_context("forkserver")
        pipes = [context.Pipe() for _ in range(size)]
        self._connections = [ours for ours, _ in pipes]
        self.processes = [context.Process(target=_serve, args=(theirs,), daemon=True) for _, theirs in pipes]
        for process in self.processes:
            process.start()
        for _, theirs in pipes:
            theirs.close()

    def call(self, size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
        """What `function(group, *args)` returns on each of `size` ranks."""
        meeting = self._folder / f"meeting {next(self._calls)}"
        used = self._connections[:size]
        for rank, connection in enumerate(used):
            connection.send((meeting, rank, size, function, args))
        found = []
        for connection in used:
            assert connection.poll(PATIENCE), "a process hangs"
            found.append(connection.recv())
        for problem, _ in found:
            assert not problem, problem
        return [value for _, value in found]

    def end(self) -> None:
        """End the processes."""
        for connection in self._connections:
            connection.close()
        for process in self.processes:
            process.join(10)
            process.kill()


def _serve(connection: Connection) -> None:
    torch.set_num_threads(1)
    while True:
        try:
            meeting, rank, size, function, args = connection.recv()
        except EOFError:
            return
        broken = False
        try:
            with join(meeting, rank, size, CPU) as group:
                answer = ("", function(group, *args))
                broken = group.broken
        except BaseException:
            answer = (traceback.format_exc(), None)
        connection.send(answer)
        if broken:
            os._exit(1)


def compute(group: Group, root: Path, runs: list[Run], resources: Resources, stop: dict[int, int]) -> list[Event]:
    """Compute runs one after the other.

    Args:
        stop: rank -> the step at whose end it gets a SIGTERM.
    """
    asked: list[int] = []
    steps = itertools.count(1)
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))

    def stopping() -> bool:
        if next(steps) == stop.get(group.rank):
            os.kill(os.getpid(), signal.SIGTERM)
        return bool(asked)

    try:
        return [
            work(Store(root), run, CPU, resources, group=group, report=lambda event: None, stopping=stopping)
            for run in runs
        ]
    finally:
        signal.signal(signal.SIGTERM, before)  # or this process, which may be that of the tests, could not be ended


def normalised(
    group: Group, kind: str, batches: list[Tensor], weights: list[Tensor], momentum: float | None
) -> tuple[list[Tensor], list[Tensor], dict[str, Tensor]]:
    """A batch norm over whole batches, this rank's rows of them: outputs, gradients of sum(output * weight), state.

    The layer's own gradients are added up over ranks.
    """
    place = Place()
    layer = made(kind, batches[0].shape[1], momentum)
    count = len(batches[0])
    grouped = GroupBatchNorm(layer, Grouping(count, 1, place, group, across=True))
    place.positions = rows_of(count, group.rank, group.size)
    outputs, gradients = [], []
    for batch, weight in zip(batches, weights, strict=True):
        rows = batch[place.positions].requires_grad_()
        output = grouped(rows)
        (output * weight[place.positions]).sum().backward()
        grouped.settle()
        outputs.append(output.detach())
        assert rows.grad is not None
        gradients.append(rows.grad)
    own = {name: group.sum(p.grad) for name, p in grouped.named_parameters() if p.grad is not None}
    return outputs, gradients, {**grouped.state_dict(), **{f"gradient of {name}": g for name, g in own.items()}}


def made(kind: str, channels: int, momentum: float | None) -> Any:
    """One of torch's batch norms in double precision, with weights that are not its first ones."""
    layer = getattr(nn, kind)(channels, momentum=momentum).double()
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(0.5, 2, channels))
        layer.bias.copy_(torch.linspace(-1, 1, channels))
    return layer


def first_gradients(group: Group, root: Path, run: Run) -> dict[str, Tensor]:
    """The gradients of a run's last step as the optimiser sees them, by the parameter's place; the weights stay."""
    caught: dict[str, Tensor] = {}

    def still(groups: Any, recipe: Any) -> Any:
        optimiser = torch.optim.AdamW(groups, lr=0.0)
        parameters = [parameter for members in groups for parameter in members["params"]]

        def step(*_: Any, **__: Any) -> None:
            for number, parameter in enumerate(parameters):
                if parameter.grad is not None:
                    caught[str(number)] = parameter.grad.clone()

        optimiser.step = step  # type: ignore[method-assign]
        return optimiser

    with patch.object(training, "make_optimiser", still):
        event = work(Store(root), run, CPU, Resources(), group=group, report=lambda event: None)
    assert event.kind == "done", event.text
    return caught


def scaled_step(group: Group) -> tuple[list[float], float]:
    """One step with a scaled loss that overflows on rank 1 alone: the weights after it, and the scale."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    optimiser, scaler = torch.optim.SGD(model.parameters(), lr=1.0), torch.amp.GradScaler("cpu", init_scale=8.0)
    replica = group.replicate(model)
    loss = replica(torch.ones(1, 1)).sum()
    scaler.scale(loss * (torch.inf if group.rank == 1 else 1.0)).backward()
    scaler.step(optimiser)
    scaler.update()
    return model.weight.flatten().tolist(), scaler.get_scale()


def talk(group: Group) -> list[Any]:
    """One of each message."""
    tensor = torch.tensor([float(group.rank), 1.0])
    said: list[Any] = [group.sum(tensor).tolist(), group.agree(group.rank == 1, False), group.share(group.rank + 7)]
    said.append(group.lead(lambda: f"by {group.rank}"))
    try:
        group.lead(lambda: 1 // group.rank)
    except Exception as error:
        said.append(f"{type(error).__name__}: {error}")
    return said
