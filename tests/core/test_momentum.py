"""The momentum encoder: its schedule, that nothing is learnt in it, and that it survives kills."""

from __future__ import annotations

import math
import signal
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import RECIPE, pretrain
from torch import Tensor, nn

from harness import audit
from harness.core.model.encoder import Encoder, build
from harness.core.objective.losses import total
from harness.core.pretrain.mim import MaskedImageModel
from harness.core.pretrain.momentum import Momentum, momentum_at
from harness.core.train.optimiser import parameter_groups
from harness.launch import Event, Resources
from harness.launch.job import work
from harness.spec import Checkpoint, Contrastive, HarnessError, MomentumEncoder, Pretrain, key
from harness.store import Store

SPEC = MomentumEncoder(start=0.9, end=0.98)
CONTRASTIVE = Contrastive(hidden=16, out=8)
RUN = pretrain(momentum=SPEC, contrastive=CONTRASTIVE, recipe=RECIPE.replace(epochs=3, drop_path=0.2))
STEPS = 12
"""64 images in batches of 16, three times."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def computed(root: Path, run: Pretrain, *, stop: int | None = None, **resources: Any) -> Event:
    """Compute a run in a store, up to a step if one is given."""
    steps = iter(range(1, 10**6))
    return work(
        Store(root),
        run,
        torch.device("cpu"),
        Resources(**{"checkpoint_seconds": 1e6, **resources}),
        report=lambda event: None,
        stopping=lambda: next(steps) == stop,
    )


def weights(root: Path, run: Pretrain) -> dict[str, Tensor]:
    path = Store(root).weights(key(run))
    assert path is not None
    return load_file(path)


# The schedule


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        # 1 - 0.01 * (1 + cos(pi t / 4)) / 2
        (MomentumEncoder(), [0.99, 1 - 0.01 * (2 + math.sqrt(2)) / 4, 0.995, 1 - 0.01 * (2 - math.sqrt(2)) / 4]),
        (MomentumEncoder(start=0.5, end=0.9, schedule="linear"), [0.5, 0.6, 0.7, 0.8]),
        (MomentumEncoder(start=0.5, end=0.9, schedule="linear", epochs=1), [0.5, 0.7, 0.9, 0.9]),  # two steps an epoch
        (MomentumEncoder(start=0.9, end=0.9), [0.9] * 4),
    ],
)
def test_the_schedule(spec: MomentumEncoder, expected: list[float]) -> None:
    found = [momentum_at(spec, step, 4, 2) for step in range(4)]
    assert found == pytest.approx(expected, abs=1e-12)


def test_impossible_schedules_are_refused() -> None:
    with pytest.raises(ValueError, match=r"momentum falls from 0.9 to 0.8"):
        MomentumEncoder(start=0.9, end=0.8)
    with pytest.raises(ValueError, match="start 1 keeps the first weights for ever"):
        MomentumEncoder(start=1.0)


# The average


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """The encoder's parameters after every step of training."""
    found: list[dict[str, Tensor]] = []
    ours = Momentum.follow

    def follow(self: Momentum, model: nn.Module, rate: float) -> None:
        found.append({name: p.detach().double().clone() for name, p in model.named_parameters()})
        ours(self, model, rate)

    monkeypatch.setattr(Momentum, "follow", follow)
    return found


def test_it_follows_the_schedule_to_the_last_step(tmp_path: Path, seen: list[dict[str, Tensor]]) -> None:
    first = {name: tensor.double() for name, tensor in MaskedImageModel(RUN, 3).state_dict().items()}
    assert computed(tmp_path, RUN).kind == "done"
    assert len(seen) == STEPS
    found = weights(tmp_path, RUN)
    names = [name.removeprefix("momentum.") for name in found if name.startswith("momentum.")]
    assert set(names) == {name for name in found if name.startswith(("encoder.", "mask_token", "projector."))}
    for name in names:
        average = first[name]
        assert torch.equal(average, first[f"momentum.{name}"])
        for step, parameters in enumerate(seen):
            m = 0.98 - 0.08 * (1 + math.cos(math.pi * step / STEPS)) / 2
            average = m * average + (1 - m) * parameters[name]
        torch.testing.assert_close(found[f"momentum.{name}"].double(), average, rtol=1e-5, atol=1e-7)
    lines = Store(tmp_path).metrics(key(RUN))
    assert lines[-1]["momentum"] == pytest.approx(0.98 - 0.08 * (1 + math.cos(math.pi * 11 / 12)) / 2)


def test_it_is_there_where_it_is_used_and_only_there() -> None:
    with pytest.raises(ValueError, match="nothing uses the momentum encoder; leave momentum out"):
        pretrain(momentum=SPEC)
    with pytest.raises(ValueError, match="contrastive needs a momentum encoder: set momentum"):
        pretrain(contrastive=CONTRASTIVE)


def test_nothing_is_learnt_in_it() -> None:
    model = MaskedImageModel(RUN, 3)
    assert model.momentum is not None
    batch = audit.fixed_batch(RUN, 4)
    total(model.train()(*batch.inputs)[1]).backward()
    own = dict(model.momentum.named_parameters())
    assert own
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in own.values())
    optimised = [p for group in parameter_groups(model.named_parameters(), RUN.recipe) for p in group["params"]]
    assert not {id(parameter) for parameter in own.values()} & {id(parameter) for parameter in optimised}
    assert audit.dead_parameters(RUN) == []


def test_it_computes_as_in_evaluation_but_for_batch_norms() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5))

    model = Parts()
    momentum = Momentum(SPEC, model, "part").train()
    assert [layer.training for layer in momentum.part] == [True, False]  # type: ignore[union-attr]
    assert [layer.training for layer in momentum.eval().part] == [False, False]  # type: ignore[union-attr]
    model.part(torch.randn(8, 2))  # moves the running statistics, which are copied
    momentum.follow(model, 0.9)
    for name, buffer in momentum.named_buffers():
        assert torch.equal(buffer, model.get_buffer(name))


def test_it_drops_no_residual_branch_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every step its features are those of an encoder that is built without drop path and has its weights."""
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain = Encoder(build(RUN.backbone, image_size=32, channels=3)).eval()
    ours, steps = Momentum.follow, list[float]()

    def follow(self: Momentum, model: Any, rate: float) -> None:
        plain.load_state_dict(self.encoder.state_dict())  # type: ignore[union-attr]
        place, model.place.positions = model.place.positions, torch.arange(4)
        torch.testing.assert_close(self.encoder(images), plain(images))  # type: ignore[operator]
        model.place.positions = place
        ours(self, model, rate)
        steps.append(rate)

    monkeypatch.setattr(Momentum, "follow", follow)
    event = computed(tmp_path, RUN.replace(recipe=RUN.recipe.replace(drop_path=0.5)))
    assert event.kind == "done", event.text
    assert len(steps) == STEPS


def test_only_runs_with_drop_path_beside_a_momentum_encoder_have_another_key() -> None:
    """Their momentum encoders dropped branches once; what else has one or the other keeps its results."""
    still = RUN.replace(recipe=RUN.recipe.replace(drop_path=0.0))
    alone = RUN.replace(momentum=None, contrastive=None)
    assert [run.current_revision() for run in (RUN, still, alone)] == [2, 1, 1]


# Going on


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    assert computed(tmp_path / "whole", RUN).kind == "done"
    for stop in (2, 3, 5):
        assert computed(tmp_path / "parts", RUN, stop=stop).kind == "interrupted"
    assert computed(tmp_path / "parts", RUN).kind == "done"
    whole, parts = (weights(tmp_path / name, RUN) for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_it_can_begin_again_with_weights_that_were_loaded() -> None:
    model = MaskedImageModel(RUN, 3)
    assert model.momentum is not None
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(1.0)
    own = dict(model.momentum.named_parameters())
    assert not any(torch.equal(own[f"encoder.{n}"], p) for n, p in model.encoder.named_parameters())
    model.momentum.restart(model)
    for name, parameter in model.momentum.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name))


def test_it_begins_with_the_weights_that_a_run_starts_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = build(RUN.backbone, image_size=32, channels=3).state_dict()
    given = {name: torch.full_like(tensor, 0.01).contiguous() for name, tensor in made.items()}
    save_file(given, tmp_path / "start.safetensors")
    start = Checkpoint(path=str(tmp_path / "start.safetensors"), backbone=RUN.backbone, image_size=32)
    ours, seen = Momentum.follow, []

    def follow(self: Momentum, model: nn.Module, rate: float) -> None:
        seen.append({name: tensor.clone() for name, tensor in self.encoder.model.state_dict().items()})  # type: ignore[union-attr]
        ours(self, model, rate)

    monkeypatch.setattr(Momentum, "follow", follow)
    event = computed(tmp_path, RUN.replace(start=start, recipe=RECIPE.replace(epochs=1)))
    assert event.kind == "done", event.text
    assert seen[0].keys() == given.keys()
    assert all(torch.equal(seen[0][name], given[name]) for name in given)


def train_for_ever(root: Path, run: Pretrain) -> None:
    """Compute a run with a checkpoint after every step; what a process does that is killed."""
    torch.set_num_threads(1)
    computed(root, run, checkpoint_seconds=0.0)


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    long = RUN.replace(recipe=RUN.recipe.replace(epochs=40))
    assert computed(tmp_path / "whole", long).kind == "done"
    root = tmp_path / "parts"
    for share in (0.2, 0.6):
        process = get_context("spawn").Process(target=train_for_ever, args=(root, long), daemon=True)
        process.start()
        while process.is_alive() and not done(root, long) > share * 160:
            time.sleep(0.01)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert 0 < done(root, long) < 160
    assert computed(root, long).kind == "done"
    whole, parts = (weights(path, long) for path in (tmp_path / "whole", root))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    lines = [[line["momentum"] for line in Store(path).metrics(key(long))] for path in (tmp_path / "whole", root)]
    assert lines[0] == lines[1]


def done(root: Path, run: Pretrain) -> int:
    """Steps that the metrics of a run tell of."""
    try:
        return max((line["step"] for line in Store(root).metrics(key(run))), default=0)
    except (HarnessError, OSError):
        return 0
