"""The training loop: what its metrics lines say of time and rate, and what its checkpoints hold."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import RECIPE, pretrain
from torch import nn

from harness.core.pretrain import recipe as pretraining
from harness.core.runtime.session import Session
from harness.core.train import training
from harness.core.weights.checkpoint import Progress, restore_state, save_state
from harness.launch import Resources
from harness.launch.job import work
from harness.spec import key
from harness.store import Attempt, Store

CPU = torch.device("cpu")
RUN = pretrain(recipe=RECIPE.replace(warmup_epochs=1, lr=1e-3))
"""Eight steps of 16 images, with a metrics line after the fourth and the last."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time in which a step takes 2 seconds, what the caller does with a line 5, and a checkpoint 100."""
    now = [1000.0]

    def lasting(seconds: float, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            now[0] += seconds
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: now[0]))
    for owner, name, seconds in (
        (training.Step, "compute", 2.0),
        (pretraining, "write_snapshot", 5.0),
        (training, "save_state", 100.0),
    ):
        monkeypatch.setattr(owner, name, lasting(seconds, getattr(owner, name)))


@pytest.mark.usefixtures("_clock")
@pytest.mark.parametrize(("stops", "checkpoint_seconds"), [((), 1e6), ((2,), 1e6), ((1, 3), 0.0)])
def test_time_is_that_of_training_however_often_it_stops(
    tmp_path: Path, stops: tuple[int, ...], checkpoint_seconds: float
) -> None:
    """Four steps are 8 seconds for 64 images; the caller's 5 count as time, not against the rate.

    What a checkpoint takes counts as neither.
    """
    store, resources = Store(tmp_path), Resources(checkpoint_seconds=checkpoint_seconds)
    for stop in (*stops, 99):
        asked = iter(step == stop for step in range(1, 100))
        event = work(store, RUN, CPU, resources, report=lambda _: None, stopping=asked.__next__)
        assert event.kind == ("done" if stop == 99 else "interrupted"), event.text
    lines = store.metrics(key(RUN))
    assert [line["step"] for line in lines] == [4, 8]
    assert [line["seconds"] for line in lines] == [8 + 5, 2 * (8 + 5)]
    assert [line["images_per_second"] for line in lines] == [8.0, 8.0]


def test_the_rate_of_a_line_is_that_of_its_last_step(tmp_path: Path) -> None:
    """Of the fourth of four steps of warm-up from 0, and of the last of a cosine of eight."""
    event = work(Store(tmp_path), RUN, CPU, Resources(), report=lambda _: None)
    assert event.kind == "done", event.text
    found = [line["lr"] for line in Store(tmp_path).metrics(key(RUN))]
    assert found == pytest.approx([1e-3 * 3 / 4, 1e-3 * (1 + math.cos(math.pi * 7 / 8)) / 2])


def test_a_checkpoint_holds_the_scale_of_the_loss(tmp_path: Path) -> None:
    """At 16 bits the scale doubles after so many steps without overflow, which have to be remembered too."""

    def made() -> tuple[nn.Module, torch.optim.Optimizer, torch.amp.GradScaler]:
        model = nn.Linear(2, 1)
        return model, torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu", growth_interval=3)

    attempt = Store(tmp_path).acquire(RUN)
    assert isinstance(attempt, Attempt)
    session, progress = Session(attempt, CPU), Progress(torch.zeros(()), step=4)
    model, optimiser, scaler = made()
    attempt.begin_metrics()
    for _ in range(4):
        scaler.scale(model(torch.ones(1, 2)).sum()).backward()
        scaler.step(optimiser)
        scaler.update()
    assert scaler.get_scale() == 2.0**17
    save_state(session, progress, model=model, optimiser=optimiser, scaler=scaler)
    fresh = made()
    restore_state(session, Progress(torch.zeros(())), model=fresh[0], optimiser=fresh[1], scaler=fresh[2])
    assert fresh[2].state_dict() == scaler.state_dict()
    assert fresh[2].get_scale() == 2.0**17
    attempt.release()
