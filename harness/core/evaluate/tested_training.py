"""The loop of evaluations that train: epochs of steps, with a test at the end of the last ones."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

from torch import nn

from harness.core.runtime.session import Computation, Ready
from harness.core.train.training import B, Training, Update


def train_and_test(
    training: Training,
    batches: Callable[[int], Iterator[B]],
    learn: Callable[[Update[B]], None],
    *,
    model: nn.Module,
    test: Callable[[], Generator[Ready, None, dict[str, float]]],
    tested_epochs: int | None,
) -> Computation:
    """Train to the end; the metrics line of an epoch that is tested has what `test` finds, each name after `test_`.

    A part of a recipe (`yield from train_and_test(...)`), which hands over before each metrics line is read.

    Args:
        batches, learn: as for `Training.steps` and `Step.compute`.
        model: what `test` tests, with running statistics and without dropout.
        tested_epochs: how many of the last epochs are tested; None for all.
    """
    for step in training.steps(batches):
        step.compute(learn)
        if step.logged:
            yield training.session.mark()
            line = step.read()
            if step.ends_epoch(tested_epochs):
                model.eval()
                found = yield from test()
                line |= {f"test_{name}": value for name, value in found.items()}
                model.train()


def last_test(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Metrics of the last test by name, from the metrics lines of a run.

    Neither the best nor a mean: choosing an epoch by its test would be selection on the test set.
    """
    tests = ({name: value for name, value in line.items() if name.startswith("test_")} for line in reversed(lines))
    return {name.removeprefix("test_"): value for name, value in next(filter(None, tests)).items()}
